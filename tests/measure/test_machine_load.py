"""What others take: by given times of cores, and by a real process that burns a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Sequence

import pytest

from wnexplore.measure.machine_load import CpuTimes, Load, cpu_times, load_between

needs_times = pytest.mark.skipif(cpu_times() is None, reason="this system doesn't tell what its cores do")
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")

Core = namedtuple("Core", "user nice system idle iowait irq softirq steal guest guest_nice")
Windows = namedtuple("Windows", "user system idle")


@needs_affinity
def test_times_are_added_up_over_the_cores_of_the_affinity_mask() -> None:
    # A guest's being in user and nice.
    first, other = Core(10.0, 2.0, 0.3, 7.77, 8.88, 0.04, 0.05, 0.6, 5.0, 1.0), Core(*[7.0] * 10)
    mask = os.sched_getaffinity(0)
    core = min(mask)
    try:
        os.sched_setaffinity(0, {core})
        found = cpu_times(lambda: [other] * core + [first, other])
    finally:
        os.sched_setaffinity(0, mask)
    assert found is not None
    assert found.busy_s == pytest.approx(10 + 2 + 0.3 + 0.04 + 0.05 + 0.6)
    assert found.steal_s == pytest.approx(0.6)


@needs_affinity
def test_fewer_cores_than_this_process_has_are_no_answer() -> None:
    assert cpu_times(lambda: [Core(*[1.0] * 10)] * max(os.sched_getaffinity(0))) is None


def test_a_system_that_reports_nothing_or_no_stolen_time_is_no_answer() -> None:
    def refuses() -> Sequence[Core]:
        raise PermissionError

    unknown = Windows(1.0, 1.0, 1.0)
    assert cpu_times(refuses) is None
    assert cpu_times(lambda: [unknown] * 1024) is None


@needs_affinity
def test_a_sandbox_that_shows_only_zeros_is_no_answer() -> None:
    assert cpu_times(lambda: [Core(*[0.0] * 10)] * (max(os.sched_getaffinity(0)) + 1)) is None


def test_others_are_what_is_left_of_the_busy_time() -> None:
    before = CpuTimes(clock_s=100.0, busy_s=5000.0, steal_s=40.0, process_s=7.0)
    after = CpuTimes(clock_s=104.0, busy_s=5011.0, steal_s=41.0, process_s=10.0)
    # 11 s busy in 4 s, 3 of them this process's and 1 stolen.
    assert load_between(before, after) == Load(busy_cores=2.0, steal_cores=0.25)


def test_nobody_else_is_never_less_than_nobody() -> None:
    before = CpuTimes(clock_s=0.0, busy_s=50.0, steal_s=0.0, process_s=0.0)
    assert load_between(before, CpuTimes(2.0, 51.99, 0.0, 2.0)) == Load(0.0, 0.0)


def test_unknown_moments_and_no_time_between_give_no_load() -> None:
    moment = CpuTimes(clock_s=1.0, busy_s=50.0, steal_s=0.0, process_s=0.0)
    assert load_between(None, moment) is None
    assert load_between(moment, None) is None
    assert load_between(moment, moment) is None


BURN = """
import time
while time.process_time() < 0.6:
    sum(range(10000))
print(time.process_time())
"""


@needs_times
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


@needs_times
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
    assert 0.25 <= after.process_s - before.process_s <= latest - earliest
    assert after.busy_s - before.busy_s >= 0.8 * (0.3 + float(child.stdout))
