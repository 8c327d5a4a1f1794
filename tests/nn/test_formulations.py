"""The formulations, against loops over every number, against one another and against fvcore's counter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.examples import examples, rest_slow
from wnexplore.errors import InputError
from wnexplore.nn import CondConv2d, WeightNetConv2d
from wnexplore.nn.formulations import (
    LayerShape,
    apply_generated,
    generate_kernels,
    legal_formulations,
    why_not,
)
from wnexplore.nn.formulations.generate import generate_published
from wnexplore.nn.formulations.single_image import MAX_WINDOWS

DOUBLE = torch.float64


@st.composite
def generators(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(N, C_out, F, P, lambda) where P divides C_out·F: parts of filters, filters, several filters."""
    out_channels, fan_in = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    total = out_channels * fan_in
    groups = draw(st.sampled_from([p for p in range(1, total + 1) if total % p == 0]))
    return draw(st.integers(1, 3)), out_channels, fan_in, groups, draw(st.integers(1, 4))


@given(generators(), st.integers(0, 2**16))
@examples(60)
def test_kernels_equal_the_formula(sizes: tuple[int, int, int, int, int], seed: int) -> None:
    batch, out_channels, fan_in, groups, per_group = sizes
    torch.manual_seed(seed)
    alpha = torch.randn(batch, groups * per_group, dtype=DOUBLE)
    weight = torch.randn(out_channels * fan_in, per_group, dtype=DOUBLE)
    expected = formula(alpha, weight, groups)
    assert relative_error(generate_kernels(alpha, weight, groups), expected) < 1e-12
    assert relative_error(generate_published(alpha, weight, groups), expected) < 1e-12


