"""ODConv: beside loops over one image after another, its counts, where it starts, what it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from tests.examples import examples, rest_slow
from wnexplore.errors import InputError
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models import convert
from wnexplore.nn.dynamic import DynamicConv2d
from wnexplore.nn.odconv import ODConv2d

DOUBLE = torch.float64


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of an ODConv2d: of any groups, depthwise too, strided, dilated, not square."""
    groups = draw(st.integers(1, 3))
    into, out = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2)]))
    return {
        "in_channels": groups * into,
        "out_channels": groups * out,
        "kernel_size": draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 2)])),
        "stride": draw(st.sampled_from([1, 2, (1, 2)])),
        "padding": draw(st.sampled_from([0, (2, 1), (3, 0)])),
        "dilation": draw(st.sampled_from([1, 2, (2, 1)])),
        "groups": groups,
        "experts": draw(st.integers(1, 4)),
        "temperature": draw(st.sampled_from([0.5, 1, 30.0])),
    }


def convolved_one_by_one(layer: ODConv2d, x: Tensor) -> Tensor:
    """The paper's formula, number by number; attentions that are absent are 1."""
    outputs = []
    filters, channels, high, wide = layer.kernel_shape
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    for image in x:
        means = torch.stack([channel.sum() / channel.numel() for channel in image])
        hidden = (layer.fc1.weight @ means + layer.fc1.bias).clamp(min=0)
        left = list((layer.fc2.weight @ hidden + layer.fc2.bias) / layer.temperature)

        def some(number: int, left: list[Tensor] = left) -> list[Tensor]:
            return [left.pop(0) for _ in range(number)]

        one = torch.ones((), dtype=x.dtype)
        of_channels = [1 / (1 + (-z).exp()) for z in some(layer.in_channels)]
        of_filters = [one] * filters if depthwise else [1 / (1 + (-z).exp()) for z in some(filters)]
        taps = high * wide
        of_positions = [one] if taps == 1 else [1 / (1 + (-z).exp()) for z in some(taps)]
        powers = [one] if layer.experts == 1 else [z.exp() for z in some(layer.experts)]
        assert not left
        kernel = torch.zeros(layer.kernel_shape, dtype=x.dtype).unbind()
        rows: list[Tensor] = []
        for o in range(len(kernel)):
            first = o // (filters // layer.groups) * channels
            for i, r, c in itertools.product(range(channels), range(high), range(wide)):
                mixed = sum(
                    (power / sum(powers) * layer.weight[e, o, i, r, c] for e, power in enumerate(powers)),
                    torch.zeros((), dtype=x.dtype),
                )
                rows.append(of_filters[o] * of_channels[first + i] * of_positions[r * wide + c] * mixed)
        kernels = torch.stack(rows).view(layer.kernel_shape)
        outputs.append(
            functional.conv2d(image, kernels, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        )
    return torch.stack(outputs)


@given(layers(), st.integers(1, 3), st.integers(0, 2**16))
@examples(60)
def test_each_image_is_convolved_with_its_own_kernel(axes: dict[str, Any], batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = ODConv2d(**axes).double().train()
    # Attention that is far from uniform at any temperature.
    nn.init.normal_(layer.fc2.weight, std=layer.temperature)
    layer.fc2.bias.data += layer.temperature * torch.randn_like(layer.fc2.bias)
    x = torch.randn(batch, layer.in_channels, 6, 7, dtype=DOUBLE, requires_grad=True)
    y, expected = layer(x), convolved_one_by_one(layer, x)
    assert (y - expected).norm() <= 1e-12 * expected.norm()

    variables = [x, *layer.parameters()]
    slope = torch.randn_like(y)
    found = torch.autograd.grad(y, variables, slope)
    for ours, theirs in zip(found, torch.autograd.grad(expected, variables, slope), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "axes", [{}, {"groups": 4}, {"groups": 8}, {"kernel_size": 1}, {"experts": 1}], ids=str
)
def test_one_image_alone_trains_every_parameter(axes: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = ODConv2d(**({"in_channels": 8, "out_channels": 8, "kernel_size": 3} | axes)).train()
    y = layer(torch.randn(1, 8, 6, 6))
    (y * torch.randn_like(y)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())


def test_parameters() -> None:
    layer = ODConv2d(64, 24, (3, 1), groups=2, experts=5, reduction=2)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "fc1.weight": (32, 64),
        "fc1.bias": (32,),
        "fc2.weight": (64 + 24 + 3 + 5, 32),
        "fc2.bias": (64 + 24 + 3 + 5,),
        "weight": (5, 24, 32, 3, 1),
    }
    # Depthwise, of one pixel and of one expert there is nothing more than the channels to attend to.
    assert ODConv2d(64, 64, 1, groups=64, experts=1).fc2.out_features == 64


@pytest.mark.parametrize(
    ("axes", "attended", "mixing"),
    [
        ({}, 48 + 60 + 9 + 4, 4),
        ({"kernel_size": 1}, 48 + 60 + 4, 4),
        ({"experts": 1}, 48 + 60 + 9, 0),
        ({"kernel_size": 1, "experts": 1}, 48 + 60, 0),
        ({"out_channels": 48, "groups": 48}, 48 + 9 + 4, 4),
        ({"groups": 3, "stride": 2, "experts": 5}, 48 + 60 + 9 + 5, 5),
    ],
    ids=str,
)
def test_counts(axes: dict[str, int], attended: int, mixing: int) -> None:
    given: dict[str, int] = {"in_channels": 48, "out_channels": 60, "kernel_size": 3, "reduction": 2} | axes
    layer = ODConv2d(**given)
    network = nn.Sequential(nn.Conv2d(3, 48, 1, bias=False), layer)
    kernel = layer.out_channels * layer.fan_in
    pixels = 25 if "stride" in axes else 100
    for batch_size in (1, 3):
        counts = measure_complexity(network, 10, batch_size)
        assert counts.params - 3 * 48 == 48 * 24 + 24 + 24 * attended + attended + layer.experts * kernel
        assert counts.flops - 3 * 48 * 100 == 48 * 24 + 24 * attended + (mixing + pixels) * kernel


@pytest.mark.parametrize(("experts", "millions"), rest_slow([(1, 11.94), (4, 44.90)], (4, 44.90)))
def test_a_resnet_has_as_many_parameters_as_the_authors_say(experts: int, millions: float) -> None:
    """https://github.com/OSVAI/ODConv, README.md: ResNet18, all 3x3 convolutions of the blocks."""
    done = convert(models.resnet18(weights=None), "odconv", where=r"layer\d.*\.conv", experts=experts)
    layers = [module for module in done.model.modules() if isinstance(module, ODConv2d)]
    assert len(layers) == 16
    # Their fc1 has a normalisation in place of its bias: two numbers a feature for one.
    added = sum(layer.fc1.out_features for layer in layers)
    found = sum(p.numel() for p in done.model.parameters()) + added
    assert round(found / 1e6, 2) == millions


def test_with_attention_of_one_half_it_is_dynamic_convolution_of_an_eighth() -> None:
    torch.manual_seed(0)
    ours, dynamic = ODConv2d(6, 4, 3, experts=4), DynamicConv2d(6, 4, 3, experts=4)
    for linear in (ours.fc2, dynamic.fc2):
        linear.weight.data.zero_()
    dynamic.weight.data = ours.weight.data / 8  # channels, filters and positions
    x = torch.randn(3, 6, 5, 5)
    torch.testing.assert_close(ours(x), dynamic(x))


@pytest.mark.parametrize("experts", [1, 8])
@pytest.mark.parametrize("temperature", [0.1, 1, 30.0])
@pytest.mark.parametrize("axes", [{"kernel_size": 3}, {"kernel_size": 1}, {"kernel_size": 3, "groups": 64}])
def test_it_starts_like_a_plain_convolution(axes: dict[str, int], experts: int, temperature: float) -> None:
    torch.manual_seed(0)
    layer = ODConv2d(64, 64, **axes, experts=experts, temperature=temperature).requires_grad_(False)
    x = torch.randn(4, 64, 8, 8) + torch.randn(4, 64, 1, 1)
    channels, filters, positions, weights = layer.attentions(x)
    for halves in (channels, filters, positions):
        assert halves is None or float((halves - 0.5).abs().max()) < 0.15
    if weights is not None:
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
    kernel = torch.randn(layer.kernel_shape) * (2 / layer.fan_in) ** 0.5
    plain = functional.conv2d(x, kernel, padding=layer.padding, groups=layer.groups)
    assert float(layer(x).std() / plain.std()) == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": 0}, "experts is '0'"),
        ({"reduction": 0}, "reduction is '0'"),
        ({"temperature": 0}, "temperature is '0'"),
        ({"temperature": float("nan")}, "temperature is 'nan'"),
        ({"groups": 3}, "groups = 3.*in_channels = 4"),
        ({"kernel_size": 2}, r"kernel_size = \(2, 2\)"),
        ({"padding": -1}, "padding is '-1'"),
    ],
)
def test_refused_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        ODConv2d(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | changes))
    assert "\n" not in str(error.value)
