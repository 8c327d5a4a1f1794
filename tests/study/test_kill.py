"""A sweep killed at any moment loses at most the measurement under way."""

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import ended, started
from tests.sweeps import TRAINED, committed, write_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.results.store import FILE_NAME, read_records
from wnexplore.study.sweep import plan

KILLS = 15


@pytest.mark.slow
def test_a_sweep_killed_at_many_moments_ends_with_each_record_once(tmp_path: Path) -> None:
    file, directory = write_sweep(tmp_path, TRAINED), tmp_path / "run"
    wanted = {m.key for m in plan(load_sweep(file)).measurements}
    dice = random.Random(0)
    at_kills = []
    for kill in range(KILLS):
        with started("sweep", file, "--out", directory) as process:
            # From the first moments of the process on to well into a measurement.
            before, until = committed(directory), time.monotonic() + 60
            if kill % 3:
                while committed(directory) == before and process.poll() is None and time.monotonic() < until:
                    time.sleep(0.005)
            time.sleep(dice.uniform(0, 0.6 if kill % 3 == 0 else 0.1))
            process.kill()
        at_kills.append(committed(directory))
        if (directory / FILE_NAME).exists() and at_kills[-1]:
            keys = [record.key for record in read_records(directory)]
            assert len(keys) == len(set(keys)) == at_kills[-1]
            assert set(keys) <= wanted
    assert at_kills == sorted(at_kills), "a committed record was lost"
    assert len(set(at_kills)) > 3, "the kills came at one moment only"

    ended("sweep", file, "--out", directory)
    records = read_records(directory)
    assert sorted(record.key for record in records) == sorted(wanted)
    assert {record.status for record in records} == {"ok"}
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {"results.csv", "sweep.yaml"} <= {path.name for path in directory.iterdir()}
    assert not [path for path in directory.iterdir() if path.suffix == ".tmp"]
