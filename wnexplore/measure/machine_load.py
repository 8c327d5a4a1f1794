"""How busy other programs keep the processor cores that this process may run on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class CpuTimes:
    """Seconds that have gone by until one moment, each from a beginning of its own."""

    clock_s: float
    busy_s: float
    """Of all cores together, working for anyone, or stolen."""
    steal_s: float
    """Of all cores together, ready to work while the hypervisor ran another machine."""
    own_s: float
    """Of processor time that this process took, all its threads."""


@dataclass(frozen=True)
class Load:
    """What others did meanwhile, on average."""

    busy_cores: float
    """Cores that others kept busy, `steal_cores` included."""
    steal_cores: float
    """Cores that other virtual machines had in this one's place."""


def _times_by_core() -> Sequence[Any]:
    return psutil.cpu_times(percpu=True)


def cpu_times(by_core: Callable[[], Sequence[Any]] = _times_by_core) -> CpuTimes | None:
    """The times now, of the cores that this process may run on; None where the system doesn't tell.

    `by_core` gives psutil's times of each core. Containers may show other cores than there are, and
    sandboxes zeros: these tell nothing. Linux counts in ticks, 100 a second: what lies between two calls
    should be a second at least.

    Child processes are others: they take cores from a timing as any program does, and their time would
    be this process's only once they have ended, all of it at once.
    """
    own_s, clock_s = time.process_time(), time.perf_counter()
    try:
        times = by_core()
        of_cores = [times[core] for core in psutil.Process().cpu_affinity()]
        steal_s = sum(core.steal for core in of_cores)
        # A guest's time is part of user and nice.
        busy_s = steal_s + sum(
            core.user + core.nice + core.system + core.irq + core.softirq for core in of_cores
        )
    except (OSError, psutil.Error, AttributeError, IndexError):
        return None
    return None if busy_s == 0 else CpuTimes(clock_s, busy_s, steal_s, own_s)


def load_between(before: CpuTimes | None, after: CpuTimes | None) -> Load | None:
    """What others did between two moments; None if either is unknown, or no time went by."""
    if before is None or after is None or after.clock_s <= before.clock_s:
        return None
    seconds = after.clock_s - before.clock_s
    others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    # Ticks of the cores and the clock of the process are not the same count.
    return Load(max(0.0, others) / seconds, max(0.0, after.steal_s - before.steal_s) / seconds)
