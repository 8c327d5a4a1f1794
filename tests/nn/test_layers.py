"""The layers: what one is to another, gradients, shapes, where they start, what they refuse."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.examples import examples
from wnexplore.design.axes import ACTIVATIONS
from wnexplore.errors import InputError
from wnexplore.nn import CondConv2d, Context, GeneratedConv2d, SqueezeExcite, WeightNetConv2d

DOUBLE = torch.float64


@st.composite
def weightnets(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a legal WeightNetConv2d: grouped, strided, dilated, not square, fractional M and G."""
    groups = draw(st.integers(1, 3))
    into, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 1), (5, 3)]))
    total = out * into // groups * kernel[0] * kernel[1]
    parts = draw(st.sampled_from([p for p in range(1, total + 1) if total % p == 0]))
    return {
        "in_channels": into,
        "out_channels": out,
        "kernel_size": kernel,
        "stride": draw(st.sampled_from([1, 2, (1, 2)])),
        "dilation": draw(st.sampled_from([1, 2, (2, 1)])),
        "groups": groups,
        "M": Fraction(parts * draw(st.integers(1, 3)), out),
        "G": Fraction(parts, out),
        "context_features": draw(st.sampled_from([None, 3])),
    }


@given(weightnets(), st.integers(1, 3), st.integers(0, 2**16))
@examples(50)
def test_weightnet_convolves_each_image_with_the_kernel_of_the_formula(
    axes: dict[str, Any], batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = WeightNetConv2d(**axes).double()
    x = torch.randn(batch, layer.in_channels, 7, 6, dtype=DOUBLE)
    context = None if layer.context_features is None else torch.randn(batch, 3, dtype=DOUBLE)
    y = layer(x, context)
    for n in range(batch):
        vector = context[n] if context is not None else own_context(layer, x[n])
        expected = functional.conv2d(
            x[n : n + 1],
            formula_kernel(layer, vector),
            None,
            layer.stride,
            tuple(d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)),
            layer.dilation,
            layer.groups,
        )
        assert (y[n] - expected[0]).norm() <= 1e-12 * expected.norm()


def own_context(layer: WeightNetConv2d, image: Tensor) -> Tensor:
    assert layer.reduce is not None
    pooled = torch.stack([channel.sum() / channel.numel() for channel in image])
    return layer.reduce.weight @ pooled + layer.reduce.bias


def formula_kernel(layer: WeightNetConv2d, context: Tensor) -> Tensor:
    """W[o, f] = sum_j B[o·F + f, j] · alpha[p·lambda + j], one number after another."""
    alpha = 1 / (1 + torch.exp(-(layer.fc1.weight @ context + layer.fc1.bias)))
    groups = int(layer.G * layer.out_channels)
    per_group = int(layer.M / layer.G)
    rows = []
    for row in range(layer.out_channels * layer.fan_in):
        p = row // (layer.out_channels * layer.fan_in // groups)
        terms = [layer.fc2.weight[row, j] * alpha[p * per_group + j] for j in range(per_group)]
        rows.append(torch.stack(terms).sum())
    return torch.stack(rows).view(layer.kernel_shape)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(4, 4, 3, 1, 4), (4, 6, 1, 2, 1), (4, 2, 3, 2, 2)])
def test_weightnet_gradients(activation: str, sizes: tuple[int, int, int, int, int]) -> None:
    into, out, kernel, stride, groups = sizes
    torch.manual_seed(0)
    layer = WeightNetConv2d(
        into, out, kernel, stride, groups=groups, M=2, G=1, activation=activation, context_features=3
    ).double()
    inputs = (torch.randn(2, into, 4, 3, dtype=DOUBLE), torch.randn(2, 3, dtype=DOUBLE))
    check_gradients(layer, inputs)


def test_condconv_and_squeeze_excite_gradients() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 3, 3, dtype=DOUBLE)
    check_gradients(CondConv2d(2, 2, 3, experts=2).double(), (x,))
    check_gradients(SqueezeExcite(2).double(), (x,))


