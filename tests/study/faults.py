"""Sweeps whose processes are killed at random moments; what they leave is compared with an unbroken one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.commands import ended, started
from tests.sweeps import write_sweep
from wnexplore.results.store import read_records

SWEEP = """\
backbones: [own.py:tiny]
methods: [plain, weightnet]
M: [1, 2]
G: [1, 2]
resolution: [8]
num_classes: [10]
latency: {device: cpu, batch_sizes: [1, 2], seconds: 0.1, threads: [1]}
train: {data: digits, device: cpu, TRAIN, batch_size: 256, jobs: 1}
"""
FULL = SWEEP.replace("TRAIN", "epochs: 12, seeds: 3")
HALVING = SWEEP.replace("TRAIN", "schedule: halving, max_epochs: 18, eta: 3, seeds: 2")

Kill = Callable[[int], bool]
"""Kills something of the command with this process; whether there was something."""


def unbroken(folder: Path, text: str) -> tuple[Path, dict[str, Any]]:
    """The sweep file, and what it leaves in one process."""
    folder.mkdir()
    file = write_sweep(folder, text)
    ended("sweep", file, "--out", folder / "inline")
    return file, told(folder / "inline")


def told(directory: Path) -> dict[str, Any]:
    """Key -> the figures of a record that are the same in any process. Fails for one that is there twice."""
    found: dict[str, Any] = {}
    for record in read_records(directory):
        assert record.key not in found
        value = {name: of for name, of in record.value.items() if name not in ("seconds", "operators")}
        alike = {} if record.figure == "latency" else value | dict(record.samples)
        found[record.key] = record.figure, str(record.point), record.status, record.error, alike
    return found


def broken(
    command: Sequence[object], kills: Sequence[Kill], moments: int, seed: int = 0
) -> tuple[int, list[str]]:
    """Run `command` until it ends by itself, while `kills` by turns strike at so many random moments.

    Returns how often the command was started, and what it said in the end.
    """
    dice, left, starts = random.Random(seed), moments, 0
    last: Kill | None = None
    while True:
        starts += 1
        assert starts <= 3 * moments + 2, "it does not come to an end"
        with started(*command) as process:
            until = time.monotonic() + dice.uniform(0, _LONGEST_S)
            while process.poll() is None:
                if left and time.monotonic() > until:
                    last = kills[left % len(kills)]
                    left -= last(process.pid)
                    until = time.monotonic() + dice.uniform(0, _BETWEEN_S)
                time.sleep(0.02)
            if process.poll() == 0:
                return starts, process.err.splitlines()
            # Ray ends a command whose own node is lost.
            lost = last is not None and last.__name__ == "kill_one" and process.poll() == 1
            assert process.poll() == -signal.SIGKILL or lost, process.err
            assert "unexpected " not in process.err


_LONGEST_S, _BETWEEN_S = 12.0, 3.0


def kill_driver(pid: int) -> bool:
    """Kill the command itself."""
    os.kill(pid, signal.SIGKILL)
    return True


def kill_worker(pid: int) -> bool:
    """Kill one of its processes that do tasks."""
    return _kill_one(_of_command(pid, "spawn_main"))


def kill_ray_worker(pid: int) -> bool:
    """Kill a process that does a task for Ray."""
    found = [p for p in psutil.process_iter(["name", "cmdline"]) if "ray::perform_there" in _line(p)]
    return _kill_one(iter(found))


def _of_command(pid: int, text: str) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            if text in _line(process):
                yield process


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill_one(processes: Iterator[psutil.Process]) -> bool:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
            return True
    return False