def formula(alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(N, C_out·F), one number of the kernel after another: design.md, section 2."""
    rows, per_group = weight.shape
    kernels = torch.zeros(alpha.shape[0], rows, dtype=DOUBLE)
    for n in range(alpha.shape[0]):
        for row in range(rows):
            p = row // (rows // groups)
            for j in range(per_group):
                kernels[n, row] += weight[row, j] * alpha[n, p * per_group + j]
    return kernels


@st.composite
def layers(draw: st.DrawFn, max_in: int = 4, max_out: int = 3) -> LayerShape:
    """Any convolution with any generator of its kernels, up to so many channels to a group."""
    groups = draw(st.integers(1, 3))
    per_group_in, per_group_out = draw(st.integers(1, max_in)), draw(st.integers(1, max_out))
    high, wide = draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (2, 3), (3, 1)]))
    total = groups * per_group_out * per_group_in * high * wide
    filters = groups * per_group_out
    # Every third has a group for whole filters or slices: the case of the paper.
    usual = [p for p in (filters, 2 * filters, 4 * filters, 1) if total % p == 0]
    any_divisor = [p for p in range(1, total + 1) if total % p == 0]
    return LayerShape(
        in_channels=groups * per_group_in,
        out_channels=filters,
        kernel_size=(high, wide),
        stride=draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])),
        padding=draw(st.sampled_from([(0, 0), (1, 1), (2, 0)])),
        dilation=draw(st.sampled_from([(1, 1), (2, 1)])),
        groups=groups,
        generator_groups=draw(st.sampled_from(usual) | st.sampled_from(any_divisor)),
        inputs_per_group=draw(st.integers(1, 4)),
    )


def tensors(layer: LayerShape, batch: int, channels_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch, layer.in_channels, 6, 5, dtype=DOUBLE)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    alpha = torch.randn(batch, layer.generator_groups * layer.inputs_per_group, dtype=DOUBLE)
    return x, alpha, torch.randn(layer.weights, layer.inputs_per_group, dtype=DOUBLE)


@given(layers(), st.integers(1, 3), st.integers(0, 2**16), st.booleans(), st.booleans(), st.booleans())
@examples(80)
def test_every_formulation_equals_loops(
    layer: LayerShape, batch: int, seed: int, channels_last: bool, shifted: bool, large: bool
) -> None:
    torch.manual_seed(seed)
    x, alpha, weight = tensors(layer, batch, channels_last)
    shift = torch.randn(layer.out_channels, dtype=DOUBLE) if shifted else None
    expected = loops(x, formula(alpha, weight, layer.generator_groups), layer)
    if shift is not None:
        expected += shift[:, None, None]
    with pytest.MonkeyPatch.context() as patch:
        limits = {"single_image": "SINGLE_NUMBERS", "choose": "SINGLE_NUMBERS", "feature_space": "LARGE"}
        for module, limit in limits.items():
            patch.setattr(module_of(module), limit, 0 if large else 10**6)
        patch.setattr(module_of("single_image"), "TILE_BYTES", 2 * layer.fan_in * 8)
        patch.setattr(module_of("kernel_space"), "CHUNK_BYTES", 2 * layer.weights * 8)
        patch.setattr(module_of("tiles"), "REGISTER", 1)
        patch.setattr(module_of("feature_space"), "PIXELS_OF_ONE_PRODUCT", 10**6 if large else 0)
        if large:
            one_image_at_a_time(patch)
        for name in ("auto", *legal_formulations(layer)):
            y = apply_generated(x, alpha, weight, layer, name, shift)
            assert y.shape == expected.shape
            assert relative_error(y, expected) < 1e-12, name


@given(layers(max_in=1, max_out=1), st.integers(0, 2**16), st.booleans())
@examples(40)
def test_a_depthwise_layer_of_one_image_equals_loops_by_windows_and_by_convolution(
    layer: LayerShape, seed: int, shifted: bool
) -> None:
    torch.manual_seed(seed)
    x, alpha, weight = tensors(layer, 1)
    shift = torch.randn(layer.out_channels, dtype=DOUBLE) if shifted else None
    expected = loops(x, formula(alpha, weight, layer.generator_groups), layer)
    if shift is not None:
        expected += shift[:, None, None]
    for largest in (MAX_WINDOWS, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module_of("single_image"), "MAX_WINDOWS", largest)
            # What runs is decided once for each layer: this is another.
            y = apply_generated(x, alpha, weight, replace(layer), "kernel", shift)
        assert relative_error(y, expected) < 1e-12


@given(
    layers(),
    st.integers(1, 5),
    st.integers(0, 2**16),
    st.booleans(),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@examples(100)
def test_every_formulation_has_the_same_gradients(
    layer: LayerShape,
    batch: int,
    seed: int,
    channels_last: bool,
    tile: tuple[int, int, int],
    by_columns: bool,
    turned: bool,
    one_by_one: bool,
) -> None:
    torch.manual_seed(seed)
    inputs = (*tensors(layer, batch, channels_last), torch.randn(layer.out_channels, dtype=DOUBLE))
    expected = gradients(
        lambda x, alpha, weight, shift: naive(x, alpha, weight, layer) + shift[:, None, None], inputs
    )
    with sizes_set(*tile, max_columns=10**6 if by_columns else 0, turned=turned, one_by_one=one_by_one):
        for name in ("auto", *legal_formulations(layer)):
            found = gradients(
                lambda x, alpha, weight, shift, name=name: apply_generated(
                    x, alpha, weight, layer, name, shift
                ),
                inputs,
            )
            for of, actual, true in zip(("y", "x", "alpha", "weight", "shift"), found, expected, strict=True):
                assert actual.shape == true.shape
                assert relative_error(actual, true) < 1e-11, f"{name}: {of}"


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3)])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_next_layer_may_work_in_place(
    kernel_size: tuple[int, int], groups: int, channels_last: bool
) -> None:
    torch.manual_seed(0)
    padding = (kernel_size[0] // 2, kernel_size[1] // 2)
    layer = LayerShape(4, 4, kernel_size, (1, 1), padding, (1, 1), groups, 4, 2)
    inputs = (*tensors(layer, 3, channels_last), torch.randn(4, dtype=DOUBLE))
    expected = gradients(
        lambda x, a, w, shift: functional.relu(naive(x, a, w, layer) + shift[:, None, None]), inputs
    )
    for name in ("auto", *legal_formulations(layer)):
        found = gradients(
            lambda x, a, w, shift, name=name: functional.relu_(apply_generated(x, a, w, layer, name, shift)),
            inputs,
        )
        for actual, true in zip(found, expected, strict=True):
            assert relative_error(actual, true) < 1e-11, name


@pytest.mark.parametrize("wanted", ["x", "alpha", "weight", "shift"])
@pytest.mark.parametrize("name", ["kernel", "shared"])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3)])
@pytest.mark.parametrize("by_columns", [False, True])
def test_each_gradient_alone(
    wanted: str, name: str, kernel_size: tuple[int, int], by_columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_image_at_a_time(monkeypatch)
    torch.manual_seed(0)
    layer = LayerShape(4, 6, kernel_size, (1, 1), (0, 0), (1, 1), 1, 12, 2)
    x, alpha, weight = tensors(layer, 3)
    shift = torch.randn(6, dtype=DOUBLE)
    leaf = {"x": x, "alpha": alpha, "weight": weight, "shift": shift}[wanted].requires_grad_()
    y = naive(x, alpha, weight, layer) + shift[:, None, None]
    (expected,) = torch.autograd.grad(y.square().sum(), leaf)
    with sizes_set(2, 4, 3, max_columns=10**6 if by_columns else 0, turned=False):
        y = apply_generated(x, alpha, weight, layer, name, shift)
        (found,) = torch.autograd.grad(y.square().sum(), leaf)
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("name", ["kernel", "shared"])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3)])
def test_inference_adds_a_shift_that_is_a_parameter(
    name: str, kernel_size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_image_at_a_time(monkeypatch)
    torch.manual_seed(0)
    layer = LayerShape(4, 6, kernel_size, (1, 1), (0, 0), (1, 1), 1, 12, 2)
    x, alpha, weight = tensors(layer, 3)
    shift = nn.Parameter(torch.randn(6, dtype=DOUBLE))
    expected = naive(x, alpha, weight, layer) + shift.detach()[:, None, None]
    with torch.inference_mode(), sizes_set(2, 4, 3, max_columns=0, turned=False):
        y = apply_generated(x, alpha, weight, layer, name, shift)
    assert relative_error(y, expected) < 1e-12


def one_image_at_a_time(patch: pytest.MonkeyPatch) -> None:
    """In inference, whatever the size of the layer."""
    patch.setattr(module_of("feature_space"), "OUTPUT_BYTES", 0)
    patch.setattr(module_of("feature_space"), "_KERNEL_READS", 0)
    patch.setattr(module_of("kernel_space"), "FOLDED_BYTES", 0)


@contextmanager
def sizes_set(
    images: int, filters: int, numbers: int, max_columns: int, turned: bool, one_by_one: bool = True
) -> Iterator[None]:
    """So many of each to a tile, columns or none, products as they are or turned, of one image or of all, at
    any size of layer.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("tiles.MAX_IMAGES", images),
            ("tiles.WHOLE_BYTES", 0),
            ("tiles.MAX_FILTERS", filters),
            ("tiles.TILE_BYTES", 0),
            ("tiles._MIN_NUMBERS", numbers),
            ("tiles.REGISTER", 1),
            ("kernel_space.SMALL_BYTES", 0),
            ("kernel_space.MAX_COLUMNS", max_columns),
            ("im2col.WORTH_TURNING", 1 if turned else 10**6),
            ("tiled_product._SHORT", 1),
            ("tiled_product._SMALL_PRODUCT", 0 if one_by_one else 10**6),
            ("feature_space.PIXELS_OF_ONE_PRODUCT", 0 if one_by_one else 10**6),
        ):
            patch.setattr(f"wnexplore.nn.formulations.{name}", value)
        yield


