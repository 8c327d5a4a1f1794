"""The two pure functions, against loops over every number and against fvcore's counter."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wnexplore.nn import CondConv2d, WeightNetConv2d, conv2d_per_sample, generate_kernels


@st.composite
def generators(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(N, C_out, F, P, lambda) where P divides C_out·F: parts of filters, filters, several filters."""
    out_channels, fan_in = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    total = out_channels * fan_in
    groups = draw(st.sampled_from([p for p in range(1, total + 1) if total % p == 0]))
    return draw(st.integers(1, 3)), out_channels, fan_in, groups, draw(st.integers(1, 4))


@given(generators(), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_kernels_equal_the_formula(sizes: tuple[int, int, int, int, int], seed: int) -> None:
    batch, out_channels, fan_in, groups, per_group = sizes
    torch.manual_seed(seed)
    alpha = torch.randn(batch, groups * per_group, dtype=torch.float64)
    weight = torch.randn(out_channels * fan_in, per_group, dtype=torch.float64)
    expected = torch.zeros(batch, out_channels * fan_in, dtype=torch.float64)
    for n in range(batch):
        for o in range(out_channels):
            for f in range(fan_in):
                row = o * fan_in + f
                p = row // (out_channels * fan_in // groups)
                for j in range(per_group):
                    expected[n, row] += weight[row, j] * alpha[n, p * per_group + j]
    assert relative_error(generate_kernels(alpha, weight, groups), expected) < 1e-12


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, object]:
    groups = draw(st.integers(1, 3))
    per_group_in, per_group_out = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    return {
        "batch": draw(st.integers(1, 3)),
        "into": groups * per_group_in,
        "out": groups * per_group_out,
        "kernel": draw(pairs),
        "stride": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "groups": groups,
    }


@given(convolutions(), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_convolution_equals_loops(sizes: dict[str, object], seed: int) -> None:
    check_convolution(seed=seed, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_1x1_convolution_equals_loops(batch: int, stride: tuple[int, int]) -> None:
    check_convolution(batch, 3, 4, (1, 1), stride, (0, 0), (1, 1), 1, seed=0)


def check_convolution(
    batch: int,
    into: int,
    out: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(batch, into, 6, 5, dtype=torch.float64)
    kernels = torch.randn(batch, out, into // groups, *kernel, dtype=torch.float64)
    expected = loops(x, kernels, stride, padding, dilation, groups)
    y = conv2d_per_sample(x, kernels, stride, padding, dilation, groups)
    assert y.shape == expected.shape
    assert relative_error(y, expected) < 1e-12


def loops(
    x: Tensor,
    kernels: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """A convolution as its definition has it, one sample, filter, and input number after another."""
    batch, _, height, width = x.shape
    _, out, per_group, kh, kw = kernels.shape
    rows = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    padded = torch.zeros(batch, x.shape[1], height + 2 * padding[0], width + 2 * padding[1], dtype=x.dtype)
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    y = torch.zeros(batch, out, rows, columns, dtype=x.dtype)
    for n in range(batch):
        for o in range(out):
            group = o // (out // groups)
            for i in range(per_group):
                for a in range(kh):
                    for b in range(kw):
                        top, left = a * dilation[0], b * dilation[1]
                        seen = padded[n, group * per_group + i, top:, left:][:: stride[0], :: stride[1]]
                        y[n, o] += kernels[n, o, i, a, b] * seen[:rows, :columns]
    return y


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm().clamp_min(1e-300))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("layer", "generator"),
    [
        (WeightNetConv2d(8, 6, 3, M=4, G=2, context_features=5), 5 * 24 + 2 * 6 * 72),
        (WeightNetConv2d(8, 6, 1, M=2, G=2, context_features=5), 5 * 12 + 6 * 8),
        (WeightNetConv2d(8, 6, 1, stride=2, M=2, G=1, context_features=5), 5 * 12 + 2 * 6 * 8),
        (WeightNetConv2d(6, 6, 3, groups=6, M=1, G=1, context_features=5), 5 * 6 + 6 * 9),
        (WeightNetConv2d(8, 6, 3, M="1/2", G="1/6", context_features=5), 5 * 3 + 3 * 6 * 72),
        (CondConv2d(8, 6, 3, experts=3, context_features=5), 5 * 3 + 3 * 6 * 72),
    ],
)
def test_fvcore_counts_every_multiply_add_once_per_image(
    layer: WeightNetConv2d | CondConv2d, generator: int, batch: int
) -> None:
    x = torch.randn(batch, layer.in_channels, 8, 8)
    out = 8 // layer.stride[0]
    convolution = layer.out_channels * layer.fan_in * out * out
    counter = FlopCountAnalysis(layer, (x, torch.randn(batch, 5)))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert counter.total() == batch * (generator + convolution)
