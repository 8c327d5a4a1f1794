from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

import wnexplore
from tests.examples import rest_slow
from wnexplore.measure.complexity import count_products, measure_complexity
from wnexplore.nn import CondConv2d, GeneratedConv2d


def _multiply_adds(model: nn.Module, resolution: int) -> int:
    """Convolutions and linear layers of one image by arithmetic on the shapes that pass through."""
    total = 0

    def conv(module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output[0].numel() * module.weight[0].numel()

    def linear(module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Linear)
        total += module.weight.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(conv)
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
    model.eval()(torch.zeros(1, 3, resolution, resolution))
    return total


@pytest.mark.parametrize(
    "name", rest_slow(["resnet18", "resnet50", "shufflenet_v2_x0_5"], "resnet18", "shufflenet_v2_x0_5")
)
def test_plain_networks_count_as_torchvisions(name: str) -> None:
    ours = measure_complexity(wnexplore.build(backbone=name), 64)
    theirs: Callable[..., nn.Module] = getattr(torchvision.models, name)
    reference = theirs(weights=None)
    assert ours.params == sum(p.numel() for p in reference.parameters())
    assert ours.flops == _multiply_adds(reference, 64)


def _published_network(M: int, G: int, width: int = 48) -> tuple[int, int]:
    """Parameters and multiply-adds of ShuffleNetV2 + WeightNet at 224 pixels, written out by hand."""
    params = flops = 0

    def conv(into: int, out: int, size: int) -> None:
        nonlocal params, flops
        params, flops = params + into * out, flops + into * out * size

    def generated(context: int, M: int, G: int, into: int, out: int, kernel: int, size: int) -> None:
        nonlocal params, flops
        fan_in = into * kernel
        params += (context + 1) * M * out + M // G * out * fan_in
        flops += context * M * out + M // G * out * fan_in + out * fan_in * size

    conv(3 * 9, 24, 112 * 112)
    params += 2 * 24
    channels, side = 24, 56
    for stage, repeats in enumerate((4, 8, 4)):
        out = width * 2**stage
        for block in range(repeats):
            into = channels if block == 0 else out // 2
            context = max(16, into // 16)
            before, side = side, side // (2 if block == 0 else 1)
            params, flops = params + (into + 1) * context, flops + into * context
            generated(context, M, G, into, out // 2, 1, before**2)
            generated(context, M // G, 1, 1, out // 2, 9, side**2)
            generated(context, M, G, out // 2, out - into, 1, side**2)
            params += 2 * (out // 2) * 2 + 2 * (out - into)
            if block == 0:
                generated(context, M // G, 1, 1, into, 9, side**2)
                generated(context, M, G, into, into, 1, side**2)
                params += 2 * into * 2
        channels = out
    conv(channels, 1024, side**2)
    params += 2 * 1024 + 1000
    conv(1024, 1000, 1)
    return params, flops


@pytest.mark.parametrize(("M", "G"), rest_slow([(1, 1), (2, 2), (4, 2), (8, 1)], (4, 2)))
def test_generated_networks_count_as_arithmetic_says(M: int, G: int) -> None:
    counts = measure_complexity(
        wnexplore.build(backbone="shufflenet_v2_x0_5", method="weightnet", M=M, G=G), 224
    )
    assert (counts.params, counts.flops) == _published_network(M, G)


def test_the_published_point_has_the_published_counts() -> None:
    assert _published_network(2, 2) == (1_462_880, 40_704_040)


@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        ("shufflenet_v2_x0_5", "weightnet"),
        *(
            pytest.param(backbone, method, marks=pytest.mark.slow)
            for backbone, methods in (
                ("shufflenet_v2_x0_5", ("plain", "se", "condconv")),
                ("resnet18", ("plain", "se", "condconv", "weightnet")),
            )
            for method in methods
        ),
    ],
)
def test_the_counts_do_not_depend_on_the_batch(backbone: str, method: str) -> None:
    """The layers take other roads at batch 1 and 8 (one kernel, batched products, folded groups)."""
    model = wnexplore.build(backbone=backbone, method=method, stem="small", num_classes=10)
    one, eight = (measure_complexity(model, 32, batch_size) for batch_size in (1, 8))
    assert one.flops == eight.flops
    assert one.fvcore_flops == eight.fvcore_flops
    assert one.operators.keys() >= {"conv", "linear", "batch_norm"}


def test_condconv_counts_routing_mixing_and_convolution() -> None:
    layer = CondConv2d(8, 12, 3, experts=4)
    flops = count_products(nn.Sequential(nn.Conv2d(3, 8, 1), layer), 10).flops
    inside = sum(expected for place, expected in flops.items() if "1" in place)
    assert inside == 8 * 4 + 4 * 12 * 8 * 9 + 12 * 8 * 9 * 100


def test_fvcores_total_has_batch_normalisation_and_what_it_cannot_count_is_shown() -> None:
    counts = measure_complexity(wnexplore.build(backbone="shufflenet_v2_x0_5", method="weightnet"), 64)
    assert counts.fvcore_flops == counts.flops + counts.operators["batch_norm"]
    assert counts.uncounted["sigmoid"] == 4 + 8 + 4, "one a block"
    assert "max_pool2d" in counts.uncounted


def test_counting_leaves_the_model_as_it_was() -> None:
    model = wnexplore.build(backbone="resnet18", stem="small").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_complexity(model, 32)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, GeneratedConv2d) for module in model.modules())