def gradients(run: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output, and what it sends back to each input."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y = run(*leaves)
    return (y, *torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(0).sin()))


def naive(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """The kernel of one image after another, by the formula, and its convolution."""
    p = torch.arange(layer.weights) // layer.outputs_per_group
    outputs = []
    for image, vector in zip(x, alpha, strict=True):
        kernels = (weight * vector.view(layer.generator_groups, -1)[p]).sum(1).view(layer.kernel_shape)
        outputs.append(
            functional.conv2d(
                image[None], kernels, None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        )
    return torch.cat(outputs)


def module_of(name: str) -> ModuleType:
    """A module of the formulations: two of them have the name of a function that the package has."""
    return import_module(f"wnexplore.nn.formulations.{name}")


def loops(x: Tensor, kernels: Tensor, layer: LayerShape) -> Tensor:
    """A convolution as its definition has it, one sample, filter, and input number after another."""
    batch, _, height, width = x.shape
    kernels = kernels.view(batch, *layer.kernel_shape)
    _, out, per_group, kh, kw = kernels.shape
    padding, dilation, stride = layer.padding, layer.dilation, layer.stride
    rows = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    padded = torch.zeros(batch, x.shape[1], height + 2 * padding[0], width + 2 * padding[1], dtype=x.dtype)
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    y = torch.zeros(batch, out, rows, columns, dtype=x.dtype)
    for n in range(batch):
        for o in range(out):
            group = o // (out // layer.groups)
            for i in range(per_group):
                for a in range(kh):
                    for b in range(kw):
                        top, left = a * dilation[0], b * dilation[1]
                        seen = padded[n, group * per_group + i, top:, left:][:: stride[0], :: stride[1]]
                        y[n, o] += kernels[n, o, i, a, b] * seen[:rows, :columns]
    return y


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).detach().norm() / expected.norm().clamp_min(1e-300))


