"""The readings by a scripted NVML, and by the machine's own where it has one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from wnexplore.measure.gpu import (
    MIN_PASSES,
    READ_S,
    THROTTLING,
    Gpu,
    GpuState,
    current_gpu,
    energy_per_image,
    throttle_names,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

UUID = "GPU-1"


class NVMLError(Exception):
    pass


class ScriptedNvml:
    """The names of pynvml; a value that is None is refused as NVML refuses what it doesn't support."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, **values: Any) -> None:
        self.values: dict[str, Any] = {
            "nvmlInit": "no answer",
            "nvmlDeviceGetMigMode": None,
            "nvmlDeviceGetPowerUsage": 312_500,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x44,
            "nvmlDeviceGetTotalEnergyConsumption": 7_250,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=n) for n in (11, 12, 13)],
        } | values

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        if name.startswith("nvmlDeviceSet"):
            raise AssertionError(f"{name} would change the device")

        def answer(*arguments: object) -> Any:
            if self.values.get(name) is None:
                raise NVMLError(name)
            return self.values[name]

        return answer

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != UUID:
            raise NVMLError("not found")
        return f"handle of {uuid}"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle == f"handle of {UUID}"
        return {pynvml.NVML_CLOCK_SM: 1755, pynvml.NVML_CLOCK_MEM: 2619}[kind]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        assert (handle, sensor) == (f"handle of {UUID}", pynvml.NVML_TEMPERATURE_GPU)
        return 61


NOTHING = (GpuState(), None, None)


def _all(gpu: Gpu) -> tuple[GpuState, float | None, int | None]:
    return gpu.read_state(), gpu.energy_j(), gpu.other_processes()


def test_readings_come_in_the_units_of_their_names() -> None:
    state = GpuState(1755, 2619, 61, 312.5, 0x44)
    assert _all(Gpu(ScriptedNvml(), UUID)) == (state, 7.25, 2)


@pytest.mark.parametrize(
    "gpu",
    [
        Gpu(None, UUID),
        Gpu(ScriptedNvml(), None),
        Gpu(ScriptedNvml(), "GPU-2"),
        Gpu(ScriptedNvml(nvmlInit=None), UUID),
        Gpu(ScriptedNvml(nvmlDeviceGetMigMode=[1, 1]), UUID),
    ],
    ids=["no module", "no GPU", "a GPU that NVML doesn't show", "no driver", "divided"],
)
def test_without_a_gpu_everything_is_none(gpu: Gpu) -> None:
    assert _all(gpu) == NOTHING


def test_a_gpu_that_could_be_divided_and_is_not_is_read() -> None:
    assert Gpu(ScriptedNvml(nvmlDeviceGetMigMode=[0, 1]), UUID).energy_j() == 7.25


def test_a_reading_that_is_refused_is_none_and_the_others_stay() -> None:
    gpu = Gpu(ScriptedNvml(nvmlDeviceGetPowerUsage=None, nvmlDeviceGetTotalEnergyConsumption=None), UUID)
    assert _all(gpu) == (GpuState(1755, 2619, 61, None, 0x44), None, 2)


def test_a_function_that_the_module_lacks_is_a_reading_that_is_refused() -> None:
    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 3000,
    )
    gpu = Gpu(nvml, UUID)
    assert (gpu.energy_j(), gpu.other_processes()) == (3.0, None)


@pytest.mark.parametrize(
    "error",
    [pynvml.NVMLLibraryMismatchError("another size"), pynvml.NVMLError(1), OSError("lost"), ValueError()],
)
def test_whatever_nvml_raises_is_a_reading_that_is_refused(error: Exception) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    answers = {"nvmlDeviceGetComputeRunningProcesses": refuse, "nvmlDeviceGetTotalEnergyConsumption": refuse}
    nvml = ScriptedNvml()
    for name, function in answers.items():
        setattr(nvml, name, function)
    assert _all(Gpu(nvml, UUID)) == (GpuState(1755, 2619, 61, 312.5, 0x44), None, None)
    setattr(nvml, "nvmlInit", refuse)  # noqa: B010
    assert _all(Gpu(nvml, UUID)) == NOTHING


def test_reasons_have_another_name_in_old_drivers() -> None:
    names = {
        "nvmlDeviceGetCurrentClocksEventReasons": None,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x20,
    }
    assert Gpu(ScriptedNvml(**names), UUID).read_state().throttle_reasons == 0x20


def test_no_reason_is_a_reading_too() -> None:
    nvml = ScriptedNvml(
        nvmlDeviceGetCurrentClocksEventReasons=0, nvmlDeviceGetCurrentClocksThrottleReasons=0x20
    )
    assert Gpu(nvml, UUID).read_state().throttle_reasons == 0


def test_bits_are_those_of_nvml_and_none_is_forgotten() -> None:
    throttling = {
        pynvml.nvmlClocksEventReasonSwPowerCap,
        pynvml.nvmlClocksEventReasonHwSlowdown,
        pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    }
    harmless = {
        pynvml.nvmlClocksEventReasonGpuIdle,
        pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
        pynvml.nvmlClocksEventReasonSyncBoost,
        pynvml.nvmlClocksEventReasonDisplayClockSetting,
    }
    assert set(THROTTLING) == throttling
    assert sum(throttling | harmless) == pynvml.nvmlClocksEventReasonAll
    assert throttle_names(sum(harmless)) == []
    assert throttle_names(pynvml.nvmlClocksEventReasonAll) == list(THROTTLING.values())


