"""How a sweep's latencies are asked for on the command line, and what comes of it."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from wnexplore.results.store import read_records

SMALL = (
    *("sweep", "--backbone", "shufflenet_v2_x0_5", "--method", "plain,weightnet", "--stem", "small"),
    *("--resolution", "16", "--num-classes", "10", "--device", "cpu", "--seconds", "0.001"),
)


@pytest.mark.slow
def test_every_axis_is_an_option_and_a_column(command: Command, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    requested = ("--dtype", "float32,bfloat16", "--memory-format", "channels_last", "--cache", "cold")
    done = command(
        *SMALL,
        *requested,
        "--mode",
        "train",
        "--threads",
        "1",
        "--target",
        "0.2",
        "--batch-size",
        "2",
        "--out",
        directory,
    )
    assert done.code == 0, done.err
    latencies = [record for record in read_records(directory) if record.figure == "latency"]
    assert {r.protocol["dtype"] for r in latencies} == {"float32", "bfloat16"}
    shared = {"memory_format": "channels_last", "cache": "cold", "mode": "train", "threads": 1, "target": 0.2}
    for record in latencies:
        assert shared.items() <= record.protocol.items()
    header, *rows = command("export", directory).out.splitlines()
    assert len(rows) == 4
    assert {"memory_format", "threads", "cache", "mode", "stopped_by", "warnings"} <= set(header.split(","))
    assert all(",channels_last," in row and ",cold,train," in row for row in rows)


def test_what_is_to_be_timed_is_reported_by_a_dry_run(command: Command, tmp_path: Path) -> None:
    requested = ("--runtime", "eager,compile", "--mode", "train", "--batch-size", "1,16")
    done = command(*SMALL, *requested, "--dry-run", "--out", tmp_path / "run")
    assert done.code == 0
    plain = done.out.splitlines()[0]
    assert plain.startswith("shufflenet_v2_x0_5 plain: counting; latency, float32, batch 1, train")
    assert "latency, float32, batch 16, compile, train" in plain
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (("--target", "3"), "option --target: latency.target is '3.0'"),
        (("--target", "0"), "option --target: latency.target is '0.0'"),
        (("--runtime", "onnx"), "option --runtime: latency.runtimes is 'onnx': expected 'eager', 'compile'"),
        (("--mode", "eval"), "option --mode"),
        (("--cache", "lukewarm"), "option --cache"),
        (("--memory-format", "nhwc"), "option --memory-format"),
        (("--threads", "two"), "option --threads"),
        (("--threads", "0"), "option --threads"),
        (("--dtype", "tf32"), "dtype 'tf32'"),
        (("--runtime", "cudagraph"), "runtime 'cudagraph'"),
        (("--runtime", "onnxruntime", "--mode", "train"), "mode 'inference', not 'train'"),
        (("--runtime", "eager,onnxruntime", "--dtype", "float32,bfloat16"), "dtype 'float32', not"),
        (("--runtime", "onnxruntime", "--memory-format", "channels_last"), "memory_format 'contig"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_is_reported_in_one_line(
    command: Command, tmp_path: Path, requested: tuple[str, ...], message: str
) -> None:
    done = command(*SMALL, *requested, "--out", tmp_path / "run")
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