def check_gradients(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    names = [name for name, _ in layer.named_parameters()]

    def run(*tensors: Tensor) -> Tensor:
        arguments, parameters = tensors[: len(inputs)], tensors[len(inputs) :]
        y: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), arguments)
        return y

    tensors = [t.detach().clone().requires_grad_() for t in (*inputs, *layer.parameters())]
    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("groups", [1, 2])
def test_weightnet_of_one_group_is_condconv(groups: int) -> None:
    torch.manual_seed(0)
    experts, out = 3, 4
    condconv = CondConv2d(6, out, 3, groups=groups, experts=experts, context_features=5).double()
    weightnet = WeightNetConv2d(
        6, out, 3, groups=groups, M=Fraction(experts, out), G=Fraction(1, out), context_features=5
    ).double()
    weightnet.load_state_dict(
        {
            "fc1.weight": condconv.routing.weight,
            "fc1.bias": condconv.routing.bias,
            "fc2.weight": condconv.weight.flatten(1).T,
        }
    )
    x, context = torch.randn(3, 6, 5, 5, dtype=DOUBLE), torch.randn(3, 5, dtype=DOUBLE)
    torch.testing.assert_close(weightnet(x, context), condconv(x, context), rtol=1e-12, atol=1e-12)


def test_weightnet_at_one_and_one_is_a_convolution_whose_outputs_are_scaled() -> None:
    torch.manual_seed(0)
    layer = WeightNetConv2d(4, 6, 3, M=1, G=1, context_features=5).double()
    x, context = torch.randn(3, 4, 5, 5, dtype=DOUBLE), torch.randn(3, 5, dtype=DOUBLE)
    plain = functional.conv2d(x, layer.fc2.weight.view(6, 4, 3, 3), padding=1)
    scale = torch.sigmoid(layer.fc1(context))
    torch.testing.assert_close(layer(x, context), plain * scale[:, :, None, None], rtol=1e-12, atol=1e-12)


def test_softmax_runs_over_the_inputs_of_one_group() -> None:
    layer = WeightNetConv2d(4, 2, 1, M=6, G=2, activation="softmax", context_features=5)
    layer.fc2.weight.data.fill_(1.0)
    kernels = layer.kernels(torch.empty(0), torch.randn(3, 5))
    torch.testing.assert_close(kernels, torch.ones(3, 2, 4, 1, 1))


def test_condconv_routes_from_its_own_input() -> None:
    torch.manual_seed(0)
    layer = CondConv2d(4, 6, 3, experts=2).double()
    x = torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    weights = torch.sigmoid(x.mean((2, 3)) @ layer.routing.weight.T + layer.routing.bias)
    for n in range(2):
        kernel = weights[n, 0] * layer.weight[0] + weights[n, 1] * layer.weight[1]
        expected = functional.conv2d(x[n : n + 1], kernel, padding=1)
        torch.testing.assert_close(layer(x)[n : n + 1], expected, rtol=1e-12, atol=1e-12)


def test_squeeze_excite_scales_channels() -> None:
    torch.manual_seed(0)
    layer = SqueezeExcite(64, reduction=2)
    assert layer.fc1.weight.shape == (32, 64)
    x = torch.randn(2, 64, 3, 3)
    hidden = torch.relu(x.mean((2, 3)) @ layer.fc1.weight.T + layer.fc1.bias)
    scale = torch.sigmoid(hidden @ layer.fc2.weight.T + layer.fc2.bias)
    torch.testing.assert_close(layer(x), torch.einsum("nchw,nc->nchw", x, scale))


@pytest.mark.parametrize("alone", [True, False])
def test_parameters(alone: bool) -> None:
    layer = WeightNetConv2d(64, 24, (3, 1), groups=2, M=4, G=2, context_features=None if alone else 10)
    expected = {"fc1.weight": (96, 16 if alone else 10), "fc1.bias": (96,), "fc2.weight": (24 * 96, 2)}
    if alone:
        expected |= {"reduce.weight": (16, 64), "reduce.bias": (16,)}
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == expected


