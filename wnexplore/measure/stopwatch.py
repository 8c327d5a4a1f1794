"""Timing one pass: with CUDA events on a GPU, a monotonic clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from wnexplore.measure.rounds import Sampler
from wnexplore.measure.runtimes import Step


def sampler(step: Step, device: str, before: Step | None = None) -> Sampler:
    """A function that runs `before` untimed, then `step`, and returns the milliseconds of the latter.

    On a GPU the time is that between two CUDA events, the device idle before the first.
    """

    def on_cpu() -> float:
        if before is not None:
            before()
        start = time.perf_counter_ns()
        step()
        return (time.perf_counter_ns() - start) / 1e6

    def on_cuda() -> float:
        if before is not None:
            before()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))

    return on_cuda if device == "cuda" else on_cpu


def before_sample(step: Step, device: str, cache: str, flush: Step | None = None) -> Step | None:
    """The step that prepares the caches as `cache` says before each sample of `step`; None if there is none.

    "cold": a buffer larger than the last-level cache is written, by `flush` if given, which networks can
    share. "warm": on a GPU the step itself, since the previous pass was another network's; on a CPU nothing,
    since it would double the time and made no difference (`python -m tests.benchmarks.warm_cache`).
    """
    if cache == "cold":
        return flush or flusher(device)
    return step if device == "cuda" else None


def flusher(device: str) -> Callable[[], object]:
    """A function that flushes the last-level cache by writing twice its size in zeros."""
    return torch.empty(2 * cache_bytes(device), dtype=torch.uint8, device=device).zero_


def cache_bytes(device: str) -> int:
    """Bytes of the device's last-level cache; where unknown, those of a large server."""
    if device == "cuda":
        size: int | None = getattr(torch.cuda.get_device_properties(), "L2_cache_size", None)
    else:
        size = cpu_cache_bytes()
    return size or _UNKNOWN


def cpu_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """Bytes of the processor's largest cache by Linux's files in `folder`; None where unknown."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    found = []
    for path in folder.glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text[-1:] in units and text[:-1].isdigit():
            found.append(int(text[:-1]) * units[text[-1]])
    return max(found, default=None)


_UNKNOWN = 64 * 2**20
