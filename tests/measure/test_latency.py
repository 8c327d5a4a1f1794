import pytest
import torch
from torch import Tensor, nn

import wnexplore
from wnexplore.measure.latency import MAX_PAIRS, MIN_PAIRS, Latency, measure_latency, threads_set


class _Recorder(nn.Module):
    """Notes every pass in a shared list."""

    def __init__(self, name: str, calls: list[tuple[str, bool, torch.dtype, torch.Size, int]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.name, self.calls = name, calls

    def forward(self, x: Tensor) -> Tensor:
        grad = torch.is_inference_mode_enabled()
        self.calls.append((self.name, grad, x.dtype, x.shape, torch.get_num_threads()))
        return x * self.weight


def test_passes_alternate_in_inference_mode_after_a_warm_up() -> None:
    calls: list[tuple[str, bool, torch.dtype, torch.Size, int]] = []
    latency = measure_latency(
        _Recorder("model", calls),
        _Recorder("plain", calls),
        resolution=4,
        batch_size=3,
        dtype="bfloat16",
        device="cpu",
        threads=1,
        seconds=1e-9,
    )
    assert len(latency.samples_ms) == MIN_PAIRS
    assert latency.baseline_ms is not None
    assert len(latency.baseline_ms) == MIN_PAIRS
    assert {call[1:] for call in calls} == {(True, torch.bfloat16, (3, 3, 4, 4), 1)}
    timed = [call[0] for call in calls[-2 * MIN_PAIRS :]]
    rounds = [timed[i : i + 2] for i in range(0, len(timed), 2)]
    assert rounds == [["model", "plain"], ["plain", "model"]] * (MIN_PAIRS // 2)
    assert len(calls) > 2 * MIN_PAIRS


def test_rounds_are_bounded() -> None:
    latency = measure_latency(
        _Recorder("model", []), None, resolution=1, batch_size=1, dtype="float32", device="cpu", seconds=60
    )
    assert len(latency.samples_ms) == MAX_PAIRS
    assert latency.baseline_ms is None
    assert latency.ratio == (1, 1, 1)


def test_the_summary_is_made_of_the_samples() -> None:
    latency = Latency([10.0, 20.0, 30.0, 20.0, 20.0], [5.0, 10.0, 15.0, 10.0, 20.0], peak_memory_mb=None)
    value = latency.to_dict()
    assert (value["latency_ms"], value["latency_ms_low"], value["latency_ms_high"]) == (20, 10, 30)
    # Pair by pair 2, 2, 2, 2, 1: the machine's drift between the pairs cancels.
    assert (value["latency_ratio"], value["latency_ratio_low"], value["latency_ratio_high"]) == (2, 1, 2)
    assert latency.samples() == {"latency_ms": latency.samples_ms, "baseline_ms": latency.baseline_ms}


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads_set(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_real_networks_run_in_every_dtype(dtype: str) -> None:
    model = wnexplore.build(backbone="shufflenet_v2_x0_5", method="weightnet", stem="small", num_classes=10)
    latency = measure_latency(
        model, None, resolution=32, batch_size=2, dtype=dtype, device="cpu", seconds=1e-9
    )
    assert all(sample > 0 for sample in latency.samples_ms)
    assert latency.peak_memory_mb is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_timed_by_its_own_clock_and_its_peak_memory_is_read() -> None:
    model = wnexplore.build(backbone="shufflenet_v2_x0_5", stem="small", num_classes=10)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    latency = measure_latency(
        model, None, resolution=32, batch_size=8, dtype="float32", device="cuda", seconds=0.1
    )
    assert latency.peak_memory_mb is not None
    assert latency.peak_memory_mb > weights
