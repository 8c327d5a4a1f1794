import pytest
import torch
from torch import Tensor, nn

import wnexplore
from tests.examples import rest_slow
from wnexplore import DesignPoint
from wnexplore.design.conv_sites import block_convs
from wnexplore.design.methods import METHODS
from wnexplore.measure.complexity import measure_complexity
from wnexplore.measure.layer_profile import measure_layers
from wnexplore.models import convert
from wnexplore.nn import WeightNetConv2d
from wnexplore.results.network_profile import LayerProfile, Peaks

PEAKS = Peaks(bytes_per_s=2e10, multiply_adds_per_s=5e10)


def _measured(point: DesignPoint, model: torch.nn.Module, batch_size: int = 2) -> list[LayerProfile]:
    return measure_layers(
        model,
        resolution=point.resolution,
        batch_size=batch_size,
        dtype="float32",
        device="cpu",
        peaks=PEAKS,
        seconds=0.05,
    )


@pytest.mark.parametrize("method", rest_slow(["plain", "se", "condconv", "weightnet"], "weightnet"))
def test_layers_add_up_to_the_network(method: str) -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", method, stem="small", num_classes=10)
    model = wnexplore.build(point)
    counts = measure_complexity(model, point.resolution)
    layers = _measured(point, model)
    assert sum(layer.params for layer in layers) == counts.params
    assert sum(layer.flops for layer in layers) == counts.flops
    assert all(layer.time_ms >= 0 for layer in layers)
    assert 0 < sum(layer.time_share for layer in layers) < 1.5


@pytest.mark.parametrize("method", METHODS)
def test_layers_of_every_method_add_up(method: str) -> None:
    sizes = [(3, 20, 3, 1), (20, 20, 3, 1), (20, 20, 3, 20), (20, 40, 1, 1)]
    model = nn.Sequential(*(nn.Conv2d(a, b, k, groups=g, bias=False) for a, b, k, g in sizes))
    counts = measure_complexity(convert(model, method).model, 8)
    layers = _layers(*model)
    assert sum(layer.params for layer in layers) == counts.params
    assert sum(layer.flops for layer in layers) == counts.flops
    # What the method's entry takes for one layer has one row.
    if METHODS[method].layer_kind == "generated convolution":
        assert [layer.depthwise for layer in layers] == [False, False, True, False]


def test_fc1_stands_apart_from_the_layers_it_serves() -> None:
    point = DesignPoint.of("resnet18", "weightnet", 4, 2, stem="small", num_classes=10)
    layers = {layer.name: layer for layer in _measured(point, wnexplore.build(point), batch_size=1)}
    shapes = {shape.name: shape for shape in block_convs("resnet18")}
    assert {name for name, layer in layers.items() if layer.formulation} == shapes.keys()
    name = "layer1.0.conv1"
    weights = shapes[name].out_channels * shapes[name].fan_in
    assert layers[name].params == 16 * 4 * 64 + 4 * 64 + 2 * weights
    assert layers[name].flops == 2 * weights + weights * 32 * 32
    assert layers["layer1.0.alphas"].flops == 2 * 16 * 4 * 64
    assert layers["layer1.0.alphas"].params == 0
    # Context in, weights and biases of two fc1, two activation vectors out.
    assert layers["layer1.0.alphas"].bytes == 4 * (16 + 2 * (16 + 1) * 256 + 2 * 256)
    # Image in and out, B, the activation vector.
    assert layers[name].bytes == 4 * (2 * 64 * 32 * 32 + 2 * weights + 256)


def test_the_clocks_are_taken_away_again() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", stem="small", num_classes=10)
    model = wnexplore.build(point)
    _measured(point, model)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def _layers(
    *modules: nn.Module, batch_size: int = 1, dtype: str = "float32", memory_format: str = "contiguous"
) -> list[LayerProfile]:
    """Of modules in a row, for images of 8x8 pixels."""
    return measure_layers(
        nn.Sequential(*modules),
        resolution=8,
        batch_size=batch_size,
        dtype=dtype,
        device="cpu",
        peaks=PEAKS,
        memory_format=memory_format,
        seconds=1e-6,
    )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_bytes_are_those_of_inputs_weights_and_outputs(
    batch: int, dtype: str, size: int, memory_format: str
) -> None:
    convolution, depthwise, relu, pool, flatten, linear = _layers(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        batch_size=batch,
        dtype=dtype,
        memory_format=memory_format,
    )
    assert convolution.bytes == size * (batch * 3 * 64 + 6 * 3 * 9 + batch * 6 * 64)
    assert depthwise.bytes == size * (batch * 6 * 64 + 6 * 9 + 6 + batch * 6 * 16)
    assert relu.bytes == size * 2 * batch * 6 * 16
    assert pool.bytes == size * batch * (6 * 16 + 6)
    assert flatten.bytes == 0, "a view"
    assert (convolution.depthwise, depthwise.depthwise) == (False, True)
    assert linear.bytes == size * (batch * 6 + 6 * 5 + 5 + batch * 5)
    assert convolution.intensity == pytest.approx(batch * 6 * 64 * 27 / convolution.bytes)
    assert depthwise.intensity == pytest.approx(batch * 6 * 16 * 9 / depthwise.bytes)
    assert relu.intensity == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_a_generated_layer_moves_its_weights_once_whatever_the_batch(batch: int) -> None:
    layer = WeightNetConv2d(3, 8, kernel_size=3, M=2, G=1)
    (row,) = _layers(layer, batch_size=batch)
    weights = sum(p.numel() for p in layer.parameters())
    # It makes its own context.
    assert row.bytes == 4 * (batch * 3 * 64 + weights + batch * 8 * 64)
    context, fc1, generator = 3 * 16, 16 * 16, 2 * 8 * 27
    assert row.flops == context + fc1 + generator + 8 * 64 * 27
    assert row.intensity == pytest.approx(batch * row.flops / row.bytes)


def test_a_module_that_runs_twice_moves_its_bytes_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.layer(self.layer(x))
            return result

    (layer,) = _layers(Twice())
    assert layer.bytes == 2 * 4 * (2 * 3 * 64 + 9)


def test_the_share_of_the_roofline_is_the_least_time_over_the_time_taken() -> None:
    for layer in _layers(nn.Conv2d(3, 6, 3), nn.ReLU()):
        least_s = max(layer.flops / 5e10, layer.bytes / 2e10)
        assert layer.roofline_share == pytest.approx(least_s * 1e3 / layer.time_ms)
