"""The fused formulation of 1x1 layers: each tile of a kernel is made inside the matrix product, never stored.

Source: Ma et al., WeightNet, ECCV 2020, section 3, for the generator. With F = C_in and
p = (o·F + f) // (C_out·F / P):

    W[n, o, f] = sum_j weight[o·F + f, j] · alpha[n, p·lambda + j]        y[n] = W[n] @ x[n]

A filter is cut into slices of gcd(F, C_out·F / P) input channels. Each lies in one group of the generator,
whatever P is: a tile of a kernel inside a slice needs lambda activations per filter instead of a stored
element.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wnexplore.errors import InputError
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.triton_probe import works
from wnexplore.nn.precision import convolutions_use_tf32, is_cast

try:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
    from triton.language import constexpr, tensor
except ImportError:
    triton = tl = None


def fused_conv1x1(x: Tensor, alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    """x (N, C_in, H, W) -> (N, C_out, H, W), each image with its own kernel, at stride 1.

    `alpha` is (N, P·lambda), `weight` (C_out·C_in, lambda), `groups` P, any divisor of C_out·C_in. Each may
    be float32, bfloat16 or float16, independently of the others, and gets a gradient of its dtype; the output
    has the dtype and the memory format of `x`. Kernels are made in float32 and applied in the dtype of `x`,
    sums are float32; float32 products use TF32 where cuDNN's convolutions do (`convolutions_use_tf32`). Under
    autocast `x` is cast as a convolution casts it. Any strides are supported: `x` is copied only where its
    pixels are not evenly spaced, such as x[:, :, ::2, ::2]. The gradients are deterministic; second
    derivatives are not available.

    Raises `InputError` for wrong shapes and dtypes, for 2**31 elements or more per image or weight, and where
    `is_available` says no or the tensors are on another device.
    """
    if is_cast(x.device.type) and x.is_floating_point():
        x = x.to(torch.get_autocast_dtype(x.device.type))
    _check(x, alpha, weight, groups)
    channels_last = not x.is_contiguous() and x.stride(1) == 1
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2).mT if channels_last else x.flatten(2)
    y: Tensor = _product(pixels, alpha, weight, groups, channels_last).unflatten(2, x.shape[2:])
    return y


def is_available() -> bool:
    """Whether Triton's interpreter is on, or Triton compiles for the GPU here: tried once, see `works`."""
    return _INTERPRETED or works()


def fuses(layer: LayerShape) -> bool:
    """Whether kernels of `layer` fit into registers: of a 1x1 layer, lambda at most 8, slices of 16."""
    slice_size = math.gcd(layer.in_channels, layer.outputs_per_group)
    return layer.pointwise and layer.inputs_per_group <= MAX_TERMS and slice_size >= MIN_SLICE


MAX_TERMS = 8
"""Largest lambda: beyond, registers spill, up to 13.8 kB per thread."""
MIN_SLICE = 16
"""Fewest input channels of a slice: below the smallest size of `tl.dot` it would be mostly padding."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _check(x: Tensor, alpha: Tensor, weight: Tensor, groups: int) -> None:
    for name, tensor in (("x", x), ("alpha", alpha), ("weight", weight)):
        if tensor.dtype not in DTYPES:
            raise InputError(f"{name} is {tensor.dtype}: expected float32, bfloat16 or float16")
        if tensor.device != x.device:
            raise InputError(f"{name} is on {tensor.device}, x on {x.device}")
    if x.dim() != 4:
        raise InputError(f"x has shape {tuple(x.shape)}: expected (N, C_in, H, W)")
    if weight.dim() != 2 or weight.shape[0] % x.shape[1] or weight.shape[0] % groups:
        expected = f"({x.shape[1]}·C_out, lambda) in {groups} groups"
        raise InputError(f"weight has shape {tuple(weight.shape)}: expected {expected}")
    if alpha.shape != (vectors := (x.shape[0], groups * weight.shape[1])):
        raise InputError(f"alpha has shape {tuple(alpha.shape)}: expected {vectors}")
    largest = max(x.shape[1], weight.shape[0] // x.shape[1]) * x.shape[2] * x.shape[3]
    if largest >= _MAX or weight.numel() >= _MAX:
        raise InputError("formulation 'fused' is for images and weights of fewer than 2**31 numbers")
    if triton is None:
        raise InputError("formulation 'fused' needs Triton, which can't be imported")
    if not x.is_cuda and not _INTERPRETED:
        raise InputError(f"x is on {x.device}: formulation 'fused' needs a CUDA GPU")


_MAX = 2**31
"""Elements that 32-bit offsets can address."""


class _Sizes(NamedTuple):
    images: int
    pixels: int
    out_channels: int
    fan_in: int
    terms: int
    """lambda, the generator's inputs per group."""
    per_group: int
    """C_out·F / P, the kernel elements that one group of the generator makes."""
    slice_size: int
    """Input channels of a filter that lie in one group, or a divisor of these."""

    @property
    def slices(self) -> int:
        return self.fan_in // self.slice_size


