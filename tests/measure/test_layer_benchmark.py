from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wnexplore
from wnexplore import DesignPoint
from wnexplore.design.conv_sites import ConvShape, block_convs
from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.errors import InputError
from wnexplore.measure import layer_benchmark
from wnexplore.measure.distinct_layers import DistinctLayer, distinct_layers
from wnexplore.measure.layer_benchmark import benchmark_layer, difference
from wnexplore.measure.rounds import MIN_ROUNDS
from wnexplore.nn import CondConv2d, WeightNetConv2d
from wnexplore.nn.formulations import apply_generated
from wnexplore.results.formulation_timings import FailedFormulation, LayerBenchmark, TimedFormulation

RESOLUTION = 32


def _protocol(**changes: Any) -> LatencyProtocol:
    usual: dict[str, Any] = {
        "device": "cpu",
        "device_name": "",
        "dtype": "float32",
        "batch_size": 3,
        "seconds": 1e-6,
    }
    return LatencyProtocol(**(usual | changes))


def _layer(module: nn.Module) -> DistinctLayer:
    """Of a network that is one layer, which sees three channels of 8x8 pixels."""
    (found,) = distinct_layers(nn.Sequential(module), 8)
    return found


def _timed(found: LayerBenchmark) -> dict[str, TimedFormulation]:
    return {
        name: outcome for name, outcome in found.formulations.items() if isinstance(outcome, TimedFormulation)
    }


def _resnet_input(layer: ConvShape) -> int:
    """Pixels on a side that a layer of resnet18 sees of 32: the small stem keeps them, stages halve."""
    stage, block = int(layer.name[5]), layer.name[7]
    first = block == "0" and not layer.name.endswith("conv2")
    return RESOLUTION >> (stage - 2 if first and stage > 1 else stage - 1)


def test_layers_are_alike_if_their_shapes_and_the_sizes_of_their_inputs_are() -> None:
    point = DesignPoint.of("resnet18", "weightnet", 4, 2, stem="small", num_classes=10)
    found = distinct_layers(wnexplore.build(point), RESOLUTION)
    expected: dict[tuple[int, ...], list[str]] = {}
    for layer in block_convs("resnet18"):
        size = _resnet_input(layer)
        key = (layer.in_channels, layer.out_channels, layer.kernel_size, size)
        expected.setdefault(key, []).append(layer.name)
    assert [(layer.name, layer.count) for layer in found] == [(n[0], len(n)) for n in expected.values()]
    assert [(e.shape.in_channels, e.shape.out_channels, e.shape.kernel_size[0], e.height) for e in found] == [
        *expected
    ]
    for one in found:
        assert one.width == one.height
        assert one.weight.shape == (one.shape.weights, one.shape.inputs_per_group)
        assert (one.shape.generator_groups, one.shape.inputs_per_group) == (2 * one.shape.out_channels, 2)


@pytest.mark.parametrize("method", ["weightnet", "condconv"])
def test_every_layer_of_a_network_is_counted_once(method: str) -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", method, stem="small", num_classes=10)
    network = wnexplore.build(point)
    found = distinct_layers(network, RESOLUTION)
    layers = block_convs("shufflenet_v2_x0_5")
    assert sum(layer.count for layer in found) == len(layers)
    assert {layer.name for layer in found} <= {layer.name for layer in layers}
    assert len(found) < len(layers) / 2
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_one_layer_by_name() -> None:
    network = wnexplore.build("resnet18", "weightnet", stem="small", num_classes=10)
    (found,) = distinct_layers(network, RESOLUTION, "layer1.1.conv2")
    assert (found.name, found.count) == ("layer1.1.conv2", 4)
    with pytest.raises(InputError, match=r"'layer1\.1\.conv3'.*layer1\.1\.conv"):
        distinct_layers(network, RESOLUTION, "layer1.1.conv3")
    with pytest.raises(InputError, match="generated kernels"):
        distinct_layers(nn.Conv2d(3, 3, 1), RESOLUTION)


@pytest.mark.parametrize(
    "module",
    [
        WeightNetConv2d(3, 8, 3, M=4, G=1),
        WeightNetConv2d(3, 8, 1, M=1, G=1),
        WeightNetConv2d(3, 3, 3, 2, groups=3, M=2, G=1),
        CondConv2d(3, 8, 3, 2, experts=3),
    ],
    ids=["3x3", "1x1", "depthwise", "condconv"],
)
@pytest.mark.parametrize(
    "changes",
    [{}, {"mode": "train"}, {"dtype": "bfloat16", "memory_format": "channels_last"}, {"batch_size": 1}],
    ids=["inference", "train", "bfloat16", "batch 1"],
)
def test_formulations_are_timed_and_agree(module: nn.Module, changes: dict[str, Any]) -> None:
    protocol, threads = _protocol(threads=1, **changes), torch.get_num_threads()
    found = benchmark_layer(_layer(module), protocol)
    assert torch.get_num_threads() == threads
    timed = _timed(found)
    assert list(timed) == ["published", "kernel", "shared"]
    for outcome in timed.values():
        assert outcome.agrees
        assert 0 <= outcome.difference < 0.05
        assert (outcome.rounds, outcome.stopped_by) == (MIN_ROUNDS, "budget")
        assert 0 < outcome.latency_ms.low <= outcome.latency_ms.median <= outcome.latency_ms.high
    if protocol.dtype == "float32":
        assert max(outcome.difference for outcome in timed.values()) < 1e-5
    assert found.plain_ms is not None
    assert found.plain_ms.median > 0
    assert found.fastest == min(timed, key=lambda name: timed[name].ratio.median)
    assert found.picked in timed
    assert found.regret is not None
    if found.picked == found.fastest:
        assert found.regret == (1, 1, 1)


