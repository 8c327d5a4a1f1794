"""A settled allocator, checked by the page faults that the system counts in another process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wnexplore.measure.allocator import can_settle

FAULTS = """
import resource, sys, torch
from wnexplore.measure.allocator import settle
if sys.argv[1] == "settled":
    assert settle()
megabytes = float(sys.argv[2])
def write():
    torch.ones(int(megabytes * 2**18))
for _ in range(40):
    write()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    write()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


def _faults(state: str, megabytes: float) -> float:
    """Page faults each time that a tensor of so many MiB is made and freed."""
    command = [sys.executable, "-c", FAULTS, state, str(megabytes)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not can_settle(), reason="the C library is not glibc")
def test_a_settled_process_gets_no_memory_back_from_the_system() -> None:
    # Blocks above 32 MiB always come from the system unless this is switched off.
    assert _faults("as_is", 48) > 1000
    assert _faults("settled", 48) < 10
    assert _faults("settled", 4) < 10
