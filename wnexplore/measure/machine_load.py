"""How busy other programs keep the processor cores that this process may run on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class CpuTimes:
    """Times in seconds at one moment, each from an arbitrary origin."""

    clock_s: float
    busy_s: float
    """Busy time of all cores together, for any process, or stolen."""
    steal_s: float
    """Stolen time of all cores together: ready to run while the hypervisor ran another machine."""
    process_s: float
    """Processor time of this process, all its threads."""


@dataclass(frozen=True)
class Load:
    """Other programs' average load between two moments."""

    busy_cores: float
    """Cores that other programs kept busy, `steal_cores` included."""
    steal_cores: float
    """Cores taken by other virtual machines."""


def _times_by_core() -> Sequence[Any]:
    return psutil.cpu_times(percpu=True)


def cpu_times(by_core: Callable[[], Sequence[Any]] = _times_by_core) -> CpuTimes | None:
    """The current times of the cores that this process may run on; None where unknown.

    `by_core` returns psutil's times per core. Containers may show wrong cores, and sandboxes zeros: then the
    load is unknown. Linux counts in ticks, 100 per second: two calls should be at least a second apart.

    Child processes count as other programs: they take cores from a timing as any program does, and their time
    would only be added to this process's when they end, all at once.
    """
    process_s, clock_s = time.process_time(), time.perf_counter()
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
    return None if busy_s == 0 else CpuTimes(clock_s, busy_s, steal_s, process_s)


def load_between(before: CpuTimes | None, after: CpuTimes | None) -> Load | None:
    """The load between two moments; None if either is unknown, or no time passed."""
    if before is None or after is None or after.clock_s <= before.clock_s:
        return None
    seconds = after.clock_s - before.clock_s
    others = (after.busy_s - before.busy_s) - (after.process_s - before.process_s)
    # The cores' ticks and the process's clock are different counters: the difference may be below 0.
    return Load(max(0.0, others) / seconds, max(0.0, after.steal_s - before.steal_s) / seconds)
