"""The state of the C library's memory allocator, which latencies on a CPU depend on.

glibc returns large freed blocks to the system, and gets them back from it page by page, with a fault for each
page, in every pass. Which blocks count as large depends on what the process allocated before (man mallopt,
M_MMAP_THRESHOLD): so the same network has no or hundreds of faults a pass, process by process.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Names of settings in glibc's malloc.h."""
_NEVER = -1


def can_settle() -> bool:
    """Whether this process's allocator is glibc's, and so can be settled."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # another system, or another C library
        return False


def settle() -> bool:
    """Let the allocator keep what is freed, for the rest of this process; returns whether it does.

    All blocks come from the heap, which is not given back to the system. Nothing else of the process changes,
    except that it doesn't shrink.
    """
    if not can_settle():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
