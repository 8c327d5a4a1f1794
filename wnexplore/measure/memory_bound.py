"""Limits this process's memory to its container's limit, so that excess requests are refused, not killed."""

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
"""Share of the container's limit: the system also counts overhead, such as page tables."""
_STATUS = Path("/proc/self/status")


def bound_memory() -> None:
    """Limit the data of this process and its children to the limit of its container.

    A batch that passes the checks of sizes but doesn't fit in memory then raises `MemoryError` or torch's
    error, which becomes a record or a message. Otherwise the system would kill the process when the memory is
    written. Done once per process; not with a GPU, whose driver reserves address space without using it.
    """
    limit = container_limit()
    if resource is None or limit is None or torch.cuda.is_available():
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        return
    # The limit counts requested memory; the part never written costs nothing.
    requested, filled = _kilobytes("VmData"), _kilobytes("RssAnon")
    bound = int(_SHARE * limit) + 1024 * (requested - filled)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def _kilobytes(name: str) -> int:
    """A figure of this process; 0 where unknown."""
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return 0 if found is None else int(found[1])
