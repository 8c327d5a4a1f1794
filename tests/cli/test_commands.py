import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.sweeps import TINY, write_sweep
from wnexplore import __version__
from wnexplore.results.store import FILE_NAME, read_records

NAMES = (
    *("sweep", "space", "search", "profile", "race", "table", "pick", "plot", "export", "export-onnx"),
    *("compare", "published", "train", "evaluate", "predict", "analyze"),
)
HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "fvcore", "sklearn", "scipy", "numpy", "onnx")


def test_help_loads_nothing_heavy() -> None:
    # Of every command, one after another: what one has loaded is charged to it.
    script = f"""
import sys
from wnexplore.cli import main
for name in {("", *NAMES)}:
    try:
        main(([name] if name else []) + ["--help"])
    except SystemExit:
        print(name, [module for module in {HEAVY} if module in sys.modules], file=sys.stderr)
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stderr.splitlines() == [f"{name} []" for name in ("", *NAMES)]
    for name in NAMES:
        assert f"Usage: wnexplore {name}" in shown.stdout


def test_the_version(command: Command) -> None:
    assert command("--version").out == f"wnexplore {__version__}\n"


def test_shell_completion() -> None:
    requested = {"_WNEXPLORE_COMPLETE": "complete_bash", "COMP_WORDS": "wnexplore sw", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("wnexplore")
    shown = subprocess.run([program], env=os.environ | requested, capture_output=True, text=True, check=False)
    assert shown.stdout.split() == ["sweep"]


FICKLE = """\
from pathlib import Path
from torch import nn

class Fickle(nn.Sequential):
    def forward(self, x):
        if len(x) == 5 and Path(FLAG).exists():
            raise RuntimeError("not five images today")
        return super().forward(x)

