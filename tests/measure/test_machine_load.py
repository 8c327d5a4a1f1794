"""What others take: by given texts of /proc/stat, and by a real process that burns a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from wnexplore.measure.machine_load import STAT, CpuTimes, Load, cpu_times, load_between

needs_stat = pytest.mark.skipif(not STAT.exists(), reason="no /proc/stat here")
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")


def _stat(path: Path, cores: Mapping[int, tuple[int, ...]]) -> Path:
    """A file like /proc/stat with these fields of these cores."""
    total = [sum(column) for column in zip(*cores.values(), strict=True)]
    rows = {"cpu ": total, **{f"cpu{number}": fields for number, fields in cores.items()}}
    lines = [f"{name} {' '.join(map(str, fields))}" for name, fields in rows.items()]
    path.write_text("\n".join([*lines, "intr 55 0 0", "ctxt 99", "btime 1", "softirq 7 1 2"]) + "\n")
    return path


@needs_affinity
def test_fields_are_added_up_over_the_cores_of_the_affinity_mask(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice, a guest's being in user and nice
    first = (1000, 200, 30, 777, 888, 4, 5, 60, 500, 100)
    other = (7, 7, 7, 7, 7, 7, 7, 7, 7, 7)
    mask = os.sched_getaffinity(0)
    core = min(mask)
    stat = _stat(tmp_path / "stat", {core: first, core + 1: other})
    try:
        os.sched_setaffinity(0, {core})
        found = cpu_times(stat)
    finally:
        os.sched_setaffinity(0, mask)
    assert found is not None
    ticks = os.sysconf("SC_CLK_TCK")
    assert found.busy_s == pytest.approx((1000 + 200 + 30 + 4 + 5 + 60) / ticks)
    assert found.steal_s == pytest.approx(60 / ticks)


@needs_affinity
def test_a_list_of_other_cores_than_this_process_has_is_no_answer(tmp_path: Path) -> None:
    beyond = max(os.sched_getaffinity(0)) + 1
    assert cpu_times(_stat(tmp_path / "stat", {beyond: (1,) * 10})) is None


def test_no_file_and_files_of_another_kind_are_no_answer(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    assert cpu_times(stat) is None
    for text in ("", "cpu 1 2 3\ncpu0 1 2 3\n", "cpu0 a b c d e f g h\n"):
        stat.write_text(text)
        assert cpu_times(stat) is None


@needs_affinity
def test_a_sandbox_that_shows_only_zeros_is_no_answer(tmp_path: Path) -> None:
    cores = dict.fromkeys(os.sched_getaffinity(0), (0,) * 10)
    assert cpu_times(_stat(tmp_path / "stat", cores)) is None


def test_others_are_what_is_left_of_the_busy_time() -> None:
    before = CpuTimes(clock_s=100.0, busy_s=5000.0, steal_s=40.0, own_s=7.0)
    after = CpuTimes(clock_s=104.0, busy_s=5011.0, steal_s=41.0, own_s=10.0)
    # 11 s busy in 4 s, 3 of them this process's and 1 stolen.
    assert load_between(before, after) == Load(busy_cores=2.0, steal_cores=0.25)


def test_nobody_else_is_never_less_than_nobody() -> None:
    before = CpuTimes(clock_s=0.0, busy_s=50.0, steal_s=0.0, own_s=0.0)
    assert load_between(before, CpuTimes(2.0, 51.99, 0.0, 2.0)) == Load(0.0, 0.0)


def test_unknown_moments_and_no_time_between_give_no_load() -> None:
    moment = CpuTimes(clock_s=1.0, busy_s=50.0, steal_s=0.0, own_s=0.0)
    assert load_between(None, moment) is None
    assert load_between(moment, None) is None
    assert load_between(moment, moment) is None


BURN = """
import time
while time.process_time() < 0.6:
    sum(range(10000))
print(time.process_time())
"""


@needs_stat
def test_a_process_that_burns_a_core_is_seen() -> None:
    before = cpu_times()
    child = subprocess.run([sys.executable, "-c", BURN], capture_output=True, text=True, check=True)
    after = cpu_times()
    load = load_between(before, after)
    assert before is not None
    assert after is not None
    assert load is not None
    # Processor time, not time on the clock: whatever else runs can only add to it.
    assert load.busy_cores * (after.clock_s - before.clock_s) >= 0.8 * float(child.stdout)
    assert load.busy_cores <= 1.1 * len(os.sched_getaffinity(0)) + 0.1


@needs_stat
def test_own_time_is_that_of_this_process_without_its_children() -> None:
    earliest = time.process_time()
    before = cpu_times()
    child = subprocess.run([sys.executable, "-c", BURN], capture_output=True, text=True, check=True)
    while time.process_time() < earliest + 0.3:
        sum(range(10000))
    after = cpu_times()
    latest = time.process_time()
    assert before is not None
    assert after is not None
    assert 0.25 <= after.own_s - before.own_s <= latest - earliest
    assert after.busy_s - before.busy_s >= 0.8 * (0.3 + float(child.stdout))
