"""Latencies of real networks; what the rounds do with scripted ones is in test_rounds.py."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import wnexplore
from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.measure.failure import ContextLostError, Failure
from wnexplore.measure.latency import Latency, measure_latencies
from wnexplore.measure.rounds import MIN_ROUNDS, WARM_UP_MIN
from wnexplore.measure.torch_settings import precision_set, threads_set

Call = tuple[str, bool, torch.dtype, torch.Size, int, bool]


class _Recorder(nn.Module):
    """Notes every pass in a shared list."""

    def __init__(self, name: str, calls: list[Call], fails_at: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.name, self.calls, self.fails_at = name, calls, fails_at
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.fails_at:
            raise torch.OutOfMemoryError("no room")
        inference, layout = (
            torch.is_inference_mode_enabled(),
            x.is_contiguous(memory_format=torch.channels_last),
        )
        self.calls.append((self.name, inference, x.dtype, x.shape, torch.get_num_threads(), layout))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _protocol(**changes: object) -> LatencyProtocol:
    usual = {"device": "cpu", "device_name": "", "dtype": "float32", "batch_size": 3, "seconds": 1e-6}
    # Otherwise there is another pass of each network, which finds what is to be folded.
    usual |= {"baseline": "trained"}
    return LatencyProtocol(**(usual | changes))  # type: ignore[arg-type]


def _measure(
    names: list[str], calls: list[Call], protocol: LatencyProtocol, fails_at: dict[str, int] | None = None
) -> dict[str, Latency | Failure]:
    fails_at = fails_at or {}

    def make(name: str) -> Callable[[], nn.Module]:
        return lambda: _Recorder(name, calls, fails_at.get(name))

    return dict(measure_latencies({n: make(n) for n in names}, "plain", make("plain"), protocol, 4))


def _ok(latency: Latency | Failure) -> Latency:
    assert isinstance(latency, Latency)
    return latency


def test_networks_are_timed_in_rounds_with_one_baseline_as_the_protocol_says() -> None:
    calls: list[Call] = []
    protocol = _protocol(dtype="bfloat16", threads=1, memory_format="channels_last")
    found = _measure(["plain", "a", "b"], calls, protocol)
    assert set(found) == {"plain", "a", "b"}
    assert {call[1:] for call in calls} == {(True, torch.bfloat16, (3, 3, 4, 4), 1, True)}
    timed = [call[0] for call in calls[-3 * MIN_ROUNDS :]]
    assert all(sorted(timed[i : i + 3]) == ["a", "b", "plain"] for i in range(0, len(timed), 3))
    a, plain = _ok(found["a"]), _ok(found["plain"])
    assert len(a.samples_ms) == MIN_ROUNDS
    assert a.baseline_ms == plain.samples_ms
    assert plain.baseline_ms is None
    assert plain.ratio == (1, 1, 1)
    # Warmed up, and twice more for its memory.
    assert len(calls) == 3 * (WARM_UP_MIN + 2 + MIN_ROUNDS)


def test_a_baseline_that_nobody_requested_is_timed_and_not_reported() -> None:
    calls: list[Call] = []
    found = _measure(["a"], calls, _protocol())
    assert list(found) == ["a"]
    assert [call[0] for call in calls].count("plain") == [call[0] for call in calls].count("a")


def test_training_steps_are_timed_in_training_mode() -> None:
    calls: list[Call] = []
    found = _measure(["plain", "a"], calls, _protocol(mode="train"))
    assert {call[1] for call in calls} == {False}
    assert _ok(found["a"]).ratio.median > 0


@pytest.mark.parametrize("fails_at", [1, WARM_UP_MIN + 1, WARM_UP_MIN + 5])
def test_a_network_that_fails_at_any_moment_is_reported_and_the_others_continue(fails_at: int) -> None:
    found = _measure(["plain", "bad", "b"], [], _protocol(), {"bad": fails_at})
    assert found["bad"] == Failure("out_of_memory", "OutOfMemoryError: no room")
    assert len(_ok(found["b"]).samples_ms) == MIN_ROUNDS
    assert len(_ok(found["plain"]).samples_ms) == MIN_ROUNDS


def test_what_is_out_of_memory_with_others_is_tried_again_alone() -> None:
    tries: list[str] = []

    def crowded() -> nn.Module:
        tries.append("built")
        if len(tries) == 1:
            raise torch.OutOfMemoryError("no room beside the others")
        return _Recorder("crowded", [])

    networks: dict[str, Callable[[], nn.Module]] = {"a": lambda: _Recorder("a", []), "crowded": crowded}
    found = dict(measure_latencies(networks, "plain", lambda: _Recorder("plain", []), _protocol(), 4))
    assert len(_ok(found["crowded"]).samples_ms) == MIN_ROUNDS
    assert len(tries) == 2


def test_without_the_plain_network_nothing_is_timed() -> None:
    calls: list[Call] = []
    found = _measure(["plain", "a"], calls, _protocol(), {"plain": 1})
    assert found["plain"] == Failure("out_of_memory", "OutOfMemoryError: no room")
    assert isinstance(found["a"], Failure)
    assert found["a"].status == "out_of_memory"
    assert re.search("plain.*OutOfMemoryError: no room", found["a"].error)
    assert calls == []


Outcomes = dict[str, Latency | Failure]


def _note(found: Outcomes, latencies: Iterator[tuple[str, Latency | Failure]]) -> None:
    """Each of `latencies` in `found` as it comes, however they end."""
    for name, latency in latencies:
        found[name] = latency


class _Losing(_Recorder):
    """Loses the context of a GPU at one of its passes."""

    def forward(self, x: Tensor) -> Tensor:
        try:
            return super().forward(x)
        except torch.OutOfMemoryError:
            raise RuntimeError("CUDA error: an illegal memory access was encountered") from None


@pytest.mark.parametrize("culprit", ["plain", "bad"])
@pytest.mark.parametrize("fails_at", [1, WARM_UP_MIN + 1, WARM_UP_MIN + 5])
@pytest.mark.parametrize("wanted", [["plain", "a", "bad", "b"], ["a", "bad", "b"]])
def test_a_lost_context_is_its_network_s_failure_and_nobody_elses(
    wanted: list[str], fails_at: int, culprit: str
) -> None:
    def make(name: str) -> Callable[[], nn.Module]:
        return lambda: _Losing(name, [], fails_at if name == culprit else None)

    found: Outcomes = {}
    networks = {name: make(name) for name in wanted}
    latencies = measure_latencies(networks, "plain", make("plain"), _protocol(), 4)
    with pytest.raises(ContextLostError, match=rf"\b{culprit}\b"):
        _note(found, latencies)
    # Of a plain network that wasn't asked for: otherwise the same command would never come to an end.
    assert list(found) == ([culprit] if culprit in wanted else wanted)
    assert all(isinstance(latency, Failure) and latency.context_lost for latency in found.values())


@pytest.mark.slow
def test_memory_bounds_how_many_networks_are_there_at_once() -> None:
    alive: set[int] = set()
    largest = 0

    class Counted(_Recorder):
        def __init__(self, name: str) -> None:
            nonlocal largest
            super().__init__(name, [])
            alive.add(id(self))
            largest = max(largest, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    def free(device: str) -> int:
        return 100 - 10 * len(alive)

    names = [f"n{i}" for i in range(20)]
    networks: dict[str, Callable[[], nn.Module]] = {n: (lambda n=n: Counted(n)) for n in names}  # type: ignore[misc]
    order = [
        n
        for n, _ in measure_latencies(networks, "plain", lambda: Counted("plain"), _protocol(), 4, free=free)
    ]
    assert sorted(order) == sorted(names)
    # The baseline and five more leave less than half of what was free.
    assert largest == 6
    assert not alive


def test_progress_is_reported_for_each_network_and_each_round() -> None:
    message: list[tuple[str, float]] = []
    networks: dict[str, Callable[[], nn.Module]] = {n: (lambda n=n: _Recorder(n, [])) for n in ("a", "b")}  # type: ignore[misc]
    list(
        measure_latencies(
            networks,
            "plain",
            lambda: _Recorder("plain", []),
            _protocol(),
            4,
            on_progress=lambda key, spent: message.append((key, spent)),
        )
    )
    assert message[:3] == [("a", 0.0), ("a", 0.0), ("b", 0.0)]
    assert len(message) == 3 + MIN_ROUNDS
    assert all(0 <= spent <= 1 for _, spent in message)


def test_the_summary_is_made_of_the_samples() -> None:
    samples = [10.0, 20.0, 30.0, 20.0, 20.0] * 4
    latency = Latency(
        samples, [s / 2 for s in samples], "budget", 12.5, None, None, [], [0.5] * 20, {"power_w": [1.0]}
    )
    value = latency.to_dict()
    assert (value["latency_ms"], value["latency_ratio"], value["rounds"]) == (20, 2, 20)
    assert (value["latency_ratio_low"], value["latency_ratio_high"]) == (2, 2)
    assert value["latency_ms_low"] <= 20 <= value["latency_ms_high"]
    assert (value["stopped_by"], value["peak_memory_mb"], value["warnings"]) == ("budget", 12.5, [])
    assert latency.samples() == {
        "latency_ms": samples,
        "baseline_ms": [s / 2 for s in samples],
        "round_s": [0.5] * 20,
        "power_w": [1.0],
    }


@pytest.mark.parametrize(
    ("dtype", "memory_format", "mode"),
    [
        pytest.param("float32", "contiguous", "train", marks=pytest.mark.slow),
        pytest.param("float32", "channels_last", "inference", marks=pytest.mark.slow),
        pytest.param("bfloat16", "contiguous", "inference", marks=pytest.mark.slow),
        pytest.param("bfloat16", "channels_last", "train", marks=pytest.mark.slow),
        pytest.param("float16", "channels_last", "inference", marks=pytest.mark.slow),
        pytest.param("float16", "contiguous", "train", marks=pytest.mark.slow),
    ],
)
def test_real_networks_run_in_every_dtype_and_format(dtype: str, memory_format: str, mode: str) -> None:
    def build() -> nn.Module:
        return wnexplore.build(
            backbone="shufflenet_v2_x0_5", method="weightnet", stem="small", num_classes=10
        )

    protocol = _protocol(batch_size=2, dtype=dtype, memory_format=memory_format, mode=mode, cache="cold")
    protocol = replace(protocol, baseline="deployed")
    latency = _ok(dict(measure_latencies({"a": build}, "plain", build, protocol, 32))["a"])
    assert all(sample > 0 for sample in latency.samples_ms)
    # At the least the weights, and in training their gradients and momentum too.
    size = 4 if dtype == "float32" else 2
    weights = sum(p.numel() for p in build().parameters()) * size / 1e6
    assert latency.peak_memory_mb is not None
    assert latency.peak_memory_mb > weights * (3 if mode == "train" else 1)
    assert latency.compile_s is None
    assert latency.energy_j is None


@pytest.mark.parametrize(
    ("baseline", "mode", "left"),
    [("deployed", "inference", 0), ("trained", "inference", 1), ("deployed", "train", 1)],
)
def test_networks_are_timed_as_they_are_deployed(baseline: str, mode: str, left: int) -> None:
    made: list[nn.Module] = []

    def build() -> nn.Module:
        layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        made.append(nn.Sequential(*layers))
        return made[-1]

    protocol = replace(_protocol(mode=mode), baseline=baseline)
    _ok(dict(measure_latencies({"a": build}, "plain", build, protocol, 8))["a"])
    assert len(made) == 2
    for network in made:
        assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == left


def test_onnxruntime_is_timed_and_its_memory_is_not_known() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    protocol = _protocol(runtime="onnxruntime", threads=1)
    latency = _ok(dict(measure_latencies({"plain": build}, "plain", build, protocol, 4))["plain"])
    assert len(latency.samples_ms) >= MIN_ROUNDS
    assert latency.peak_memory_mb is None
    assert latency.compile_s is not None
    assert latency.compile_s > 0


def test_threads_and_precision_are_put_back() -> None:
    before = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with threads_set(before[0] + 1), precision_set("tf32"):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    with precision_set("float32"):
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    after = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert after == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("runtime", ["eager", "cudagraph"])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
def test_a_gpu_is_timed_by_its_own_clock_and_its_peak_memory_is_read(dtype: str, runtime: str) -> None:
    def build() -> nn.Module:
        return wnexplore.build(backbone="shufflenet_v2_x0_5", stem="small", num_classes=10)

    protocol = _protocol(batch_size=8, device="cuda", dtype=dtype, runtime=runtime, seconds=0.1)
    latency = _ok(dict(measure_latencies({"a": build}, "plain", build, protocol, 32))["a"])
    assert latency.ratio.low < 1.05
    assert latency.peak_memory_mb is not None
    assert latency.peak_memory_mb > sum(p.numel() for p in build().parameters()) * 2 / 1e6
    assert (latency.compile_s is not None) == (runtime == "cudagraph")
