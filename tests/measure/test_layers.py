import pytest
import torch

import wnexplore
from wnexplore import DesignPoint
from wnexplore.design.layers import generated_layers
from wnexplore.measure.complexity import measure_complexity
from wnexplore.measure.layers import Layer, measure_layers
from wnexplore.nn import GeneratedConv2d


def _measured(point: DesignPoint, model: torch.nn.Module, batch_size: int = 2) -> list[Layer]:
    return measure_layers(
        model,
        resolution=point.resolution,
        batch_size=batch_size,
        dtype="float32",
        device="cpu",
        seconds=0.05,
    )


@pytest.mark.parametrize("method", ["plain", "se", "condconv", "weightnet"])
def test_layers_add_up_to_the_network(method: str) -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", method, stem="small", num_classes=10)
    model = wnexplore.build(point)
    counts = measure_complexity(model, point.resolution)
    layers = _measured(point, model)
    assert sum(layer.params for layer in layers) == counts.params
    assert sum(layer.flops for layer in layers) == counts.flops
    assert all(layer.time_ms >= 0 for layer in layers)
    assert 0 < sum(layer.time_share for layer in layers) < 1.5


def test_generator_and_convolution_stand_apart() -> None:
    point = DesignPoint.of("resnet18", "weightnet", 4, 2, stem="small", num_classes=10)
    layers = _measured(point, wnexplore.build(point), batch_size=1)
    shapes = {shape.name: shape for shape in generated_layers("resnet18")}
    made = {layer.name: layer for layer in layers if layer.part == "generator"}
    applied = {layer.name: layer for layer in layers if layer.part == "convolution"}
    assert made.keys() == applied.keys() == shapes.keys()
    name = "layer1.0.conv1"
    weights = shapes[name].out_channels * shapes[name].fan_in
    assert made[name].flops == 16 * 4 * 64 + 2 * weights
    assert made[name].params == 16 * 4 * 64 + 4 * 64 + 2 * weights
    assert applied[name].flops == weights * 32 * 32
    assert applied[name].params == 0


def test_the_clocks_are_taken_away_again() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", stem="small", num_classes=10)
    model = wnexplore.build(point)
    _measured(point, model)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        if isinstance(module, GeneratedConv2d):
            assert "kernels" not in vars(module)