SHAPES = {
    "1x1": LayerShape(24, 16, (1, 1), (1, 1), (0, 0), (1, 1), 1, 32, 4),
    "1x1, one input a group": LayerShape(24, 16, (1, 1), (1, 1), (0, 0), (1, 1), 1, 16, 1),
    "3x3": LayerShape(8, 16, (3, 3), (1, 1), (1, 1), (1, 1), 1, 16, 4),
    "3x3 of stride 2": LayerShape(8, 16, (3, 3), (2, 2), (1, 1), (1, 1), 1, 32, 2),
    "depthwise": LayerShape(16, 16, (3, 3), (1, 1), (1, 1), (1, 1), 16, 16, 4),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("groups", "terms"), rest_slow([(2, 4), (2, 1), (4, 2), (1, 4)], (2, 1), (4, 2)))
def test_a_kernel_of_many_tiles_the_last_one_smaller_has_the_same_gradients(
    batch: int, groups: int, terms: int
) -> None:
    # Tiles of 512 filters, at the end 128; of 2048 numbers for an image, a third of it for three.
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    layer = LayerShape(256, 640, (3, 3), **sizes, generator_groups=640 * groups, inputs_per_group=terms)
    inputs = (*tensors(layer, batch), torch.randn(640, dtype=DOUBLE))

    def of(name: str) -> tuple[Tensor, ...]:
        return gradients(lambda x, a, w, shift: apply_generated(x, a, w, layer, name, shift), inputs)

    for actual, true in zip(of("kernel"), of("published"), strict=True):
        assert relative_error(actual, true) < 1e-12


