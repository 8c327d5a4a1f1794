"""What can't be written is told by its own name, and texts of anybody's stay texts."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.conftest import Command
from tests.results.records import complexity, failure, filled, points
from wnexplore.report import tables
from wnexplore.report.export import export
from wnexplore.results.escape import csv_cell
from wnexplore.results.frame import frame
from wnexplore.results.store import read_records

LONG = "x" * 300


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run directory."""
    return filled(tmp_path / "run", [complexity(point) for point in points()])


@pytest.mark.parametrize("name", ["table", "export"])
def test_a_reader_that_reads_nothing_is_no_error(run: Path, name: str) -> None:
    command = [sys.executable, "-m", "wnexplore", name, str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("table", LONG),
        ("compare", "{run}", LONG),
        ("export", "{run}", "--out", LONG),
        ("plot", "{run}", "--out", f"{LONG}.png"),
        ("sweep", LONG),
        ("sweep", "--backbone", "resnet18", "--no-latency", "--out", LONG),
        ("search", "--backbone", "resnet18", "--out", LONG),
        ("space", "--backbone", f"{LONG}.py:net"),
        ("space", "--backbone", "resnet18", "--out", LONG),
    ],
)
def test_a_name_that_is_too_long_is_reported_for_its_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(*(argument.replace("{run}", str(run)) for argument in arguments))
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("\n") == 1
    assert "too long" in outcome.err
    assert "xxx" in outcome.err
    assert "standard output" not in outcome.err


@pytest.mark.parametrize(
    "options",
    [
        ("--x", "flops", "--y", "params", "--out", "nowhere/a.png"),
        ("--out", "nowhere/all"),
        ("--out", "a.jpg"),
    ],
)
def test_a_plot_that_cannot_be_written_is_not_drawn(
    command: Command, monkeypatch: pytest.MonkeyPatch, run: Path, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr("wnexplore.report.figures.render", lambda info: pytest.fail("drawn"))
    outcome = command("plot", run, *options)
    assert outcome.code == 2
    assert "can't" in outcome.err


def test_a_long_value_is_cut_in_every_message(command: Command, run: Path) -> None:
    value = "y\x1b[2J" * 25_000
    for arguments in (
        ("table", run, "--where", value),
        ("table", run, "--where", f"{value}==1"),
        ("table", run, "--sort", value),
        ("table", value),
        ("export", run, "--format", value),
        ("plot", run, "--x", value),
        ("pick", run, "--objective", value),
        ("sweep", "--backbone", value),
        ("sweep", "--method", value),
        ("sweep", "--M", value),
        ("sweep", "--stages", value),
        ("profile", "--backbone", "resnet18", "--stem", value),
        ("profile", "--backbone", "resnet18", "--batch-size", value),
        ("profile", "--backbone", "resnet18", "--num-classes", value),
        ("train", "--backbone", "resnet18", "--data", value),
        (value,),
    ):
        outcome = command(*arguments)
        assert outcome.code == 2
        assert len(outcome.err) < 2200
        assert outcome.err.count("\n") == 1
        assert outcome.err.rstrip("\n").isprintable()


def test_a_sweep_that_cannot_be_drawn_is_no_failure(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("Image size of 99999x9 pixels is too large")

    monkeypatch.setattr("wnexplore.report.figures.render", broken)
    grid = ("sweep", "--backbone", "shufflenet_v2_x0_5", "--method", "plain", "--no-latency")
    outcome = command(*grid, "--resolution", "32", "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "ValueError: Image size of 99999x9 pixels" in outcome.err
    assert (tmp_path / "run" / "results.csv").exists()


def test_a_runs_own_sweep_file_is_kept(command: Command, tmp_path: Path) -> None:
    sweep = ("sweep", "--backbone", "shufflenet_v2_x0_5", "--no-latency", "--resolution", "32")
    first = (*sweep, "--method", "plain", "--out", tmp_path / "run")
    assert command(*first).code == 0
    written = (tmp_path / "run" / "sweep.yaml").read_bytes()
    assert command(*first).code == 0
    other = command(*sweep, "--method", "se", "--out", tmp_path / "run")
    assert other.code == 0
    assert "sweep-2.yaml" in other.err
    assert (tmp_path / "run" / "sweep.yaml").read_bytes() == written
    assert command("sweep", tmp_path / "run" / "sweep.yaml", "--out", tmp_path / "run").code == 0
    assert sorted(path.name for path in (tmp_path / "run").glob("*.yaml")) == ["sweep-2.yaml", "sweep.yaml"]


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\tx", "\r=1", '=HYPERLINK("http://x")'])
def test_no_cell_is_a_formula(text: str) -> None:
    rows = frame([failure("complexity", points()[0], error=text)])
    _, row = csv.reader(io.StringIO(str(export(rows, "csv"))))
    assert row[-1].startswith("'")
    assert csv_cell(-1.5) == -1.5


def test_names_of_anybodys_are_texts_for_whoever_reads_them() -> None:
    error = "a|b $x$ ~~c~~ \\d \x1b[31m<b> `e`"
    rows = frame([failure("complexity", points()[0], error=error)])
    markdown, latex = str(export(rows, "markdown")), str(export(rows, "latex"))
    assert "a\\|b \\$x\\$ \\~\\~c\\~\\~ \\\\d \\\\x1b\\[31m\\<b\\> \\`e\\`" in markdown
    assert "a\\textbar{}b \\$x\\$ \\textasciitilde{}\\textasciitilde{}c" in latex
    screen = io.StringIO()
    Console(file=screen, width=200).print(tables.table(rows))
    for text in (markdown, latex, screen.getvalue(), str(export(rows, "csv"))):
        assert "\x1b" not in text


CLOSED = "wnexplore: can't write standard output: Bad file descriptor\n"
FULL = "wnexplore: can't write standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--version >&-", 1, CLOSED),
        ("--version >/dev/full", 1, FULL),
        ("--version <&- >&-", 1, CLOSED),
        ("--version <&- >&- 2>&-", 1, ""),
        ("nonsense <&- >&- 2>&-", 2, ""),
        ("nonsense 2>/dev/full", 2, ""),
        ("nonsense 2>&1 >&- | true", 2, ""),
    ],
)
def test_closed_and_full_streams_are_reported_where_anything_can_be(
    arguments: str, code: int, message: str
) -> None:
    script = f"{sys.executable} -m wnexplore {arguments}; exit ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout, shown.stderr) == (code, "", message)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["2>&-", "2> >(true)"])
def test_what_can_not_be_reported_ends_no_work(tmp_path: Path, way: str) -> None:
    """Of a closed standard error the database could have the number."""
    out = tmp_path / "run"
    options = f"--backbone resnet18 --method plain --resolution 32 --no-latency --out {out}"
    script = f"{sys.executable} -m wnexplore sweep {options} {way}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert (out / "results.csv").exists()
    assert "resnet18" in done.stdout
    assert done.stderr == ""
    assert len(read_records(out)) == 1


@pytest.mark.parametrize(("name", "told"), [("sweep.yaml", "Is a directory"), (".lock", "Is a directory")])
def test_a_folder_where_a_runs_file_belongs_is_bad_input(
    command: Command, run: Path, name: str, told: str
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    options = ("--backbone", "resnet18", "--method", "plain", "--resolution", 32, "--no-latency")
    outcome = command("sweep", *options, "--out", run)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert told in outcome.err
    assert str(run) in outcome.err
