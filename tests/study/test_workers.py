"""The same sweep in one process, and in several of this machine that are killed now and then."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.commands import ended, started
from tests.study.faults import FULL, HALVING, broken, kill_driver, kill_worker, told, unbroken
from tests.sweeps import TINY, committed, write_sweep
from wnexplore.results.store import read_records


@pytest.mark.slow
def test_killed_workers_and_commands_change_no_record(tmp_path: Path) -> None:
    file, alone = unbroken(tmp_path / "sweep", HALVING)
    directory = tmp_path / "run"
    starts, _ = broken(
        ("sweep", file, "--out", directory, "--workers", 2), [kill_worker, kill_worker, kill_driver], 3
    )
    assert starts > 1
    assert told(directory) == alone
    assert not (directory / "paused").exists()


@pytest.mark.slow
def test_a_search_side_by_side_measures_each_point_once(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, TINY.replace("batch_sizes: [1, 2]", "batch_sizes: [1]"))
    command = ("search", file, "--objectives", "params,flops", "--trials", 4, "--workers", 2, "--no-train")
    ended(*command, "--out", tmp_path / "run")
    records = [record for record in read_records(tmp_path / "run") if record.figure == "complexity"]
    assert len({record.point for record in records}) == len(records) == 4
    assert all(record.environment["node"] == "this machine" for record in records)


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_running_and_says_how_to_go_on(tmp_path: Path) -> None:
    file, directory = write_sweep(tmp_path, FULL.replace("epochs: 12", "epochs: 400")), tmp_path / "run"
    with started("sweep", file, "--out", directory, "--workers", 2, session=True) as process:
        until = time.monotonic() + 60
        # Four points are counted and timed twice; then trainings are under way.
        while committed(directory) < 12 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130, process.err
        assert "stopped: 12 of 24 measurements are done and kept" in process.err
    assert children
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if "spawn_main" in " ".join(child.cmdline())]
