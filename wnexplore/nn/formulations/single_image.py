"""The kernel formulation for a batch of one, in as few calls as possible: they dominate small networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.tiles import REGISTER, Scratch, pieces

Run = Callable[[Tensor, Tensor], Tensor]
"""x (N, C_in, H, W), alpha (N, P·lambda) -> (N, C_out, H_out, W_out), for given weights and image sizes."""

Prepare = Callable[[Tensor, Tensor | None], Run]
"""A `Formulation` specialised to a layer and image size: weight (C_out·F, lambda), shift -> what a pass runs.

What follows from these is computed once. A view of them stays one: it changes with them.
"""

SINGLE_NUMBERS = 2**18
"""Larger kernels are faster in tiles."""

TILE_BYTES = 2**22
"""Bytes of filters that exist at a time: the allocator reuses buffers of this size and clears larger ones."""


def runs_single(layer: LayerShape, device: str) -> bool:
    """Whether `single` supports `layer` in the kernel formulation."""
    return device != "cpu" or layer.weights < SINGLE_NUMBERS or _in_tiles(layer, device)


def single(layer: LayerShape, height: int, width: int, device: str, dtype: torch.dtype) -> Prepare:
    """`layer` for one contiguous image (1, C_in, height, width) without a backward pass."""
    if layer.pointwise and layer.stride == (1, 1):
        return _matrix(layer, height, width)
    if layer.depthwise and device == "cpu" and dtype in _EXACT and _has_few_windows(layer, height, width):
        return _windows(layer, height, width)
    if device == "cpu" and layer.weights >= SINGLE_NUMBERS:
        return _tiled(layer, dtype)
    return _convolution(layer)


def _convolution(layer: LayerShape) -> Prepare:
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        make = _maker(layer, layer.kernel_shape, weight)
        return lambda x, alpha: functional.conv2d(x, make(alpha), shift, *options)

    return prepare


def _maker(layer: LayerShape, shape: tuple[int, ...], weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that generates the kernel, C_out·F elements as `shape`, whose first size is C_out."""
    groups, terms = layer.generator_groups, layer.inputs_per_group
    if terms == 1 and groups == layer.out_channels:
        broadcast, whole = (groups, *(1 for _ in shape[1:])), weight.view(shape)
        return lambda alpha: torch.mul(whole, alpha.view(broadcast))
    if terms == 1:
        by_group = weight.view(groups, -1)
        return lambda alpha: torch.mul(by_group, alpha.view(groups, 1)).view(shape)
    vectors, rows = (groups, 1, terms), weight.view(groups, -1, terms).transpose(1, 2)
    return lambda alpha: torch.bmm(alpha.view(vectors), rows).view(shape)


def _matrix(layer: LayerShape, height: int, width: int) -> Prepare:
    image, output = (layer.in_channels, height * width), (1, layer.out_channels, height, width)

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        make = _maker(layer, (layer.out_channels, layer.in_channels), weight)
        if shift is None:
            return lambda x, alpha: torch.mm(make(alpha), x.view(image)).view(output)
        added = shift.view(-1, 1)
        return lambda x, alpha: torch.addmm(added, make(alpha), x.view(image)).view(output)

    return prepare


_EXACT = (torch.float32, torch.float64)
"""The dtypes in which a matrix product accumulates as precisely as a convolution."""

MAX_WINDOWS = 2**20
"""Elements up to which copying an image's windows costs less than a convolution's overhead."""

_PIECE = 32
"""Overhead per row of a window, in elements."""


def windows_of(layer: LayerShape, rows: int, columns: int) -> int:
    """Elements of the windows of a depthwise layer's image, whose outputs have `rows` and `columns`.

    Short rows count as longer ones, which take as long.
    """
    return layer.weights * rows * (columns + _PIECE)


def _has_few_windows(layer: LayerShape, height: int, width: int) -> bool:
    return windows_of(layer, *layer.output_size(height, width)) <= MAX_WINDOWS


def _windows(layer: LayerShape, height: int, width: int) -> Prepare:
    """A depthwise kernel as rows, each times the windows of its channel (im2col)."""
    channels, taps = layer.out_channels, layer.fan_in
    (high, wide), (down, across), (below, right) = layer.padding, layer.stride, layer.dilation
    padding, row = (wide, wide, high, high), width + 2 * wide
    output = (1, channels, *layer.output_size(height, width))
    sizes = (channels, *layer.kernel_size, *output[2:])
    strides = ((height + 2 * high) * row, below * row, right, down * row, across)

    def seen(x: Tensor) -> Tensor:
        padded = torch.constant_pad_nd(x, padding)
        return padded.as_strided(sizes, strides).reshape(channels, taps, -1)

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        make = _maker(layer, (channels, 1, taps), weight)
        if shift is None:
            return lambda x, alpha: torch.bmm(make(alpha), seen(x)).view(output)
        added = shift.view(-1, 1, 1)
        return lambda x, alpha: torch.baddbmm(added, make(alpha), seen(x)).view(output)

    return prepare


def _in_tiles(layer: LayerShape, device: str) -> bool:
    parts = layer.generator_groups % layer.out_channels == 0
    return device == "cpu" and layer.groups == 1 and not layer.pointwise and parts


def _tiled(layer: LayerShape, dtype: torch.dtype) -> Prepare:
    """Groups of filters one after another in the same buffer."""
    per_filter, terms = layer.generator_groups // layer.out_channels, layer.inputs_per_group
    largest = max(1, TILE_BYTES // (layer.fan_in * dtype.itemsize))
    tiles = [
        (filters, slice(filters.start * per_filter, filters.stop * per_filter))
        for filters in pieces(layer.out_channels, largest, REGISTER)
    ]
    options = (layer.stride, layer.padding, layer.dilation)
    product = torch.mul if terms == 1 else torch.bmm

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        rows = weight.view(layer.generator_groups, -1, terms).mT

        def run(x: Tensor, alpha: Tensor) -> Tensor:
            vectors, scratch, parts = alpha.view(layer.generator_groups, 1, terms), Scratch(x), []
            for filters, groups in tiles:
                room = scratch.take(groups.stop - groups.start, 1, layer.outputs_per_group)
                kernel = product(vectors[groups], rows[groups], out=room).view(-1, *layer.kernel_shape[1:])
                parts.append(
                    functional.conv2d(x, kernel, None if shift is None else shift[filters], *options)
                )
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

        return run

    return prepare
