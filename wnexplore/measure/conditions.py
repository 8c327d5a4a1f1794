"""The conditions of a timing: other programs' load, the GPU's clocks and temperature."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from wnexplore.measure.environment import usable_cores
from wnexplore.measure.gpu import Gpu, GpuState, current_gpu, throttle_names
from wnexplore.measure.machine_load import cpu_times, load_between

LOOK_S = 0.05
"""Least seconds between two readings of the GPU, which updates them no faster."""

LOAD_S = 1.0
"""Least seconds for a load: the system counts processor time in coarse ticks."""


@dataclass(frozen=True)
class Conditions:
    """The conditions while a network was timed; None where unknown."""

    throttled_by: tuple[str, ...] = ()
    """Why the GPU throttled its clocks at any time."""
    other_gpu_processes: int | None = None
    busy_cores: float | None = None
    """Cores that other programs kept busy, on average."""
    free_cores: float | None = None
    """Cores that the timing left free."""


class Watch:
    """Reads the machine's state between the passes of a timing, and never changes it."""

    def __init__(
        self,
        device: str,
        threads: int | None,
        gpu: Gpu | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`threads` are the timing's threads on a CPU, None for torch's; `gpu` None is the current one."""
        self._gpu = (gpu or current_gpu()) if device == "cuda" else None
        self._free_cores = max(
            0, usable_cores() - (1 if device == "cuda" else threads or torch.get_num_threads())
        )
        self._clock = clock
        self._begun = cpu_times()
        self._states: list[GpuState] = []
        self._looked = -LOOK_S

    def look(self) -> None:
        """Read the GPU's state, if the last reading is old enough."""
        if self._gpu is None or self._clock() < self._looked + LOOK_S:
            return
        self._looked = self._clock()
        self._states.append(self._gpu.read_state())

    def conditions(self) -> Conditions:
        """The conditions since this watch was created."""
        reasons = 0
        for state in self._states:
            reasons |= state.throttle_reasons or 0
        return Conditions(
            throttled_by=tuple(throttle_names(reasons)),
            other_gpu_processes=None if self._gpu is None else self._gpu.other_processes(),
            busy_cores=self._busy_cores(),
            free_cores=self._free_cores,
        )

    def readings(self) -> dict[str, list[float]]:
        """The GPU's readings over time: sm_clock_mhz, temperature_c, power_w, throttle_reasons."""
        kept = ("sm_clock_mhz", "temperature_c", "power_w", "throttle_reasons")
        states = [asdict(state) for state in self._states]
        columns = {name: [state[name] for state in states if state[name] is not None] for name in kept}
        return {name: values for name, values in columns.items() if values}

    def _busy_cores(self) -> float | None:
        now = cpu_times()
        if now is None or self._begun is None or now.clock_s - self._begun.clock_s < LOAD_S:
            return None
        load = load_between(self._begun, now)
        return None if load is None else load.busy_cores
