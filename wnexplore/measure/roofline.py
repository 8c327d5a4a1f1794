"""The roofline: a device's measured peaks, and the least time of a piece of work.

Source: Williams, Waterman, Patterson, Roofline: an insightful visual performance model for multicore
architectures, 2009. Work is counted in multiply-adds, as everywhere in wnexplore.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wnexplore.errors import WnexploreError
from wnexplore.files import cache_folder, write_atomically
from wnexplore.measure.environment import device_name, environment
from wnexplore.measure.stopwatch import cache_bytes, sampler
from wnexplore.measure.torch_settings import DTYPES, precision_set, threads_set
from wnexplore.results.network_profile import Peaks


def device_peaks(
    device: str,
    dtype: str,
    threads: int | None = None,
    folder: Path | None = None,
    measure: Callable[[str, str], Peaks] | None = None,
) -> Peaks:
    """The peaks of `device` ("cpu", "cuda") for `dtype`, on a CPU with `threads` threads.

    Measured once, within seconds, and cached in `folder` (None: `cache_folder()`) for this device and its
    driver, number of threads, dtype and version of torch; delete the file to measure again. A file that can't
    be read or written is ignored. `measure` measures them (None: `measure_peaks`).
    """
    with threads_set(threads):
        of = {
            "device_name": device_name(device),
            "driver": environment(device)["driver"] if device == "cuda" else None,
            "dtype": dtype,
            "threads": torch.get_num_threads() if device == "cpu" else None,
            "torch": torch.__version__,
            # Part of the key: a change of the method invalidates the cache.
            "how": f"{COPY_BYTES} bytes, {WARM_UP_S} s" if device == "cuda" else None,
        }
        words = [re.sub(r"[^A-Za-z0-9.]+", "-", str(value)) for value in of.values() if value is not None]
        path = (folder or cache_folder()) / f"peaks_{'_'.join(words)}.json"
        known = _read(path, of)
        if known is not None:
            return known
        with precision_set(dtype):
            peaks = (measure or measure_peaks)(device, dtype)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"of": of, "peaks": asdict(peaks)}, indent=1).encode())
    except (OSError, WnexploreError):
        pass  # Measured again the next time.
    return peaks


def measure_peaks(
    device: str, dtype: str, *, copied: int | None = None, long_ms: float | None = None
) -> Peaks:
    """The best of several copies of 4 times the last-level cache (a GPU: 1 GB), and of square products.

    `copied` bytes and products of `long_ms` are enough where they are given.

    The best and not the median, since a peak is undisturbed. The products grow until one takes long enough to
    fill the device. On a GPU each size runs for 200 ms before it counts: an idle GPU's clocks are low.
    """
    long_ms = _LONG_MS[device] if long_ms is None else long_ms
    rates = _product_rates(device, dtype, long_ms)
    return Peaks(copy_rate(device, warm_up_s(device), copied), max(rates))


def warm_up_s(device: str) -> float:
    """Seconds of warm-up on the device."""
    return WARM_UP_S if device == "cuda" else 0.0


def copy_rate(device: str, warm_up: float, size: int | None = None) -> float:
    """Bytes read and written per second, from the best of several copies after `warm_up` seconds of them.

    `size` bytes each; None: 4 times the last-level cache, on a GPU 1 GB.
    """
    if size is None:
        size = 4 * cache_bytes(device)
        if device == "cuda":
            # At most a quarter of the free memory: source and target, and as much again for others.
            size = max(size, min(COPY_BYTES, torch.cuda.mem_get_info()[0] // 4))
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best_s(lambda: target.copy_(source), device, warm_up)


COPY_BYTES = 10**9
"""Bytes of the source, and of the target, of a copy on a GPU."""
WARM_UP_S = 0.2


_REPEATS = 10
_LONG_MS = {"cpu": 30.0, "cuda": 3.0}
_LARGEST = 16384


def _read(path: Path, of: dict[str, Any]) -> Peaks | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        peaks = Peaks(**{name: float(rate) for name, rate in content["peaks"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    sound = all(math.isfinite(rate) and rate > 0 for rate in asdict(peaks).values())
    return peaks if sound and content.get("of") == of else None


def _product_rates(device: str, dtype: str, long_ms: float) -> Iterator[float]:
    size = 256
    while size <= _LARGEST:
        a = torch.randn(size, size, device=device, dtype=DTYPES[dtype])
        out = torch.empty_like(a)
        taken = _best_s(lambda a=a, out=out: torch.mm(a, a, out=out), device, warm_up_s(device))  # type: ignore[misc]
        yield size**3 / taken
        if taken * 1e3 > long_ms:
            return
        size *= 2


def _best_s(step: Callable[[], object], device: str, warm_up: float) -> float:
    sample = sampler(step, device)
    end = time.perf_counter() + warm_up
    sample()
    while time.perf_counter() < end:
        sample()
    return min(sample() for _ in range(_REPEATS)) / 1e3
