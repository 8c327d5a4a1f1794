"""The kernel formulation: each image's kernel is generated, then applied, a few images at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from wnexplore.nn.formulations.generate import generate_by_group, generate_kernels, generate_published
from wnexplore.nn.formulations.im2col import MAX_COLUMNS, columns_of
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.published import convolve_folded
from wnexplore.nn.formulations.tiled_product import Product
from wnexplore.nn.formulations.tiles import chunk_size

SMALL_BYTES = 2**24
"""Bytes of a batch's kernels up to which neither tiling nor recomputing them for backward pays."""

CHUNK_BYTES = 2**24
"""Bytes of kernels folded into the groups of one convolution."""

FOLDED_BYTES = 6 * 2**20
"""Bytes of their outputs: a convolution reorders larger ones in buffers that are cleared for each call."""

WORTH_SLICING = 96
"""Input channels of a slice from which one product per slice costs less than concatenating slices."""


def kernel(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None = None
) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), any layer.

    A 1x1 kernel is applied as a matrix, and a large kernel to a small image as a matrix to its columns
    (im2col), which cost less than reordering the kernel. Other kernels are applied with a chunk of images
    folded into the groups of one convolution.
    """
    if torch.compiler.is_compiling():
        return _traced(x, alpha, weight, layer, shift)
    if x.device.type != "cpu" and not needs_gradient(x, alpha, weight, shift):
        return _in_few_calls(x, alpha, weight, layer, shift)
    if layer.pointwise and x.shape[0] * layer.weights * x.element_size() <= SMALL_BYTES:
        return _multiplied(x, alpha, weight, layer, shift)
    if layer.pointwise or _has_few_columns(x, layer):
        y: Tensor = Product.apply(x, alpha, weight, layer, shift)
        return y
    at_once = needs_gradient(x, alpha, weight, shift) or x.device.type != "cpu"
    height, width = x.shape[2:]
    images = len(x) if at_once else _images_at_a_time(layer, len(x), height, width, x.element_size())
    if images >= len(x):
        return _folded(x, alpha, weight, layer, shift)
    y = x.new_empty(len(x), layer.out_channels, *layer.output_size(*x.shape[2:]))
    for chunk, vectors, to in zip(x.split(images), alpha.split(images), y.split(images), strict=True):
        to.copy_(_folded(chunk, vectors, weight, layer, shift))
    return y


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether anything computed from `tensors` needs a gradient."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def in_parts(x: Tensor, parts: int, dim: int) -> tuple[Tensor, ...]:
    """`x.chunk(parts, dim)`, whose gradient would be copied for a single part too."""
    return (x,) if parts == 1 else x.chunk(parts, dim)


def fits_at_once(layer: LayerShape, batch: int, height: int, width: int, element_bytes: int) -> bool:
    """Whether all images of a batch are folded into one convolution on a CPU."""
    return _images_at_a_time(layer, batch, height, width, element_bytes) >= batch


def _images_at_a_time(layer: LayerShape, batch: int, height: int, width: int, element_bytes: int) -> int:
    """Images folded into one convolution."""
    rows, columns = layer.output_size(height, width)
    outputs = layer.out_channels * rows * columns * element_bytes
    kernels = layer.weights * element_bytes
    return chunk_size(batch, min(CHUNK_BYTES // kernels, FOLDED_BYTES // max(1, outputs)))


def _has_few_columns(x: Tensor, layer: LayerShape) -> bool:
    if layer.groups > 1:
        return False
    height, width = layer.output_size(*x.shape[2:])
    return height * width <= MAX_COLUMNS


def _multiplied(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None) -> Tensor:
    """All kernels at once, as matrices times pixels."""
    matrices = _matrices(alpha, weight, layer)
    pixels = in_parts(columns_of(x, layer), len(matrices), 1)
    height, width = layer.output_size(*x.shape[2:])
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        offset = None if shift is None else shift.view(-1, 1)
        y = _products(list(zip(matrices, pixels, strict=True)), offset)
        return y.view(-1, layer.out_channels, height, width)
    turned = [(column.mT, matrix.mT) for matrix, column in zip(matrices, pixels, strict=True)]
    return _products(turned, shift).view(-1, height, width, layer.out_channels).permute(0, 3, 1, 2)


def _matrices(alpha: Tensor, weight: Tensor, layer: LayerShape) -> list[Tensor]:
    """The slices of the kernels, (N, C_out, C_in/slices), or all in one where that is as fast."""
    slices = layer.slices or 0
    if is_joined(layer):
        kernels = generate_kernels(alpha, weight, layer.generator_groups)
        return [kernels.reshape(-1, *layer.kernel_shape[:2])]
    made = generate_by_group(alpha, weight, layer.generator_groups)
    by_slice = made.unflatten(0, (layer.out_channels, slices))
    return [part.transpose(0, 1) for part in by_slice.unbind(1)]


def is_joined(layer: LayerShape) -> bool:
    """Whether a 1x1 kernel is one matrix, not one for each slice."""
    slices = layer.slices or 0
    if layer.inputs_per_group == 1 or slices * layer.out_channels != layer.generator_groups:
        return True
    # Kernels are generated grouped; concatenating the groups is a copy.
    return slices > 1 and layer.in_channels < slices * WORTH_SLICING


def _products(pairs: list[tuple[Tensor, Tensor]], shift: Tensor | None) -> Tensor:
    (first, second), *rest = pairs
    y = torch.bmm(first, second) if shift is None else torch.baddbmm(shift, first, second)
    for a, b in rest:
        y = y.baddbmm_(a, b)
    return y


def _in_few_calls(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None
) -> Tensor:
    """One operator for all kernels and one for all outputs: a GPU waits for launches."""
    make = generate_kernels if layer.inputs_per_group == 1 else generate_published
    kernels = make(alpha, weight, layer.generator_groups)
    if not layer.pointwise or layer.stride != (1, 1):
        return convolve_folded(x, kernels, layer, shift)
    matrices = kernels.view(-1, layer.out_channels, layer.in_channels)
    channels_last = not x.is_contiguous() and x.stride(1) == 1
    if channels_last:
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        y = _products([(pixels, matrices.mT)], shift)
        return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
    y = _products([(matrices, x.flatten(2))], None if shift is None else shift.view(-1, 1))
    return y.view(len(x), -1, *x.shape[2:])


def _folded(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None) -> Tensor:
    return convolve_folded(x, generate_kernels(alpha, weight, layer.generator_groups), layer, shift)


def _traced(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None) -> Tensor:
    """One product per image and group, with neither a loop over the batch nor groups per image."""
    height, width = layer.output_size(*x.shape[2:])
    kernels = generate_kernels(alpha, weight, layer.generator_groups)
    matrices = kernels.reshape(-1, layer.out_channels // layer.groups, layer.fan_in)
    columns = columns_of(x, layer).reshape(-1, layer.fan_in, height * width)
    y = torch.bmm(matrices, columns).view(-1, layer.out_channels, height, width)
    return y if shift is None else y + shift.view(-1, 1, 1)
