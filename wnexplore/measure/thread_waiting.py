"""How torch's threads wait for each other, and how many a training uses, on a busy machine.

A pass of a small network is hundreds of short parallel regions, after each of which torch's threads wait for
the slowest. GNU's OpenMP (libgomp, in torch's wheels) has them spin for a while: fastest on an idle machine,
and by far slowest on a busy one, where the slowest thread can't get the core that another one spins on.
libgomp lets threads sleep almost at once when a process has more threads than cores (GOMP_SPINCOUNT in its
manual). So while other programs keep cores busy that torch's threads need, this module keeps one more, idle
team of threads. Neither the number of computing threads nor any result changes. Benchmark: python -m
tests.benchmarks.busy.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
import torch

from wnexplore.design.axes import ADAPTIVE
from wnexplore.measure.environment import usable_cores, wait_policy
from wnexplore.measure.machine_load import cpu_times

SMALL_STEP = 30e6
"""Multiply-adds of a training step's forward passes below which a second thread costs more than it gains."""


def yield_to_others(*, at_once: bool = False) -> None:
    """Make torch's waiting threads sleep or spin, depending on other programs' load in the last second.

    Called between steps and passes, it reads the load once per second. `at_once`: read it now, for a quarter
    of a second if nothing is known yet, before work starts. Nothing changes where the user has set how
    threads wait, with one thread, or where the load is unknown.
    """
    _machine.look(at_once)


def training_threads(jobs: int, multiply_adds: float) -> int:
    """How many threads each of `jobs` concurrent trainings uses on a CPU.

    Torch's number divided by `jobs`, without the cores that other programs keep busy, observed for up to a
    second; one for steps of fewer than `SMALL_STEP` `multiply_adds`, those of a batch's forward pass. Where
    the user has set OMP_NUM_THREADS, that number divided by `jobs`.
    """
    threads = torch.get_num_threads()
    if threads == 1 or os.environ.get("OMP_NUM_THREADS"):
        return max(1, threads // jobs)
    if multiply_adds < SMALL_STEP:
        return 1
    return max(1, (threads - _machine.taken(threads)) // jobs)


def concurrent_trainings(count: int, threads: int = 1) -> int:
    """How many of `count` trainings with `threads` threads each run at once on a CPU, where that is free.

    As many as torch has threads for, without the cores that other programs keep busy (as in
    `training_threads`), and at most `MOST_AT_ONCE`.
    """
    cores = torch.get_num_threads()
    if min(cores, count) == 1:
        return 1
    if not os.environ.get("OMP_NUM_THREADS"):
        cores -= _machine.taken(cores)
    return max(1, min(count, cores // threads, MOST_AT_ONCE))


MOST_AT_ONCE = 8
"""Most trainings at once unless the user says how many: each process loads torch and the data anew."""

_LOOK_S = 1.0
_FIRST_S = 0.25
"""Least seconds between two readings: ticks are 10 ms."""
_BUSY, _IDLE = 0.3, 0.15
"""Cores taken beyond those that torch's threads leave free, from which on they sleep, and spin again."""


class _Machine:
    """Other programs' load, and this process's reaction to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sleepers: list[_Sleeper] = []
        self._before: _Reading | None = None
        self._taken: tuple[float, float, int] | None = None
        """Time of the reading, time of the last call, and the cores."""

    def taken(self, threads: int) -> int:
        """Cores, of the `threads` that torch would use, that other programs keep busy.

        Called again within a second, as for the networks of a plan, it returns the same value, for at most
        ten seconds; after longer work, such as a training, it reads the load again.
        """
        now = time.perf_counter()
        if self._taken is None or now > min(self._taken[0] + 10 * _LOOK_S, self._taken[1] + _LOOK_S):
            self._taken = now, now, _taken_by_others(threads)
        looked, _, cores = self._taken
        self._taken = looked, time.perf_counter(), cores
        return cores

    def look(self, at_once: bool) -> None:
        now = time.perf_counter()
        before = self._before
        if before is not None and not at_once and now < before.clock_s + _LOOK_S:
            return
        with self._lock:
            threads = torch.get_num_threads()
            if threads == 1 or wait_policy() != ADAPTIVE:
                self._set(0)
                return
            if at_once and (before is None or now > before.clock_s + 10 * _LOOK_S):
                self._before = before = _reading()
                time.sleep(_FIRST_S)
            elif before is not None and now < before.clock_s + _FIRST_S:
                return
            self._before = after = _reading()
            others = _others(before, after)
            if others is None:
                return
            beyond = others - (usable_cores() - threads)
            if beyond > _BUSY:
                # More threads than cores in total, whatever torch leaves free.
                self._set(math.ceil((usable_cores() - threads + 1) / (threads - 1)))
            elif beyond < _IDLE:
                self._set(0)

    def _set(self, teams: int) -> None:
        while len(self._sleepers) < teams:
            self._sleepers.append(_Sleeper())
        while len(self._sleepers) > teams:
            self._sleepers.pop().end()


class _Sleeper:
    """A team of OpenMP threads that has worked once and sleeps until `end`."""

    def __init__(self) -> None:
        self._over, made = threading.Event(), threading.Event()

        def sleep() -> None:
            # Large enough that torch splits it over a team, which libgomp keeps for this thread.
            torch.zeros(1 << 20).add_(1)
            made.set()
            self._over.wait()

        self._thread = threading.Thread(target=sleep, name="wnexplore-sleeper", daemon=True)
        self._thread.start()
        made.wait()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@dataclass(frozen=True)
class _Reading:
    clock_s: float
    others_s: float | None
    """Other programs' processor time, from an arbitrary origin; None where unknown."""


def _reading() -> _Reading:
    times = cpu_times()
    if times is None:
        return _Reading(time.perf_counter(), None)
    return _Reading(times.clock_s, times.busy_s - times.process_s - _children_s())


def _others(before: _Reading | None, after: _Reading) -> float | None:
    """Average number of cores that other programs kept busy between two readings."""
    if before is None or before.others_s is None or after.others_s is None:
        return None
    return max(0.0, after.others_s - before.others_s) / (after.clock_s - before.clock_s)


def _children_s() -> float:
    """Processor time of this process's children, which decode its images."""
    found = sum(os.times()[2:4])
    for child in multiprocessing.active_children():
        with suppress(psutil.Error):
            found += sum(psutil.Process(child.pid).cpu_times()[:2])
    return found


def _taken_by_others(threads: int) -> int:
    """Cores, of the `threads` that torch would use, that other programs keep busy now.

    It observes for a quarter of a second and, if there are any, for the rest of the second: shorter load
    doesn't count.
    """
    taken = threads
    for seconds in (_FIRST_S, 1.0 - _FIRST_S):
        before = _reading()
        time.sleep(seconds)
        others = _others(before, _reading())
        beyond = 0.0 if others is None else others - (usable_cores() - threads)
        taken = min(taken, max(0, round(beyond)))
        if taken == 0:
            break
    return taken


_machine = _Machine()
