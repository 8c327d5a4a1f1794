"""Whatever asks a command to end, what is done is kept and a line says how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.commands import started
from tests.sweeps import GRID, TRAINED, committed, write_sweep
from wnexplore.results.store import FILE_NAME, Store, read_records
from wnexplore.training.log import read_log

SENDS = """
import os
from own import nn, tiny

left = [None] * {times}

class Sends(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        while left and x.device.type == "cpu" and self.training == {in_training}:
            left.pop()
            os.kill(os.getpid(), {number})
        return self.network(x)

def sends(num_classes=10):
    return Sends(tiny(num_classes))
"""
"""A network that sends its own process a signal when it first runs, or first trains."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")


def write_network(folder: Path, number: signal.Signals, *, in_training: bool = False, times: int = 1) -> str:
    write_sweep(folder)
    path = folder / "sends.py"
    text = SENDS.format(number=int(number), in_training=in_training, times=times)
    path.write_text(text, encoding="utf-8")
    return f"{path}:sends"


@contextmanager
def harmless(number: signal.Signals, way: object = lambda *_: None) -> Iterator[None]:
    """A signal that nobody handles is a fault, and not the end of the tests."""
    before = signal.signal(number, way)  # type: ignore[arg-type]
    try:
        yield
    finally:
        assert signal.getsignal(number) == way, "it is not handled as before"
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", ["sweep", "search"])
def test_a_stopped_run_says_how_to_resume(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: signal.Signals
) -> None:
    grid = GRID.replace("batch_sizes: [1, 2]", "batch_sizes: [1]")
    text = grid + f"backbones: ['{write_network(tmp_path, number)}']\n"
    arguments = [name, str(write_sweep(tmp_path, text)), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["/somewhere/wnexplore", *arguments])
    with harmless(number):
        outcome = command(*arguments)
    assert outcome.code == 130, outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("stopped: ")
    assert (
        f"kept in {tmp_path / 'run'}; to resume: /somewhere/wnexplore {shlex.join(arguments)}" in outcome.err
    )
    assert "add --debug" not in outcome.err
    # The lock went with the command.
    Store.create(tmp_path / "run").close()


def test_a_command_that_keeps_nothing_is_stopped(command: Command, tmp_path: Path) -> None:
    network = write_network(tmp_path, signal.SIGTERM)
    options = ("--resolution", 8, "--no-latency")
    with harmless(signal.SIGTERM):
        outcome = command("profile", "--backbone", network, *options)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "wnexplore: stopped\n")


def test_what_the_caller_ignores_stays_ignored(command: Command, tmp_path: Path) -> None:
    network = write_network(tmp_path, signal.SIGHUP)
    options = ("--resolution", 8, "--no-latency")
    with harmless(signal.SIGHUP, signal.SIG_IGN):
        assert command("profile", "--backbone", network, *options).code == 0


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGHUP, 2)])
def test_a_training_keeps_the_step_under_way(
    command: Command, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    """A terminal that is closed sends SIGHUP more than once."""
    options = ("--resolution", 8, "--data", "digits", "--epochs", 2, "--device", "cpu", "--log-every", 1)
    out = tmp_path / "run"
    network = write_network(tmp_path, number, in_training=True, times=times)
    with harmless(number):
        outcome = command("train", "--backbone", network, *options, "--out", out)
    assert outcome.code == 130, outcome.err
    assert "stopped at step 1 of" in outcome.err
    assert "to resume: " in outcome.err
    assert list((out / "checkpoints").iterdir())
    assert [row.step for row in read_log(out)] == [1]


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_sweep_loses_nothing(tmp_path: Path) -> None:
    """As a closed terminal sends it: the processes that train get it too, and Python's own."""
    text = TRAINED.replace("seeds: 2", "seeds: 3, jobs: 2").replace("epochs: 1", "epochs: 6")
    file, run = write_sweep(tmp_path, text), tmp_path / "run"
    with started("sweep", file, "--no-latency", "--out", run, session=True) as process:
        until = time.monotonic() + 120
        while committed(run) < 6 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGHUP)
        code = process.wait()
        out, err = process.out, process.err
    assert code == 130, err
    assert out == ""
    assert "to resume: python -m wnexplore sweep" in err
    assert "Traceback" not in err
    assert "died" not in err
    kept = len(read_records(run))
    assert f"stopped: {kept} of" in err
    # Nobody of them is left: the database is nobody's.
    assert not list(run.glob(f"{FILE_NAME}-wal"))
