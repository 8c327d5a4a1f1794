"""Dynamic convolution: beside a convolution of one image after another, where it starts, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.examples import examples
from wnexplore.errors import InputError
from wnexplore.nn import CondConv2d
from wnexplore.nn.dynamic import DynamicConv2d

DOUBLE = torch.float64


@st.composite
def dynamics(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a DynamicConv2d: grouped, strided, dilated, not square."""
    groups = draw(st.integers(1, 3))
    return {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 3)])),
        "stride": draw(st.sampled_from([1, 2, (1, 2)])),
        "padding": draw(st.sampled_from([(2, 1), (3, 0)])),
        "dilation": draw(st.sampled_from([1, 2, (2, 1)])),
        "groups": groups,
        "experts": draw(st.integers(2, 5)),
        "temperature": draw(st.sampled_from([0.5, 1, 30.0])),
    }


def convolved_one_by_one(layer: DynamicConv2d, x: Tensor) -> Tensor:
    outputs = []
    for image in x:
        means = torch.stack([channel.sum() / channel.numel() for channel in image])
        hidden = (layer.fc1.weight @ means + layer.fc1.bias).clamp(min=0)
        powers = torch.exp((layer.fc2.weight @ hidden + layer.fc2.bias) / layer.temperature)
        attention = powers / powers.sum()
        kernel = sum((a * expert for a, expert in zip(attention, layer.weight, strict=True)), torch.zeros(()))
        outputs.append(
            functional.conv2d(image, kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        )
    return torch.stack(outputs)


@given(dynamics(), st.integers(1, 3), st.integers(0, 2**16))
@examples(40)
def test_each_image_is_convolved_with_its_own_mixture(axes: dict[str, Any], batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = DynamicConv2d(**axes).double()
    # Attention that is far from uniform at any temperature.
    nn.init.normal_(layer.fc2.weight, std=layer.temperature)
    layer.fc2.bias.data += layer.temperature * torch.randn(layer.experts)
    x = torch.randn(batch, layer.in_channels, 7, 9, dtype=DOUBLE, requires_grad=True)
    y, expected = layer(x), convolved_one_by_one(layer, x)
    assert (y - expected).norm() <= 1e-12 * expected.norm()

    variables = [x, *layer.parameters()]
    slope = torch.randn_like(y)
    found = torch.autograd.grad(y, variables, slope)
    for ours, theirs in zip(found, torch.autograd.grad(expected, variables, slope), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_parameters() -> None:
    layer = DynamicConv2d(64, 24, (3, 1), groups=2, experts=5, reduction=2)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "fc1.weight": (32, 64),
        "fc1.bias": (32,),
        "fc2.weight": (5, 32),
        "fc2.bias": (5,),
        "weight": (5, 24, 32, 3, 1),
    }


def test_with_uniform_attention_it_is_condconv_with_routing_weights_of_one_half() -> None:
    torch.manual_seed(0)
    dynamic, condconv = DynamicConv2d(6, 4, 3, experts=4), CondConv2d(6, 4, 3, experts=4)
    for linear in (dynamic.fc2, condconv.routing):
        linear.weight.data.zero_()
    condconv.weight.data = dynamic.weight.data / 2  # 1/4 of one is 1/2 of the other
    x = torch.randn(3, 6, 5, 5)
    torch.testing.assert_close(dynamic(x), condconv(x))


@pytest.mark.parametrize("experts", [1, 8])
@pytest.mark.parametrize("temperature", [0.1, 1, 30.0])
def test_kernels_start_like_those_of_a_plain_convolution(experts: int, temperature: float) -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(64, 64, 3, experts=experts, temperature=temperature)
    x = torch.randn(4, 64, 8, 8) + torch.randn(4, 64, 1, 1)
    kernels = layer.kernels(x).detach()
    assert float(kernels.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    attention = layer.activations(x, None).detach()
    assert float((attention * experts - 1).abs().max()) < 0.5
    torch.testing.assert_close(attention.sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": 0}, "experts is '0'"),
        ({"reduction": 0}, "reduction is '0'"),
        ({"temperature": 0}, "temperature is '0'"),
        ({"temperature": float("nan")}, "temperature is 'nan'"),
        ({"temperature": float("inf")}, "temperature is 'inf'"),
        ({"temperature": True}, "temperature is 'True'"),
        ({"temperature": "30"}, "temperature is '30'"),
        ({"groups": 3}, "groups = 3.*in_channels = 4"),
        ({"formulation": "kernal"}, "'kernal'.*'kernel'"),
    ],
)
def test_refused_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        DynamicConv2d(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | changes))
    assert "\n" not in str(error.value)


def test_it_makes_its_own_context() -> None:
    with pytest.raises(InputError, match="context"):
        DynamicConv2d(4, 4, 3)(torch.randn(2, 4, 5, 5), torch.randn(2, 16))