def test_names_of_a_mask() -> None:
    assert throttle_names(0x01 | 0x04 | 0x40) == ["power cap", "hardware thermal slowdown"]
    assert throttle_names(0) == []


@pytest.mark.parametrize(("listed", "others"), [(1, 0), (4, 3), (0, None)])
def test_one_of_the_processes_is_this_one(listed: int, others: int | None) -> None:
    processes = [SimpleNamespace(pid=n) for n in range(listed)]
    gpu = Gpu(ScriptedNvml(nvmlDeviceGetComputeRunningProcesses=processes), UUID)
    assert gpu.other_processes() == others


class Load:
    """A GPU of constant power under passes of constant length, with a counter that ticks."""

    def __init__(
        self, watts: float, pass_s: float, tick_s: float, begin_s: float = 0.0, lost_s: float = 1e9
    ) -> None:
        self.watts, self.pass_s, self.tick_s = watts, pass_s, tick_s
        self.seconds, self.lost_s = begin_s, lost_s
        self.passes = 0
        self.read_at: list[float] = []
        self.gpu = Gpu(self, UUID)

    NVMLError = NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.seconds >= self.lost_s:
            raise NVMLError("GPU is lost")
        self.read_at.append(self.seconds)
        return round(1000 * self.watts * (self.seconds // self.tick_s) * self.tick_s)

    def run(self) -> None:
        self.seconds += self.pass_s
        self.passes += 1

    def per_image(self, images: int, seconds: float = 1.0) -> float | None:
        return energy_per_image(self.run, images, seconds, self.gpu, lambda: self.seconds)


@pytest.mark.parametrize("begin_s", [0.0, 0.05, 0.0999])
def test_energy_per_image_is_power_times_time_whenever_it_begins(begin_s: float) -> None:
    load = Load(watts=400.0, pass_s=0.002, tick_s=0.1, begin_s=begin_s)
    # 400 W for 2 ms, of 32 images; each end of the interval lies within a reading and a pass of a tick.
    late = READ_S + load.pass_s
    assert load.per_image(32) == pytest.approx(400 * 0.002 / 32, rel=late / 1.0)
    assert 1.0 <= load.seconds - begin_s <= 1.2 + 2 * late


def test_the_counter_of_energy_is_not_read_after_every_short_pass() -> None:
    load = Load(watts=400.0, pass_s=0.0001, tick_s=0.1)
    assert load.per_image(1) == pytest.approx(400 * 0.0001, rel=0.02)
    gaps = [after - before for before, after in pairwise(load.read_at)]
    # Each part begins with a reading of its own.
    assert sorted(gaps)[1] >= READ_S - 1e-9
    assert load.passes > 5000


def test_energy_of_slow_passes_is_that_of_enough_of_them() -> None:
    load = Load(watts=300.0, pass_s=0.33, tick_s=0.1)
    assert load.per_image(8) == pytest.approx(300 * 0.33 / 8, rel=1 / MIN_PASSES)
    assert load.passes >= MIN_PASSES


def test_energy_takes_the_time_that_it_is_given() -> None:
    load = Load(watts=300.0, pass_s=0.01, tick_s=0.02)
    load.per_image(1, seconds=3.0)
    assert 3.0 <= load.seconds <= 3.1


def test_energy_of_a_counter_that_stands_still_is_none_and_soon() -> None:
    load = Load(watts=300.0, pass_s=0.01, tick_s=1000.0)
    assert load.per_image(1) is None
    assert load.seconds < 1.1 + READ_S


def test_energy_without_a_counter_is_none_and_nothing_runs() -> None:
    def run() -> None:
        pytest.fail("ran")

    assert energy_per_image(run, 1, gpu=Gpu(None, None)) is None


def test_energy_of_a_counter_that_goes_away_is_none() -> None:
    load = Load(watts=300.0, pass_s=0.01, tick_s=0.1, lost_s=0.5)
    assert load.per_image(1) is None
    assert load.seconds == pytest.approx(0.5, abs=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_this_machine_without_a_gpu_reads_none() -> None:
    assert _all(current_gpu()) == NOTHING
    assert energy_per_image(lambda: pytest.fail("ran"), 1) is None
    assert _all(Gpu(pynvml, UUID)) == NOTHING


@pytest.mark.slow
def test_without_the_package_everything_is_none() -> None:
    code = (
        "import sys; sys.modules['pynvml'] = None;"
        "from wnexplore.measure.gpu import current_gpu, GpuState; gpu = current_gpu();"
        "print(gpu.read_state() == GpuState(), gpu.energy_j(), gpu.other_processes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "None", "None"]


@needs_gpu
def test_a_real_gpu_is_torchs_own_and_answers() -> None:
    gpu = current_gpu()
    state = gpu.read_state()
    if state == GpuState():
        pytest.skip("NVML shows nothing here")
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
    assert pynvml.nvmlDeviceGetName(handle) == torch.cuda.get_device_name()
    assert state.sm_clock_mhz is not None
    assert state.sm_clock_mhz <= pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
    before = gpu.energy_j()
    if before is None:
        pytest.skip("this GPU counts no energy")
    x = torch.randn(4096, 4096, device="cuda")
    joules = energy_per_image(lambda: x @ x, 1)
    after = gpu.energy_j()
    assert joules is not None
    assert after is not None
    assert 0 < joules * MIN_PASSES < after - before
