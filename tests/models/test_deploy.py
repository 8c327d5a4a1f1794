"""Batch normalisations folded for deployment: the same function, checked in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wnexplore.design.backbones import BACKBONES
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.models import build, convert
from wnexplore.models.deploy import deploy, fold_batch_norms
from wnexplore.nn import WeightNetConv2d


def drawn(network: nn.Module) -> nn.Module:
    """`network` with statistics and affine parameters that a wrong folding would show, in evaluation."""
    dice = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=dice)
            module.running_var.uniform_(0.8, 2, generator=dice)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.2, generator=dice)
                nn.init.normal_(module.bias, 0, 0.2, generator=dice)
    return network.double().eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def folded(network: nn.Module, size: int = 32, batch: int = 2) -> int:
    """How many normalisations a deployed `network` has lost, having checked that the function is the same."""
    drawn(network)
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        count = norms(network)
        deploy(network, x[:1])
        count -= norms(network)
        after = network(x)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-9)
    return count


@pytest.mark.parametrize("method", [name for name in METHODS if name != "sk"])
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "resnet18", "mobilenet_v3_small"])
def test_every_normalisation_of_a_registered_network_is_folded(backbone: str, method: str) -> None:
    network = build(DesignPoint.of(backbone, method, stem="small"))
    count = norms(network)
    assert folded(network) == count
    assert norms(network) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_network_stays_the_same_function(backbone: str, method: str) -> None:
    network = build(DesignPoint.of(backbone, method, num_classes=10))
    count = norms(network)
    assert folded(network) == count - norms(network)


def test_a_mixture_of_paths_is_no_convolution() -> None:
    """What sk's paths add up to has a normalisation of its own, and its linear layer another."""
    network = build(DesignPoint.of("resnet18", "sk", stem="small"))
    layers = sum(type(module).__name__ == "SelectiveKernelConv2d" for module in network.modules())
    folded(network)
    assert norms(network) == 2 * layers


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: timm.create_model("regnety_002"), 0),
        (lambda: timm.create_model("efficientnet_b0"), 0),
        # Normalisation before the convolution.
        (lambda: torchvision.models.densenet121(), 62),
        # Identity branches of RepVGG blocks.
        (lambda: timm.create_model("repvgg_a0"), 17),
        # Weights standardised in each pass: what is convolved with is no parameter.
        (lambda: timm.create_model("resnetv2_50x1_bit"), 0),
    ],
)
def test_networks_of_others(make: Callable[[], nn.Module], left: int) -> None:
    network = make()
    folded(network, 64)
    assert norms(network) == left


def test_a_converted_network() -> None:
    """Layers that keep the bias of the convolution which they replace are left alone."""
    network = torchvision.models.vgg11_bn(num_classes=10)
    convert(network, "weightnet", M=2, G=2, resolution=32)
    assert folded(network) == 1  # the stem, which is not converted
    network = torchvision.models.resnet18(num_classes=10)
    convert(network, "weightnet", M=2, G=2)
    assert folded(network, 64) == 20


class _Net(nn.Module):
    """A convolution and a normalisation, used in some way."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)
        self.how = forward

    def forward(self, x: Tensor) -> object:
        return self.how(self, x)


@pytest.mark.parametrize(
    ("how", "count"),
    [
        (lambda net, x: net.norm(net.conv(x)).relu(), 1),
        (lambda net, x: net.norm(net.conv(x).relu()), 0),
        (lambda net, x: net.norm(net.conv(x).mul_(2)), 0),
        (lambda net, x: (y := net.conv(x)).mean() + net.norm(y), 0),
        (lambda net, x: (y := net.conv(x), net.norm(y))[1] + y, 0),
        (lambda net, x: [y := net.conv(x), net.norm(y)], 0),
        (lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv(x.flip(2))), 0),
        (lambda net, x: net.norm(net.conv(x)[:, :, 1:]), 0),
        (lambda net, x: net.conv(x), 0),
    ],
)
def test_only_a_normalisation_that_alone_reads_a_convolution_is_folded(
    how: Callable[[nn.Module, Tensor], object], count: int
) -> None:
    network = _Net(how)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    drawn(network)
    with torch.no_grad():
        before = network(x)
        assert fold_batch_norms(network, x) == count
        torch.testing.assert_close(network(x), before, rtol=1e-9, atol=1e-12)


def test_a_hook_between_the_two_keeps_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    seen = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert fold_batch_norms(network, torch.randn(1, 3, 4, 4)) == 0
    assert norms(network) == 1


@settings(max_examples=40, deadline=None)
@given(
    channels=st.sampled_from([(4, 8), (8, 4), (6, 6)]),
    kernel=st.sampled_from([1, 3]),
    pair=st.sampled_from([(1, 1), (2, 2), (4, 1), (8, 2)]),
    batch=st.sampled_from([1, 3]),
    size=st.integers(3, 9),
    affine=st.booleans(),
    formulation=st.sampled_from(["auto", "published", "kernel"]),
)
def test_a_generated_layer_absorbs_its_normalisation(
    channels: tuple[int, int],
    kernel: int,
    pair: tuple[int, int],
    batch: int,
    size: int,
    affine: bool,
    formulation: str,
) -> None:
    if channels[0] * kernel**2 % pair[1]:
        return
    layer = WeightNetConv2d(*channels, kernel, M=pair[0], G=pair[1], formulation=formulation)
    network = drawn(nn.Sequential(layer, nn.BatchNorm2d(channels[1], affine=affine)))
    x = torch.randn(batch, channels[0], size, size, dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        deploy(network, x)
        torch.testing.assert_close(network(x), before, rtol=1e-9, atol=1e-11)
    assert norms(network) == 0


def test_a_network_that_can_not_run_raises_its_own_error_and_is_unchanged() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(RuntimeError, match="channels"):
        fold_batch_norms(network, torch.randn(1, 3, 4, 4))
    assert norms(network) == 1
    assert not any(module._forward_hooks for module in network.modules())
