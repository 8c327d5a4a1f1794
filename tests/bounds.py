"""What a hostile input may take at most: two seconds of work and a gigabyte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

SECONDS = 2.0
BYTES = 2**30
_STATM = Path("/proc/self/statm")


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Let what runs inside take a gigabyte of address space beyond what there is; fail if it takes longer.

    Time is that of this process on the processor, which other programs don't lengthen by much. Where the
    address space can't be limited, memory is not.
    """
    limits = None if resource is None else resource.getrlimit(resource.RLIMIT_AS)
    if limits is not None and _STATM.exists():
        used = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, limits[1]))
    began = time.process_time()
    try:
        yield
    finally:
        spent = time.process_time() - began
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        assert spent < seconds, f"{spent:.1f} s"