def _sizes(pixels: Tensor, fan_in: int, weight: Tensor, groups: int) -> _Sizes:
    rows, terms = weight.shape
    per_group = rows // groups
    slice_size = math.gcd(fan_in, per_group)
    return _Sizes(pixels.shape[0], pixels.shape[2], rows // fan_in, fan_in, terms, per_group, slice_size)


@torch.library.custom_op(
    "wnexplore::fused_conv1x1",
    mutates_args=(),
    schema="(Tensor x, Tensor alpha, Tensor weight, SymInt groups, bool channels_last) -> Tensor",
)
def _product(x: Tensor, alpha: Tensor, weight: Tensor, groups: int, channels_last: bool) -> Tensor:
    """x (N, C_in, L) -> (N, C_out, L), a pixel's channels adjacent if `channels_last`."""
    sizes = _sizes(x, x.shape[1], weight, groups)
    y = _empty(x, sizes.out_channels, channels_last)
    block_l = _block(sizes.pixels, 64 if sizes.pixels <= 256 else 128)
    column_tiles = _tiles(sizes.pixels, block_l) * sizes.images
    block_o = _filled(sizes.out_channels, column_tiles)
    with torch.cuda.device_of(x):
        _product_kernel[(_tiles(sizes.out_channels, block_o) * column_tiles,)](
            *(y, x, alpha, weight),
            *sizes[1:4],
            *sizes[5:],
            *y.stride(),
            *x.stride(),
            *alpha.stride(),
            *weight.stride(),
            TERMS=sizes.terms,
            BLOCK_O=block_o,
            BLOCK_F=_inner(x, sizes.slice_size),
            BLOCK_L=block_l,
            **_options(x, sizes.terms, 4 if block_l <= 64 else 8),
        )
    return y


@_product.register_fake
def _(x: Tensor, alpha: Tensor, weight: Tensor, groups: int, channels_last: bool) -> Tensor:
    return _empty(x, weight.shape[0] // x.shape[1], channels_last)


@torch.library.custom_op(
    "wnexplore::fused_conv1x1_input_gradient",
    mutates_args=(),
    schema="(Tensor grad, Tensor alpha, Tensor weight, SymInt fan_in, SymInt groups, bool channels_last)"
    " -> Tensor",
)
def _input_gradient(
    grad: Tensor, alpha: Tensor, weight: Tensor, fan_in: int, groups: int, channels_last: bool
) -> Tensor:
    """Gradient (N, C_out, L) of the output -> that of x (N, C_in, L), by the kernels transposed."""
    sizes = _sizes(grad, fan_in, weight, groups)
    of_x = _empty(grad, fan_in, channels_last)
    block_l = _block(sizes.pixels, 64 if sizes.pixels <= 256 else 128)
    column_tiles = _tiles(sizes.pixels, block_l) * sizes.images
    block_f = _filled(sizes.slice_size, column_tiles * sizes.slices)
    row_tiles = sizes.slices * _tiles(sizes.slice_size, block_f)
    with torch.cuda.device_of(grad):
        _input_gradient_kernel[(row_tiles * column_tiles,)](
            *(of_x, grad, alpha, weight),
            *sizes[1:4],
            *sizes[5:],
            *of_x.stride(),
            *grad.stride(),
            *alpha.stride(),
            *weight.stride(),
            TERMS=sizes.terms,
            BLOCK_O=_inner(grad, sizes.out_channels),
            BLOCK_F=block_f,
            BLOCK_L=block_l,
            **_options(grad, sizes.terms, 4 if block_l <= 64 else 8),
        )
    return of_x


@_input_gradient.register_fake
def _(grad: Tensor, alpha: Tensor, weight: Tensor, fan_in: int, groups: int, channels_last: bool) -> Tensor:
    return _empty(grad, fan_in, channels_last)


@torch.library.custom_op(
    "wnexplore::fused_conv1x1_generator_gradients",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor alpha, Tensor weight, SymInt groups) -> (Tensor, Tensor)",
)
def _generator_gradients(
    grad: Tensor, x: Tensor, alpha: Tensor, weight: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Gradient (N, C_out, L) of the output -> those of alpha and weight.

    Each program handles one tile of the kernels for some of the images, one image after another. The partial
    sums are added afterwards in a fixed order.
    """
    sizes = _sizes(x, x.shape[1], weight, groups)
    block_j = 1 << (min(sizes.terms, 8) - 1).bit_length()
    largest = 64 if block_j <= 2 else 32
    block_o, block_f = _block(sizes.out_channels, largest), _block(sizes.slice_size, largest)
    slice_tiles = _tiles(sizes.slice_size, block_f)
    kernel_tiles = _tiles(sizes.out_channels, block_o) * sizes.slices * slice_tiles
    term_tiles = _tiles(sizes.terms, block_j)
    images_each = max(1, sizes.images * kernel_tiles * term_tiles // (2 * _PROGRAMS))
    parts = _tiles(sizes.images, images_each)
    of_alpha = x.new_empty(
        (sizes.images, slice_tiles, sizes.out_channels, sizes.slices, sizes.terms), dtype=torch.float32
    )
    of_weight = x.new_empty((parts, *weight.shape), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _generator_gradients_kernel[(kernel_tiles, term_tiles, parts)](
            *(of_alpha, of_weight, grad, x, alpha, weight),
            *(sizes.images, images_each),
            *sizes[1:],
            *grad.stride(),
            *x.stride(),
            *alpha.stride(),
            *weight.stride(),
            BLOCK_O=block_o,
            BLOCK_F=block_f,
            BLOCK_L=_block(sizes.pixels, 16 if x.dtype == torch.float32 else 64),
            BLOCK_J=block_j,
            **_options(x, 1, 8),
        )
    per_group = sizes.out_channels * sizes.slices // groups
    of_groups = of_alpha.view(sizes.images, slice_tiles, groups, per_group, sizes.terms)
    return (
        of_groups.sum((1, 3)).flatten(1).to(alpha.dtype),
        of_weight.sum(0).to(weight.dtype),
    )


@_generator_gradients.register_fake
def _(grad: Tensor, x: Tensor, alpha: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    return alpha.new_empty(alpha.shape), weight.new_empty(weight.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.groups, ctx.channels_last = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, alpha, weight = ctx.saved_tensors
    needs_x, needs_alpha, needs_weight, *_ = ctx.needs_input_grad
    of_x = of_alpha = of_weight = None
    if needs_x:
        of_x = _input_gradient(grad, alpha, weight, x.shape[1], ctx.groups, ctx.channels_last)
    if needs_alpha or needs_weight:
        of_alpha, of_weight = _generator_gradients(grad, x, alpha, weight, ctx.groups)
    return of_x, of_alpha if needs_alpha else None, of_weight if needs_weight else None, None, None


_product.register_autograd(_backward, setup_context=_save_for_backward)


def _empty(like: Tensor, channels: int, channels_last: bool) -> Tensor:
    """(N, channels, L) for `like` (N, C, L)."""
    images, _, pixels = like.shape
    if channels_last:
        return like.new_empty((images, pixels, channels)).mT
    return like.new_empty((images, channels, pixels))


_PROGRAMS = 128
"""Programs that keep a GPU busy."""


def _block(size: int, largest: int) -> int:
    """The smallest power of two that covers `size`, between the smallest size of `tl.dot` and `largest`."""
    return max(16, min(largest, 1 << (size - 1).bit_length()))


def _filled(size: int, others: int) -> int:
    """The block size of a product's rows: smaller where the `others` alone leave a GPU idle."""
    block = _block(size, 64)
    while block > 16 and _tiles(size, block) * others < _PROGRAMS:
        block //= 2
    return block


def _inner(x: Tensor, size: int) -> int:
    # Float32 products keep a full row of a tile in registers.
    return _block(size, 16 if x.dtype == torch.float32 else 32)


def _tiles(size: int, block: int) -> int:
    return -(-size // block)


def _options(x: Tensor, loads: int, warps: int) -> dict[str, Any]:
    """Compile options of every kernel; a step of its loop loads `loads` tiles of weights."""
    return {
        "PRECISION": "tf32" if convolutions_use_tf32() else "ieee",
        "WIDEN": _INTERPRETED,
        "num_warps": warps,
        "num_stages": 3 if loads <= 2 else 2 if loads <= 4 else 1,
    }


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _kernel_tile(
    alpha: tensor,
    weight: tensor,
    o: tensor,
    f: tensor,
    group: tensor,
    inside_o: tensor,
    inside_f: tensor,
    fan_in: tensor,
    alpha_step: tensor,
    weight_row: tensor,
    weight_term: tensor,
    TERMS: constexpr,
) -> tensor:
    """A tile of one image's kernel in float32; o, f lie along different axes, group along that of o."""
    rows = (o * fan_in + f) * weight_row
    inside = inside_o & inside_f
    tile = tl.zeros(inside.shape, tl.float32)
    for j in tl.static_range(TERMS):
        scale = tl.load(alpha + (group * TERMS + j) * alpha_step, mask=inside_o, other=0)
        made = tl.load(weight + rows + j * weight_term, mask=inside, other=0)
        tile += scale.to(tl.float32) * made.to(tl.float32)
    return tile


@_jit
def _dot(a: tensor, b: tensor, sums: tensor, PRECISION: constexpr, WIDEN: constexpr) -> tensor:
    # Triton's interpreter would multiply the bits of bfloat16 numbers as integers.
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=PRECISION)


@_jit
def _product_kernel(
    y: tensor,
    x: tensor,
    alpha: tensor,
    weight: tensor,
    pixels: tensor,
    out_channels: tensor,
    fan_in: tensor,
    per_group: tensor,
    slice_size: tensor,
    y_image: tensor,
    y_channel: tensor,
    y_pixel: tensor,
    x_image: tensor,
    x_channel: tensor,
    x_pixel: tensor,
    alpha_image: tensor,
    alpha_step: tensor,
    weight_row: tensor,
    weight_term: tensor,
    TERMS: constexpr,
    BLOCK_O: constexpr,
    BLOCK_F: constexpr,
    BLOCK_L: constexpr,
    PRECISION: constexpr,
    WIDEN: constexpr,
) -> None:
    """One program: a tile (BLOCK_O, BLOCK_L) of one image's output."""
    row_tiles, column_tiles = tl.cdiv(out_channels, BLOCK_O), tl.cdiv(pixels, BLOCK_L)
    program = tl.program_id(0)
    image = (program // (row_tiles * column_tiles)).to(tl.int64)
    o = program % row_tiles * BLOCK_O + tl.arange(0, BLOCK_O)
    pixel = program // row_tiles % column_tiles * BLOCK_L + tl.arange(0, BLOCK_L)
    inside_o, inside_l = o < out_channels, pixel < pixels
    x += image * x_image
    alpha += image * alpha_image
    sums = tl.zeros((BLOCK_O, BLOCK_L), tl.float32)
    slice_tiles = tl.cdiv(slice_size, BLOCK_F)
    for step in range(fan_in // slice_size * slice_tiles):
        first = step // slice_tiles * slice_size
        in_slice = step % slice_tiles * BLOCK_F + tl.arange(0, BLOCK_F)
        f, inside_f = first + in_slice, in_slice < slice_size
        kernel = _kernel_tile(
            alpha,
            weight,
            o[:, None],
            f[None, :],
            ((o * fan_in + first) // per_group)[:, None],
            inside_o[:, None],
            inside_f[None, :],
            fan_in,
            alpha_step,
            weight_row,
            weight_term,
            TERMS,
        )
        columns = tl.load(
            x + f[:, None] * x_channel + pixel[None, :] * x_pixel,
            mask=inside_f[:, None] & inside_l[None, :],
            other=0,
        )
        sums = _dot(kernel.to(columns.dtype), columns, sums, PRECISION, WIDEN)
    tl.store(
        y + image * y_image + o[:, None] * y_channel + pixel[None, :] * y_pixel,
        sums.to(y.dtype.element_ty),
        mask=inside_o[:, None] & inside_l[None, :],
    )


@_jit
def _input_gradient_kernel(
    of_x: tensor,
    grad: tensor,
    alpha: tensor,
    weight: tensor,
    pixels: tensor,
    out_channels: tensor,
    fan_in: tensor,
    per_group: tensor,
    slice_size: tensor,
    of_x_image: tensor,
    of_x_channel: tensor,
    of_x_pixel: tensor,
    grad_image: tensor,
    grad_channel: tensor,
    grad_pixel: tensor,
    alpha_image: tensor,
    alpha_step: tensor,
    weight_row: tensor,
    weight_term: tensor,
    TERMS: constexpr,
    BLOCK_O: constexpr,
    BLOCK_F: constexpr,
    BLOCK_L: constexpr,
    PRECISION: constexpr,
    WIDEN: constexpr,
) -> None:
    """One program: a tile (BLOCK_F, BLOCK_L) of one image's gradient, inside a slice."""
    slice_tiles = tl.cdiv(slice_size, BLOCK_F)
    row_tiles, column_tiles = fan_in // slice_size * slice_tiles, tl.cdiv(pixels, BLOCK_L)
    program = tl.program_id(0)
    image = (program // (row_tiles * column_tiles)).to(tl.int64)
    first = program % row_tiles // slice_tiles * slice_size
    in_slice = program % row_tiles % slice_tiles * BLOCK_F + tl.arange(0, BLOCK_F)
    f, inside_f = first + in_slice, in_slice < slice_size
    pixel = program // row_tiles % column_tiles * BLOCK_L + tl.arange(0, BLOCK_L)
    inside_l = pixel < pixels
    grad += image * grad_image
    alpha += image * alpha_image
    sums = tl.zeros((BLOCK_F, BLOCK_L), tl.float32)
    for step in range(tl.cdiv(out_channels, BLOCK_O)):
        o = step * BLOCK_O + tl.arange(0, BLOCK_O)
        inside_o = o < out_channels
        kernel = _kernel_tile(
            alpha,
            weight,
            o[None, :],
            f[:, None],
            ((o * fan_in + first) // per_group)[None, :],
            inside_o[None, :],
            inside_f[:, None],
            fan_in,
            alpha_step,
            weight_row,
            weight_term,
            TERMS,
        )
        columns = tl.load(
            grad + o[:, None] * grad_channel + pixel[None, :] * grad_pixel,
            mask=inside_o[:, None] & inside_l[None, :],
            other=0,
        )
        sums = _dot(kernel.to(columns.dtype), columns, sums, PRECISION, WIDEN)
    tl.store(
        of_x + image * of_x_image + f[:, None] * of_x_channel + pixel[None, :] * of_x_pixel,
        sums.to(of_x.dtype.element_ty),
        mask=inside_f[:, None] & inside_l[None, :],
    )


@_jit
def _generator_gradients_kernel(
    of_alpha: tensor,
    of_weight: tensor,
    grad: tensor,
    x: tensor,
    alpha: tensor,
    weight: tensor,
    images: tensor,
    images_each: tensor,
    pixels: tensor,
    out_channels: tensor,
    fan_in: tensor,
    terms: tensor,
    per_group: tensor,
    slice_size: tensor,
    grad_image: tensor,
    grad_channel: tensor,
    grad_pixel: tensor,
    x_image: tensor,
    x_channel: tensor,
    x_pixel: tensor,
    alpha_image: tensor,
    alpha_step: tensor,
    weight_row: tensor,
    weight_term: tensor,
    BLOCK_O: constexpr,
    BLOCK_F: constexpr,
    BLOCK_L: constexpr,
    BLOCK_J: constexpr,
    PRECISION: constexpr,
    WIDEN: constexpr,
) -> None:
    """One program: BLOCK_J terms of a tile (BLOCK_O, BLOCK_F) of `images_each` kernels, inside a slice.

    of_alpha (N, tiles of a slice, C_out, slices, lambda) gets the contribution of each tile and image to
    alpha's gradient, of_weight (parts of the batch, C_out·F, lambda) that of each part of the batch to the
    weight's.
    """
    slices, slice_tiles = fan_in // slice_size, tl.cdiv(slice_size, BLOCK_F)
    tile = tl.program_id(0)
    own_slice, own_tile = tile // slice_tiles % slices, tile % slice_tiles
    o = tile // (slices * slice_tiles) * BLOCK_O + tl.arange(0, BLOCK_O)
    in_slice = own_tile * BLOCK_F + tl.arange(0, BLOCK_F)
    f = own_slice * slice_size + in_slice
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    inside_o, inside_f, inside_j = o < out_channels, in_slice < slice_size, j < terms
    inside_oj = inside_o[:, None] & inside_j[None, :]
    inside = inside_oj[:, None, :] & inside_f[None, :, None]

    rows = (o[:, None] * fan_in + f[None, :])[:, :, None]
    own_weight = tl.load(
        weight + rows * weight_row + j[None, None, :] * weight_term, mask=inside, other=0
    ).to(tl.float32)
    inputs = ((o * fan_in + own_slice * slice_size) // per_group * terms)[:, None] + j[None, :]
    outputs = ((own_tile * out_channels + o) * slices + own_slice)[:, None] * terms + j[None, :]

    part = tl.program_id(2).to(tl.int64)
    sums = tl.zeros((BLOCK_O, BLOCK_F, BLOCK_J), tl.float32)
    for step in range(tl.minimum(images_each, images - part * images_each)):
        image = part * images_each + step
        of_kernel = tl.zeros((BLOCK_O, BLOCK_F), tl.float32)
        for start in range(0, pixels, BLOCK_L):
            pixel = start + tl.arange(0, BLOCK_L)
            inside_l = pixel < pixels
            of_outputs = tl.load(
                grad + image * grad_image + o[:, None] * grad_channel + pixel[None, :] * grad_pixel,
                mask=inside_o[:, None] & inside_l[None, :],
                other=0,
            )
            columns = tl.load(
                x + image * x_image + f[None, :] * x_channel + pixel[:, None] * x_pixel,
                mask=inside_f[None, :] & inside_l[:, None],
                other=0,
            )
            of_kernel = _dot(of_outputs, columns, of_kernel, PRECISION, WIDEN)
        scale = tl.load(alpha + image * alpha_image + inputs * alpha_step, mask=inside_oj, other=0)
        sums += of_kernel[:, :, None] * scale.to(tl.float32)[:, None, :]
        of_scale = tl.sum(of_kernel[:, :, None] * own_weight, 1)
        tl.store(
            of_alpha + image * slice_tiles * out_channels * slices * terms + outputs,
            of_scale,
            mask=inside_oj,
        )
    tl.store(
        of_weight + part * out_channels * fan_in * terms + rows * terms + j[None, None, :], sums, mask=inside
    )


_INTERPRETED = triton is not None and not isinstance(_product_kernel, triton.runtime.JITFunction)
"""Whether Triton interprets kernels on the CPU (TRITON_INTERPRET=1)."""