def fickle(num_classes=10):
    return Fickle(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def test_a_sweep_measures_failed_points_again_with_retry_failed_alone(
    tmp_path: Path, command: Command
) -> None:
    network, flag, run = tmp_path / "fickle.py", tmp_path / "flag", tmp_path / "run"
    network.write_text(FICKLE.replace("FLAG", repr(str(flag))), encoding="utf-8")
    flag.touch()
    sweep = (
        *("sweep", "--backbone", f"{network}:fickle", "--method", "plain", "--resolution", 8),
        *("--batch-size", "1,5", "--seconds", 0.001, "--device", "cpu", "--out", run),
    )

    def statuses() -> list[str]:
        return sorted(record.status for record in read_records(run))

    assert "not five images today" in command(*sweep).err
    assert statuses() == ["failed", "ok", "ok"]
    flag.unlink()
    assert command(*sweep).code == 0
    assert statuses() == ["failed", "ok", "ok"]
    assert command(*sweep, "--retry-failed").code == 0
    assert statuses() == ["ok", "ok", "ok"]


def test_profile_prints_one_json_object(command: Command) -> None:
    outcome = command(
        *("profile", "--backbone", "shufflenet_v2_x0_5", "--method", "weightnet", "--M", 2, "--G", 2),
        *("--batch-size", "1,2", "--seconds", 0.001, "--device", "cpu", "--layers", "--json"),
    )
    assert outcome.code == 0
    profile = json.loads(outcome.out)
    assert (profile["backbone"], profile["method"], profile["M"], profile["G"]) == (
        "shufflenet_v2_x0_5",
        "weightnet",
        2,
        2,
    )
    assert (profile["params"], profile["flops"]) == (1_462_880, 40_704_040)
    assert profile["fvcore_flops"] > profile["flops"]
    assert [(e["batch_size"], e["dtype"]) for e in profile["latency"]] == [(1, "float32"), (2, "float32")]
    assert all(e["latency_ms_low"] <= e["latency_ms"] <= e["latency_ms_high"] for e in profile["latency"])
    assert sum(layer["flops"] for layer in profile["layers"]) == profile["flops"]


def test_profile_without_latency_for_a_person(command: Command) -> None:
    outcome = command("profile", "--backbone", "resnet18", "--no-latency", "--stem", "small")
    assert outcome.code == 0
    # torchvision's 11,689,512 less its 7x7 first convolution, with a 3x3 one in its place.
    assert f"({11_689_512 - 64 * 3 * 40:,})" in outcome.out
    assert "latency" not in outcome.out


def test_a_profile_that_does_not_fit_in_memory_fails_with_one_line(command: Command) -> None:
    outcome = command("profile", "--backbone", "resnet18", "--resolution", 10_000_000)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "memory" in outcome.err


def test_a_sweep_leaves_its_files_and_says_so(command: Command, run_directory: Path) -> None:
    names = {path.name for path in run_directory.iterdir()}
    assert names >= {
        FILE_NAME,
        "sweep.yaml",
        "results.csv",
        "report.html",
        "accuracy.png",
        "latency_flops.png",
        "heatmap.png",
    }
    outcome = command("sweep", run_directory / "sweep.yaml", "--out", run_directory, "--sort", "-params")
    assert outcome.code == 0
    assert "20 of 20" in outcome.err
    assert "own.py:tiny weightnet M=1 G=2: layer 3: G·C_out" in outcome.err
    assert f"wrote {run_directory / FILE_NAME}" in outcome.err
    assert "Pareto-optimal" in outcome.out


def test_the_csv_pipes_and_holds_every_column(command: Command, run_directory: Path) -> None:
    outcome = command("export", run_directory)
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert len(rows) == 8
    wanted = [
        *("backbone", "method", "M", "G", "params", "flops", "device", "dtype", "batch_size", "runtime"),
        *("memory_format", "threads", "cache", "mode", "latency_ms", "latency_ms_low", "latency_ms_high"),
        *("latency_ratio", "peak_memory_mb", "energy_j", "compile_s", "rounds", "stopped_by", "warnings"),
        *("dataset", "epochs", "dropped_at", "top1", "top1_low", "top1_high"),
        *("top1_diff", "top1_diff_low", "top1_diff_high", "seeds", "status", "error"),
    ]
    columns = list(rows[0])
    assert [name for name in columns if name in wanted] == wanted
    assert columns.index("fvcore_flops") == columns.index("flops") + 1
    plain = [row for row in rows if row["method"] == "plain"]
    assert {(row["M"], row["energy_j"], row["compile_s"], row["error"]) for row in plain} == {
        ("", "", "", "")
    }
    assert {row["latency_ratio"] for row in plain} == {"1.0"}
    assert {row["top1_diff"] for row in plain} == {""}
    assert all(row["top1_diff"] for row in rows if row["method"] != "plain")
    records = [r for r in read_records(run_directory) if r.figure == "latency" and r.point.method == "plain"]
    assert {float(row["latency_ms"]) for row in plain} == {r.value["latency_ms"] for r in records}
    assert outcome.out == (run_directory / "results.csv").read_text()


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "markdown", "latex"])
def test_every_format_goes_to_a_file(
    command: Command, run_directory: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "figures"
    outcome = command("export", run_directory, "--format", format, "--out", out)
    assert (outcome.code, outcome.out) == (0, "")
    assert out.stat().st_size > 100


def test_a_table_is_filtered_sorted_and_marked(command: Command, run_directory: Path) -> None:
    full = command("table", run_directory, "--sort", "-params").out
    assert "★" in full
    some = command(
        "table", run_directory, "--where", "method=='weightnet' and batch_size==1", "--sort", "params"
    ).out
    assert "weightnet" in some.split()
    assert "plain" not in some.split()
    best = command("table", run_directory, "--pareto", "--objectives", "params,flops").out
    assert "weightnet" not in best
    rules = [
        command("table", run_directory, "--objectives", "latency_ms", *rule) for rule in ((), ("--strict",))
    ]
    captions = [
        next(line for line in outcome.out.splitlines() if line.startswith("★ P")) for outcome in rules
    ]
    assert captions[0] != captions[1]
    # At each batch size one row is fastest by its value; by what is certain there may be several.
    assert rules[1].out.count("\n★") == 2 + 1 <= rules[0].out.count("\n★")


def test_plots_are_real_pictures(command: Command, run_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "fig.png"
    assert (
        command(
            "plot", run_directory, "--x", "params", "--y", "top1", "--logx", "--pareto", "--out", out
        ).code
        == 0
    )
    with Image.open(out) as picture:
        assert picture.width > 500
        assert len(picture.convert("L").getcolors(1 << 16) or []) > 10
    ranks = command("plot", run_directory, "--ranks", "--x", "params", "--out", tmp_path / "ranks.png")
    assert ranks.out == f"{tmp_path / 'ranks.png'}\n"
    with Image.open(tmp_path / "ranks.png") as picture:
        assert picture.width > 500
    standard = command("plot", run_directory, "--out", tmp_path / "paper.pdf")
    written = [Path(line) for line in standard.out.split()]
    assert written
    assert all(path.read_bytes().startswith(b"%PDF") for path in written)


def test_a_dry_run_writes_nothing(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = command("sweep", write_sweep(tmp_path), "--out", out, "--dry-run", "--seeds", 2)
    assert outcome.code == 0
    assert not out.exists()
    assert (
        "weightnet M=2 G=2: counting; latency, float32, batch 1; latency, float32, batch 2; training"
        in outcome.out
    )
    assert re.search(r"\b4 points\b.*\b20\b", outcome.err)
    assert "own.py:tiny weightnet M=1 G=2: " in outcome.err


def test_options_alone_make_a_sweep(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(
        *(
            "sweep",
            "--backbone",
            "shufflenet_v2_x0_5",
            "--method",
            "plain,weightnet",
            "--M",
            "1/2",
            "--G",
            "1/2",
        ),
        *("--stem", "small", "--no-latency", "--no-train"),
    )
    assert outcome.code == 0
    assert [str(r.point.M) for r in read_records(Path("runs/sweep"))] == ["None", "1/2"]


def test_a_sweep_in_which_everything_failed_fails(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = command("sweep", "--method", "plain", "--resolution", 10_000_000, "--no-latency", "--out", out)
    assert outcome.code == 1
    assert "failed: shufflenet_v2_x0_5 plain: " in outcome.err
    assert "memory" in outcome.out
    assert [r.status for r in read_records(out)] == ["out_of_memory"]


def test_two_sweeps_in_one_folder_the_second_is_reported(command: Command, tmp_path: Path) -> None:
    from wnexplore.results.store import Store

    with Store.create(tmp_path / "run"):
        outcome = command("sweep", write_sweep(tmp_path), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert str(tmp_path / "run") in outcome.err


@pytest.mark.slow
def test_ctrl_c_says_what_is_done_and_how_to_resume(tmp_path: Path) -> None:
    import signal
    import sqlite3
    import time

    file = write_sweep(tmp_path, TINY.replace("0.001", "0.2"))
    arguments = [sys.executable, "-m", "wnexplore", "sweep", str(file), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has SIGINT ignored, and so would the sweep.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    done, until = 0, time.monotonic() + 120
    while done < 3 and time.monotonic() < until:
        time.sleep(0.05)
        try:
            connection = sqlite3.connect(f"file:{tmp_path}/run/{FILE_NAME}?mode=ro", uri=True)
            done = connection.execute("SELECT count(*) FROM records").fetchone()[0]
            connection.close()
        except sqlite3.OperationalError:
            continue
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert str(tmp_path / "run") in err
    assert f"python -m wnexplore sweep {file} --out {tmp_path / 'run'}\n" in err
    assert "Traceback" not in err
    kept = len(read_records(tmp_path / "run"))
    assert f"{kept} of 12" in err


def test_a_reader_who_has_had_enough_is_no_error(run_directory: Path) -> None:
    export = f"{sys.executable} -m wnexplore export {run_directory} --format json"
    script = f"{export} | head -c 1; echo ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("[0\n", "")


def test_published_says_where_the_rows_do_not_agree(command: Command) -> None:
    rows = json.loads(command("published", "--json").out)
    assert len(rows) == 14
    apart = {
        (row["backbone"], row["multiplier"])
        for row in rows
        if not (row["params_agree"] and row["flops_agree"])
    }
    assert apart == {("shufflenet_v2_x0_5", None), ("shufflenet_v2_x2_0", 1), ("shufflenet_v2_x2_0", 4)}
    text = command("published").out
    assert "11 of 14" in text
    assert re.search(r"6\.197 M.*6\.1 M.*\+0\.097 M", text)