def test_context_features() -> None:
    assert Context(512, 16).weight.shape == (32, 512)
    assert Context(24, 16).weight.shape == (16, 24)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("M", "G"), [(1, 1), (2, 2), (32, 1), (2, Fraction(1, 64))])
def test_generated_kernels_start_like_those_of_a_plain_convolution(
    M: int, G: Fraction, activation: str
) -> None:
    torch.manual_seed(0)
    layer = WeightNetConv2d(64, 64, 3, M=M, G=G, activation=activation, context_features=16)
    check_start(layer, torch.randn(4, 16))


@pytest.mark.parametrize("experts", [1, 8])
def test_mixed_kernels_start_like_those_of_a_plain_convolution(experts: int) -> None:
    torch.manual_seed(0)
    check_start(CondConv2d(64, 64, 3, experts=experts, context_features=16), torch.randn(4, 16))


def check_start(layer: GeneratedConv2d, context: Tensor) -> None:
    kernels = layer.kernels(torch.empty(0), context)
    assert float(kernels.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    assert all(bool((p == 0).all()) for name, p in layer.named_parameters() if name.endswith("bias"))


def test_the_same_seed_gives_the_same_layer() -> None:
    layers = []
    for _ in range(2):
        torch.manual_seed(3)
        layers.append(WeightNetConv2d(4, 4, 3))
    for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 3}, "groups = 3.*in_channels = 4"),
        ({"in_channels": 0}, "in_channels is '0'"),
        ({"kernel_size": 2}, "even"),
        ({"kernel_size": (3, 0)}, "kernel_size is '0'"),
        ({"kernel_size": "3"}, "kernel_size is '3'"),
        ({"stride": 0}, "stride is '0'"),
        ({"padding": -1}, "padding is '-1'"),
        ({"context_features": 0}, "context_features is '0'"),
        ({"reduction": 0}, "reduction is '0'"),
        ({"M": -1}, "M is '-1'"),
        ({"M": 1, "G": 2}, r"G·C_out = 8\b.*M·C_out = 4\b"),
        ({"activation": "sigmoyd"}, "'sigmoyd'.*'sigmoid'"),
    ],
)
def test_refused_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        WeightNetConv2d(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | changes))
    assert "\n" not in str(error.value)


def test_an_even_kernel_with_padding_is_fine() -> None:
    assert WeightNetConv2d(4, 4, 2, padding=1)(torch.randn(2, 4, 5, 5)).shape == (2, 4, 6, 6)


def test_condconv_and_squeeze_excite_refuse() -> None:
    with pytest.raises(InputError, match="experts is '0'"):
        CondConv2d(4, 4, 3, experts=0)
    with pytest.raises(InputError, match="channels is '0'"):
        SqueezeExcite(0)
    with pytest.raises(InputError, match=r"\(N, 4, H, W\)"):
        SqueezeExcite(4)(torch.randn(2, 3, 5, 5))


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        ((2, 3, 5, 5), (2, 6), r"\bx\b.*\(2, 3, 5, 5\).*\(N, 4, H, W\)"),
        ((4, 5, 5), (2, 6), r"\bx\b.*\(4, 5, 5\)"),
        ((2, 4, 5, 5), None, r"context\b.*\(N, 6\)"),
        ((2, 4, 5, 5), (2, 5), r"context\b.*\(2, 5\).*\(2, 6\)"),
        ((2, 4, 5, 5), (3, 6), r"context\b.*\(3, 6\).*\(2, 6\)"),
    ],
)
def test_refused_inputs(x: tuple[int, ...], context: tuple[int, ...] | None, message: str) -> None:
    layer = WeightNetConv2d(4, 4, 3, context_features=6)
    with pytest.raises(InputError, match=message):
        layer(torch.randn(x), None if context is None else torch.randn(context))


def test_a_layer_that_makes_its_own_context_refuses_another() -> None:
    with pytest.raises(InputError, match="context"):
        WeightNetConv2d(4, 4, 3)(torch.randn(2, 4, 5, 5), torch.randn(2, 16))
