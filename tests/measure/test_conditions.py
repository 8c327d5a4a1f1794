import os
import subprocess
import sys
from typing import Any

from wnexplore.measure.conditions import LOAD_S, LOOK_S, Watch
from wnexplore.measure.environment import usable_cores
from wnexplore.measure.gpu import GpuState

_BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


class _Scripted:
    """A GPU that tells what a script says; a real one is nowhere to be had in these tests."""

    def __init__(self, states: list[GpuState], others: int) -> None:
        self._states, self._others = iter(states), others

    def read_state(self) -> GpuState:
        return next(self._states)

    def other_processes(self) -> int:
        return self._others


def test_a_gpu_is_read_now_and_then_and_all_reasons_add_up() -> None:
    now = 0.0
    gpu: Any = _Scripted(
        [GpuState(1980, 2619, 40, 120.5, 0), GpuState(1410, None, None, 700.0, 0x04), GpuState(1200)],
        others=2,
    )
    watch = Watch("cuda", None, gpu, clock=lambda: now)
    for now in (0.0, LOOK_S / 2, 1.1 * LOOK_S, 1.5 * LOOK_S, 2.5 * LOOK_S):  # noqa: B007
        watch.look()
    assert watch.readings() == {
        "sm_clock_mhz": [1980, 1410, 1200],
        "temperature_c": [40],
        "power_w": [120.5, 700.0],
        "throttle_reasons": [0, 0x04],
    }
    conditions = watch.conditions()
    assert conditions.throttled_by == ("power cap",)
    assert conditions.other_gpu_processes == 2
    assert conditions.free_cores == usable_cores() - 1


def test_on_a_cpu_there_is_no_gpu_to_read() -> None:
    watch = Watch("cpu", 1)
    watch.look()
    assert watch.readings() == {}
    conditions = watch.conditions()
    assert (conditions.throttled_by, conditions.other_gpu_processes) == ((), None)
    assert conditions.free_cores == usable_cores() - 1
    assert conditions.busy_cores is None, "too short to tell"


def test_another_process_that_computes_is_seen() -> None:
    watch = Watch("cpu", 1)
    before = os.times().elapsed
    subprocess.run([sys.executable, "-c", _BURN.format(1.2 * LOAD_S)], check=True)
    seconds = os.times().elapsed - before
    busy = watch.conditions().busy_cores
    if sys.platform == "linux":
        assert busy is not None
        assert busy * seconds >= 0.8 * 1.2 * LOAD_S
