"""Threads that wait: as many and as patient as what others leave free, without a change of any number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wnexplore.measure.environment import usable_cores
from wnexplore.measure.machine_load import cpu_times
from wnexplore.measure.thread_waiting import MOST_AT_ONCE, concurrent_trainings
from wnexplore.measure.torch_settings import threads_set

pytestmark = pytest.mark.skipif(
    cpu_times() is None or usable_cores() < 2, reason="needs two cores that tell their times"
)

_LOOK = """
import json, os, sys, torch
from wnexplore.measure.thread_waiting import training_threads, yield_to_others
torch.set_num_threads(len(os.sched_getaffinity(0)))
def tasks():
    return len(os.listdir("/proc/self/task"))
torch.zeros(1 << 20).add_(1)
alone = tasks()
print(flush=True)
sys.stdin.readline()
threads = training_threads(1, 1e9)
yield_to_others(at_once=True)
asked = tasks()
json.dump({"alone": alone, "asked": asked, "threads": threads, "small": training_threads(1, 1e6)}, sys.stdout)
"""


def _look(**settings: str) -> dict[str, int]:
    """What a process sees that has loaded torch before others keep all cores busy."""
    kept = {name: value for name, value in os.environ.items() if name not in _SET}
    with subprocess.Popen(
        [sys.executable, "-c", _LOOK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=kept | settings,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        with _all_cores_busy():
            message, _ = process.communicate("\n")
    assert process.returncode == 0
    found: dict[str, int] = json.loads(message)
    return found


_SET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@contextmanager
def _all_cores_busy() -> Iterator[None]:
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(usable_cores())]
    try:
        for program in programs:
            assert program.stdout is not None
            program.stdout.readline()
        yield
    finally:
        for program in programs:
            program.kill()
            program.communicate()


@pytest.mark.slow
def test_threads_sleep_and_a_training_takes_fewer_where_others_keep_the_cores_busy() -> None:
    found = _look()
    # One more Python thread, and the team that it has.
    assert found["asked"] > found["alone"] + 1
    assert found["threads"] < usable_cores()
    assert found["small"] == 1


@pytest.mark.slow
def test_what_the_person_has_set_is_left_alone() -> None:
    found = _look(OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(usable_cores()))
    assert found["asked"] == found["alone"]
    assert found["threads"] == usable_cores()


@pytest.mark.parametrize(
    ("cores", "count", "threads", "expected"),
    [
        (1, 10, 1, 1),
        (4, 10, 1, 4),
        (4, 3, 1, 3),
        (4, 1, 1, 1),
        (4, 10, 2, 2),
        (4, 10, 8, 1),
        (64, 1000, 1, MOST_AT_ONCE),
    ],
)
def test_so_many_trainings_at_once(
    cores: int, count: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    with threads_set(cores):
        assert concurrent_trainings(count, threads) == expected


_AGAIN = """
import json, os, subprocess, sys, time, torch
from wnexplore.measure.thread_waiting import training_threads
cores = len(os.sched_getaffinity(0))
torch.set_num_threads(cores)
training_threads(1, 1e9)
programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
time.sleep(1.5)
print(training_threads(1, 1e9))
for program in programs:
    program.kill()
"""


@pytest.mark.slow
def test_a_training_that_follows_another_looks_at_the_load_again() -> None:
    kept = {name: value for name, value in os.environ.items() if name not in _SET}
    command = [sys.executable, "-c", _AGAIN]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept)
    assert int(done.stdout) < usable_cores()


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, "adaptive"),
        ({"OMP_WAIT_POLICY": "passive"}, "OMP_WAIT_POLICY=passive"),
        (
            {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "10"},
            "OMP_WAIT_POLICY=active GOMP_SPINCOUNT=10",
        ),
    ],
)
def test_the_policy_is_in_the_environment_and_in_the_protocol_of_a_latency(
    settings: dict[str, str], policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wnexplore.design.protocol import LatencySpec
    from wnexplore.design.sweep_file import PointSpec, SweepSpec
    from wnexplore.measure.environment import environment
    from wnexplore.study.sweep import plan

    for name in _SET:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    point = PointSpec(backbone="shufflenet_v2_x0_5", stem="small", resolution=16)
    planned = plan(SweepSpec(points=(point,), latency=LatencySpec(device="cpu")))
    protocols = [m.protocol for m in planned.measurements if m.figure == "latency"]
    assert [protocol["wait_policy"] for protocol in protocols] == [policy]
    assert environment("cpu")["wait_policy"] == policy
