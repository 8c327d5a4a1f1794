"""Readings of a GPU through NVML. Nothing is ever set.

An unavailable reading is None: no library, no driver, no permission, or not supported by the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

Clock = Callable[[], float]
"""Seconds from an arbitrary origin."""

THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's bits (nvmlClocksEventReason...) for throttled clocks -> their names.

Not included: idle, clocks set by the user, sync boost, display settings.
"""

MIN_PASSES = 20
"""The energy counter is read between passes: the error is one pass at either end."""

READ_S = 0.01
"""Least seconds between two readings of the counter."""

TICK_LIMIT_S = 1.0
"""Seconds without a change, while the GPU works, after which the counter is taken for unsupported."""


@dataclass(frozen=True)
class GpuState:
    """The state of a GPU at one moment."""

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    """Averaged by the driver over up to a second."""
    throttle_reasons: int | None = None
    """Bit mask, see `throttle_names`."""


def throttle_names(mask: int) -> list[str]:
    """The names of the reasons in `GpuState.throttle_reasons` that slow the GPU."""
    return [name for bit, name in THROTTLING.items() if mask & bit]


class Gpu:
    """One GPU as NVML sees it."""

    def __init__(self, nvml: Any, uuid: str | None) -> None:
        """`nvml` is the module `pynvml` or a substitute; `uuid` "GPU-..." or None for no GPU.

        A partitioned GPU (MIG) counts as none: its readings would cover all partitions.
        """
        self._nvml = nvml
        self._handle: Any = None
        if nvml is not None and uuid is not None and self._has_begun():
            self._handle = self._call("nvmlDeviceGetHandleByUUID", uuid)
            divided = self._read("nvmlDeviceGetMigMode")
            if divided is not None and divided[0]:
                self._handle = None

    def read_state(self) -> GpuState:
        """The current state; all None where nothing can be read."""
        nvml = self._nvml
        if self._handle is None:
            return GpuState()
        milliwatts = self._read("nvmlDeviceGetPowerUsage")
        reasons = self._read("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            # The name before driver 535.
            reasons = self._read("nvmlDeviceGetCurrentClocksThrottleReasons")
        return GpuState(
            sm_clock_mhz=self._read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            temperature_c=self._read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1000,
            throttle_reasons=reasons,
        )

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; a counter that moves some ten times a second."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def other_processes(self) -> int | None:
        """How many other processes have a CUDA context here, called from a process that has one.

        In a container NVML may list this process under another id, or list no process at all. So one of those
        listed is taken for this one, whatever their ids, and an empty list means unknown.
        """
        processes = self._read("nvmlDeviceGetComputeRunningProcesses")
        return len(processes) - 1 if processes else None

    def _has_begun(self) -> bool:
        try:
            self._nvml.nvmlInit()
        except Exception:
            return False
        return True

    def _read(self, function: str, *arguments: object) -> Any:
        return None if self._handle is None else self._call(function, self._handle, *arguments)

    def _call(self, function: str, *arguments: object) -> Any:
        try:
            return getattr(self._nvml, function)(*arguments)
        except Exception:
            # Not only NVMLError: missing functions in some versions of the module or the library, structures
            # of another size (NVMLLibraryMismatchError), undecodable text. No reading is worth losing a
            # timing.
            return None


def current_gpu() -> Gpu:
    """Torch's current CUDA device; a `Gpu` without readings where there is none."""
    return _gpu(torch.cuda.current_device() if torch.cuda.is_available() else None)


def energy_per_image(
    run: Callable[[], object],
    images: int,
    seconds: float = 1.0,
    gpu: Gpu | None = None,
    clock: Clock = time.perf_counter,
) -> float | None:
    """Joules of the GPU per image, from `run()`, which processes `images` images.

    `run` is called back to back, each call synchronised, from one tick of the GPU's energy counter to the
    first tick after `seconds`, and at least 20 times. The counter is read after a pass, but at most every 10
    ms, since a reading is slow: the error is about a pass or 10 ms, whichever is longer. Idle power and other
    processes' work are included. `gpu` None is the current one. None where there is no counter, or where it
    doesn't change for a second.
    """
    counter = gpu or current_gpu()
    begin = _run_until_tick(run, counter, 1, 0.0, clock)
    if begin is None:
        return None
    end = _run_until_tick(run, counter, MIN_PASSES, seconds, clock)
    return None if end is None else (end.joules - begin.joules) / (end.passes * images)


@dataclass(frozen=True)
class _Tick:
    passes: int
    joules: float


def _run_until_tick(
    run: Callable[[], object], gpu: Gpu, passes: int, seconds: float, clock: Clock
) -> _Tick | None:
    """Run at least `least` times and `seconds`, then until the counter changes; the number of runs and the
    reading.
    """
    begun = moved = clock()
    done = 0
    before = gpu.energy_j()
    while before is not None:
        read = clock()
        while True:
            run()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            done += 1
            if clock() - read >= READ_S:
                break
        joules, now = gpu.energy_j(), clock()
        if joules == before and now - moved > TICK_LIMIT_S:
            return None
        if joules is not None and joules != before:
            moved = now
            if done >= passes and now - begun >= seconds:
                return _Tick(done, joules)
        before = joules
    return None


@cache
def _gpu(index: int | None) -> Gpu:
    try:
        import pynvml
    except Exception:  # missing, or another package of this name that can't be loaded
        return Gpu(None, None)
    # Not by NVML's index: CUDA_VISIBLE_DEVICES hides and reorders GPUs.
    return Gpu(pynvml, None if index is None else f"GPU-{torch.cuda.get_device_properties(index).uuid}")
