"""The memory that a process may ask for: where a container ends who takes more, it is refused instead."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from wnexplore.design.size_limits import container_limit

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_SHARE = 0.95
"""Of the container's limit: the system counts more than a process asks for, such as tables of its pages."""
_STATUS = Path("/proc/self/status")


def bound_memory() -> None:
    """Let this process, and those that it starts, have no more data than the limit of its container.

    A batch that fits by the sizes known beforehand and yet not in memory is then refused to the one that asks
    (`MemoryError`, or torch's own error), which becomes a record or a line. Otherwise the system would give
    it, and end the process as it fills it. Once a process; not where there is a GPU, whose driver takes
    address space without filling it.
    """
    limit = container_limit()
    if resource is None or limit is None or torch.cuda.is_available():
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        return
    # What counts here is what was asked for; that a part of it was never filled costs nothing.
    asked, filled = _kilobytes("VmData"), _kilobytes("RssAnon")
    bound = int(_SHARE * limit) + 1024 * (asked - filled)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def _kilobytes(name: str) -> int:
    """A figure of this process; 0 where the system doesn't tell."""
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return 0 if found is None else int(found[1])
