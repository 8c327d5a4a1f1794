"""A sweep killed at any moment loses at most the measurement under way."""

import multiprocessing
import random
import sqlite3
import time
from contextlib import closing
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.sweeps import SHUFFLENET, committed, write_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.results.store import FILE_NAME, read_records
from wnexplore.study.sweep import plan

KILLS = 20


def _sweep(file: str, directory: str) -> None:
    from wnexplore.cli import main

    main(["sweep", file, "--out", directory])


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes of their own, forked from one that has loaded torch already: kills come cheap."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wnexplore.study.sweep", "wnexplore.report.figures"])
    return context


def _start(processes: ForkServerContext, file: Path, directory: Path) -> BaseProcess:
    process = processes.Process(target=_sweep, args=(str(file), str(directory)))
    process.start()
    return process


@pytest.mark.slow
def test_a_sweep_killed_at_many_moments_ends_with_each_record_once(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    file, directory = write_sweep(tmp_path, SHUFFLENET), tmp_path / "run"
    wanted = {m.key for m in plan(load_sweep(file)).measurements}
    dice = random.Random(0)
    at_kills = []
    for kill in range(KILLS):
        process = _start(processes, file, directory)
        # From the first moments of the process on to well into a measurement.
        before, until = committed(directory), time.monotonic() + 60
        if kill % 3:
            while committed(directory) == before and process.is_alive() and time.monotonic() < until:
                time.sleep(0.001)
        process.join(dice.uniform(0, 0.6))
        process.kill()
        process.join()
        at_kills.append(committed(directory))
        if (directory / FILE_NAME).exists() and at_kills[-1]:
            keys = [record.key for record in read_records(directory)]
            assert len(keys) == len(set(keys)) == at_kills[-1]
            assert set(keys) <= wanted
    assert at_kills == sorted(at_kills), "a committed record was lost"
    assert len(set(at_kills)) > 3, "the kills came at one moment only"

    process = _start(processes, file, directory)
    process.join()
    assert process.exitcode == 0
    records = read_records(directory)
    assert sorted(record.key for record in records) == sorted(wanted)
    assert {record.status for record in records} == {"ok"}
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {"results.csv", "sweep.yaml"} <= {path.name for path in directory.iterdir()}
    assert not [path for path in directory.iterdir() if path.suffix == ".tmp"]