def test_training_goes_backward_to_all_that_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[list[bool]] = []

    def noted(*inputs: Any) -> Tensor:
        requested.append([tensor.requires_grad for tensor in inputs[:3]])
        return apply_generated(*inputs)

    monkeypatch.setattr(layer_benchmark, "apply_generated", noted)
    benchmark_layer(_layer(WeightNetConv2d(3, 8, 3, G=1)), _protocol(mode="train", batch_size=1))
    assert [True, True, True] in requested
    requested.clear()
    benchmark_layer(_layer(WeightNetConv2d(3, 8, 3, G=1)), _protocol(batch_size=1))
    assert [True, True, True] not in requested


def test_what_is_wrong_or_fails_is_reported_and_never_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: Tensor, alpha: Tensor, weight: Tensor, shape: Any, name: str) -> Tensor:
        if name == "shared":
            raise torch.OutOfMemoryError("no room")
        y = apply_generated(x, alpha, weight, shape, name)
        return torch.zeros_like(y) if name == "kernel" else y

    monkeypatch.setattr(layer_benchmark, "apply_generated", broken)
    found = benchmark_layer(_layer(WeightNetConv2d(3, 8, 3, G=1)), _protocol())
    assert found.formulations["shared"] == FailedFormulation("out_of_memory", "OutOfMemoryError: no room")
    timed = _timed(found)
    assert {name: outcome.agrees for name, outcome in timed.items()} == {"published": True, "kernel": False}
    assert timed["kernel"].difference == 1
    assert found.fastest == "published"
    entries = found.to_dict()["formulations"]
    assert [entries[n]["status"] for n in ("published", "kernel", "shared")] == ["ok", "ok", "out_of_memory"]


def test_images_that_do_not_fit_are_everyones_failure() -> None:
    found = benchmark_layer(_layer(WeightNetConv2d(3, 8, 3, G=1)), _protocol(batch_size=10**12))
    assert set(found.formulations) == {"published", "kernel", "shared"}
    for outcome in found.formulations.values():
        assert isinstance(outcome, FailedFormulation)
        assert outcome.status == "out_of_memory"
    assert (found.plain_ms, found.picked, found.fastest, found.regret) == (None, None, None, None)
    assert found.to_dict()["plain_ms"] is None


def test_the_difference_is_relative_to_the_largest_value() -> None:
    expected = torch.tensor([[1.0, -4.0], [0.0, 2.0]], dtype=torch.float64)
    assert difference(expected.float(), expected) == 0
    assert difference(torch.tensor([[1.0, -4.0], [0.5, 2.0]]), expected) == 0.125
    assert math.isnan(difference(torch.tensor([[1.0, math.nan], [0.0, 2.0]]), expected))
    assert difference(expected[:1], expected) == math.inf
    assert difference(torch.zeros(3), torch.zeros(3, dtype=torch.float64)) == 0
    assert difference(torch.ones(3), torch.zeros(3, dtype=torch.float64)) > 1


def test_a_difference_that_is_no_number_is_a_disagreement_that_json_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layer_benchmark, "difference", lambda y, expected: math.nan)
    found = benchmark_layer(_layer(WeightNetConv2d(3, 8, 3, G=1)), _protocol())
    assert not any(outcome.agrees for outcome in _timed(found).values())
    assert {outcome.to_dict()["difference"] for outcome in _timed(found).values()} == {None}
    assert found.fastest is None


@pytest.mark.parametrize(
    ("fastest", "expected"),
    [
        (["kernel", "kernel", "shared"], [(1, "kernel"), (4, "shared")]),
        (["shared"], [(1, "shared")]),
        (["kernel", None, "kernel"], [(1, "kernel")]),
        ([None, "kernel", "shared"], [(2, "kernel"), (4, "shared")]),
        (["kernel", "shared", "kernel"], [(1, "kernel"), (2, "shared"), (4, "kernel")]),
        ([None], []),
    ],
)
def test_the_crossover_is_where_the_fastest_changes(
    fastest: list[str | None], expected: list[tuple[int, str]]
) -> None:
    nothing = LayerBenchmark(1, None, {}, None, None, None)
    benchmarks = [replace(nothing, batch_size=2**n, fastest=name) for n, name in enumerate(fastest)]
    layer = _layer(WeightNetConv2d(3, 8, 3, G=1))
    assert layer.with_benchmarks(benchmarks).crossover == expected
