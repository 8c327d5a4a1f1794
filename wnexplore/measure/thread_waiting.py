"""How torch's threads wait for each other, and how many a training takes, while others use the machine.

A pass of a small network is hundreds of short pieces of work, after each of which torch's threads wait for
the slowest. GNU's OpenMP (libgomp, in torch's wheels) has them spin for a while: the fastest way on an idle
machine, and on a busy one the slowest by far, as the thread that is waited for can't get the core that is
spun on. libgomp lets threads sleep almost at once when a process has more of them than cores (GOMP_SPINCOUNT
in its manual). So while other programs keep cores busy that torch's threads need, this module keeps one more
team of threads, which does nothing. Neither the number of threads that compute nor a result changes by it.
What it is worth: python -m tests.benchmarks.busy.
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

from wnexplore.design.protocol import ADAPTIVE
from wnexplore.measure.environment import usable_cores, wait_policy
from wnexplore.measure.machine_load import cpu_times

SMALL_STEP = 30e6
"""Multiply-adds of a training step's forward passes below which a second thread costs more than it does."""


def yield_to_others(*, at_once: bool = False) -> None:
    """Have torch's threads sleep or spin while they wait, by what other programs did in the last second.

    Called between steps and passes, it looks at the load once a second. `at_once`: look now, for a quarter
    of a second if nothing is known yet, before work begins. Nothing changes where the person has set how
    threads wait, with one thread, or where the system doesn't tell the load.
    """
    _machine.look(at_once)


def training_threads(jobs: int, multiply_adds: float) -> int:
    """How many threads each of `jobs` trainings at once takes on a CPU.

    Torch's own number divided by `jobs`, without the cores that other programs keep busy, which is looked at
    for up to a second; and one for steps of fewer than `SMALL_STEP` `multiply_adds`, those of a forward pass
    of a batch. Where the person has set OMP_NUM_THREADS, that number divided by `jobs`.
    """
    threads = torch.get_num_threads()
    if threads == 1 or os.environ.get("OMP_NUM_THREADS"):
        return max(1, threads // jobs)
    if multiply_adds < SMALL_STEP:
        return 1
    return max(1, (threads - _machine.taken(threads)) // jobs)


_LOOK_S = 1.0
_FIRST_S = 0.25
"""Ticks are 10 ms: what lies between two readings must be many of them."""
_BUSY, _IDLE = 0.3, 0.15
"""Cores that others take beyond what torch's threads leave free, from which on they sleep, and spin again."""


class _Machine:
    """The load that others are, and what is done about it in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sleepers: list[_Sleeper] = []
        self._before: _Reading | None = None
        self._taken: tuple[float, float, int] | None = None
        """When it was looked, when it was last asked for, and the cores."""

    def taken(self, threads: int) -> int:
        """Cores of the `threads` that torch would use that others keep busy.

        Asked again within a second, for one network of a plan after another, it answers as before, for ten
        seconds at most; what has worked meanwhile, such as a training, is followed by another look.
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
                # More threads than cores in all, whatever torch leaves free.
                self._set(math.ceil((usable_cores() - threads + 1) / (threads - 1)))
            elif beyond < _IDLE:
                self._set(0)

    def _set(self, teams: int) -> None:
        while len(self._sleepers) < teams:
            self._sleepers.append(_Sleeper())
        while len(self._sleepers) > teams:
            self._sleepers.pop().end()


class _Sleeper:
    """A team of OpenMP's threads that has worked once and sleeps until it is ended."""

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
    """Processor time that others took, from whenever; None where nothing tells."""


def _reading() -> _Reading:
    times = cpu_times()
    if times is None:
        return _Reading(time.perf_counter(), None)
    return _Reading(times.clock_s, times.busy_s - times.own_s - _children_s())


def _others(before: _Reading | None, after: _Reading) -> float | None:
    """Cores that others kept busy in between, on average."""
    if before is None or before.others_s is None or after.others_s is None:
        return None
    return max(0.0, after.others_s - before.others_s) / (after.clock_s - before.clock_s)


def _children_s() -> float:
    """Processor time of the processes that this one has started: they decode its images."""
    found = sum(os.times()[2:4])
    for child in multiprocessing.active_children():
        with suppress(psutil.Error):
            found += sum(psutil.Process(child.pid).cpu_times()[:2])
    return found


def _taken_by_others(threads: int) -> int:
    """Cores of the `threads` that torch would use that other programs keep busy now.

    It looks for a quarter of a second and, if it sees any, for the rest of a second: what is over within
    that second doesn't count.
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
