"""How busy other programs keep the processor cores that this process may run on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")


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


def cpu_times(stat: Path = STAT) -> CpuTimes | None:
    """The times now, of the cores that this process may run on; None where `stat` doesn't tell.

    That is on systems without /proc, and in containers that show other cores than there are. Linux
    counts in ticks, 100 a second: what lies between two calls should be a second at least.

    Child processes are others: they take cores from a timing as any program does, and their time would
    be this process's only once they have ended, all of it at once.
    """
    own_s, clock_s = time.process_time(), time.perf_counter()
    try:
        times = _times_by_core(stat.read_text(encoding="ascii"))
        of_cores = [times[core] for core in os.sched_getaffinity(0)]
    except (OSError, KeyError, ValueError):
        return None
    steal = sum(ticks[-1] for ticks in of_cores)
    busy = sum(map(sum, of_cores))
    if busy == 0:
        # A sandbox that has the file, but only zeros in it.
        return None
    per_second = os.sysconf("SC_CLK_TCK")
    return CpuTimes(clock_s, busy / per_second, steal / per_second, own_s)


def load_between(before: CpuTimes | None, after: CpuTimes | None) -> Load | None:
    """What others did between two moments; None if either is unknown, or no time went by."""
    if before is None or after is None or after.clock_s <= before.clock_s:
        return None
    seconds = after.clock_s - before.clock_s
    others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    # Ticks of the cores and the clock of the process are not the same count.
    return Load(max(0.0, others) / seconds, max(0.0, after.steal_s - before.steal_s) / seconds)


Ticks = tuple[int, int, int, int, int, int]
"""User, nice, system, irq, softirq, steal; a guest's time is part of user and nice."""


def _times_by_core(stat: str) -> dict[int, Ticks]:
    """Core -> its ticks, from the lines "cpu0 ..." of /proc/stat. Raises `ValueError` for other lines.

    Source: proc_stat(5).
    """
    found: dict[int, Ticks] = {}
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_guests = map(int, fields)
            found[int(name.removeprefix("cpu"))] = (user, nice, system, irq, softirq, steal)
    return found