@pytest.mark.parametrize("name", ["1x1", "1x1, one input a group", "3x3", "3x3 of stride 2"])
@pytest.mark.parametrize("at_once", [1, 20, 100])
def test_a_large_batch_of_small_layers_has_the_same_gradients(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = SHAPES[name]
    inputs = (*tensors(layer, 45), torch.randn(16, dtype=DOUBLE))
    monkeypatch.setattr(module_of("kernel_space"), "SMALL_BYTES", 0)
    of_image = layer.fan_in * max(layer.out_channels, math.prod(layer.output_size(*inputs[0].shape[2:]))) * 8
    monkeypatch.setattr(module_of("tiles"), "WHOLE_BYTES", at_once * of_image)

    def of(name: str) -> tuple[Tensor, ...]:
        return gradients(lambda x, a, w, shift: apply_generated(x, a, w, layer, name, shift), inputs)

    for actual, true in zip(of("kernel"), of("published"), strict=True):
        assert relative_error(actual, true) < 1e-12


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)]
)
def test_low_precision_stays_within_it(
    name: str, dtype: torch.dtype, tolerance: float, autocast: bool
) -> None:
    layer = SHAPES[name]
    torch.manual_seed(0)
    inputs = tensors(layer, 3)
    expected = gradients(lambda x, alpha, weight: naive(x, alpha, weight, layer), inputs)
    given_dtype = torch.float32 if autocast else dtype
    for formulation in ("auto", *legal_formulations(layer)):

        def run(x: Tensor, alpha: Tensor, weight: Tensor, formulation: str = formulation) -> Tensor:
            with torch.autocast("cpu", dtype, enabled=autocast and dtype != torch.float32):
                return apply_generated(x, alpha, weight, layer, formulation)

        found = gradients(run, tuple(tensor.to(given_dtype) for tensor in inputs))
        assert found[0].dtype == dtype
        for actual, true in zip(found, expected, strict=True):
            assert relative_error(actual.double(), true) < tolerance, formulation


@pytest.mark.parametrize("name", SHAPES)
def test_channels_last_in_channels_last_out_where_no_copy_is_needed(name: str) -> None:
    layer = SHAPES[name]
    x, alpha, weight = tensors(layer, 3, channels_last=True)
    for formulation in legal_formulations(layer):
        y = apply_generated(x, alpha, weight, layer, formulation)
        assert relative_error(y, naive(x, alpha, weight, layer)) < 1e-12
        if layer.pointwise and formulation != "published":
            assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", rest_slow(SHAPES, "1x1", "depthwise"))
@pytest.mark.parametrize(
    "formulation",
    # It chooses each of the others for some of the layers.
    ["auto", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kernel", "shared"))],
)
def test_one_graph_serves_every_batch_size(name: str, formulation: str) -> None:
    layer = SHAPES[name]
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, alpha, weight: apply_generated(x, alpha, weight, layer, formulation),
        fullgraph=True,
        backend="aot_eager",
    )

    def run(x: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
        for tensor in (x, alpha):
            torch._dynamo.mark_dynamic(tensor, 0)
        y: Tensor = compiled(x, alpha, weight)
        return y

    expected, found = [], []
    for batch in (11, 2, 7):
        inputs = tensors(layer, batch)
        with torch.compiler.set_stance("default" if batch == 11 else "fail_on_recompile"):
            found.append(gradients(run, inputs))
        expected.append(gradients(lambda x, alpha, weight: naive(x, alpha, weight, layer), inputs))
    for actual, true in zip(found, expected, strict=True):
        assert all(relative_error(a, b) < 1e-11 for a, b in zip(actual, true, strict=True))


def test_the_domain_of_the_shared_formulation() -> None:
    # Three groups a filter, two input channels: a group would cover part of one.
    layer = LayerShape(2, 4, (3, 1), (1, 1), (1, 0), (1, 1), 1, 12, 2)
    assert legal_formulations(layer) == ("published", "kernel")
    assert "input channels" in str(why_not("shared", layer))
    with pytest.raises(InputError, match="'shared'"):
        WeightNetConv2d(2, 4, (3, 1), M=6, G=3, formulation="shared")
    with pytest.raises(InputError, match=r"'kernels'.*'kernel'"):
        WeightNetConv2d(2, 4, 3, formulation="kernels")


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
def test_fvcore_counts_every_multiply_add_of_the_published_formulation_once_per_image(
    layer: WeightNetConv2d | CondConv2d, generator: int, batch: int
) -> None:
    layer.formulation = "published"
    x = torch.randn(batch, layer.in_channels, 8, 8)
    out = 8 // layer.stride[0]
    convolution = layer.out_channels * layer.fan_in * out * out
    counter = FlopCountAnalysis(layer, (x, torch.randn(batch, 5)))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert counter.total() == batch * (generator + convolution)
