"""The kernel formulation of one image, by as few calls as can be: a small network spends its time in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.shape import LayerShape

Run = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""A `Formulation` of a layer and image size that are known: without the layer among its arguments."""

SINGLE_NUMBERS = 2**18
"""A kernel of more is better made and applied in tiles."""


def single(layer: LayerShape, height: int, width: int, device: str, dtype: torch.dtype) -> Run:
    """`layer` for one contiguous image (1, C_in, height, width) without a backward pass.

    Its numbers are worked out here, once, and not at every call.
    """
    if layer.pointwise and layer.stride == (1, 1):
        return _matrix(layer, height, width)
    if layer.depthwise and device == "cpu" and dtype in _EXACT and _has_few_windows(layer, height, width):
        return _windows(layer, height, width)
    make = _maker(layer, layer.kernel_shape)
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return lambda x, alpha, weight, shift: functional.conv2d(x, make(alpha, weight), shift, *options)


def _maker(layer: LayerShape, shape: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """What makes the kernel, C_out·F numbers as `shape`, whose first size is C_out."""
    groups, terms = layer.generator_groups, layer.inputs_per_group
    if terms == 1 and groups == layer.out_channels:
        each = (groups, *(1 for _ in shape[1:]))
        return lambda alpha, weight: weight.view(shape) * alpha.view(each)
    if terms == 1:
        return lambda alpha, weight: (weight.view(groups, -1) * alpha.view(groups, 1)).view(shape)
    return lambda alpha, weight: torch.bmm(
        alpha.view(groups, 1, terms), weight.view(groups, -1, terms).transpose(1, 2)
    ).view(shape)


def _matrix(layer: LayerShape, height: int, width: int) -> Run:
    make = _maker(layer, (layer.out_channels, layer.in_channels))
    image, output = (layer.in_channels, height * width), (1, layer.out_channels, height, width)

    def run(x: Tensor, alpha: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        kernel = make(alpha, weight)
        if shift is None:
            return torch.mm(kernel, x.view(image)).view(output)
        return torch.addmm(shift.view(-1, 1), kernel, x.view(image)).view(output)

    return run


_EXACT = (torch.float32, torch.float64)
"""The dtypes in which a product of matrices adds up as precisely as a convolution."""

MOST_WINDOWS = 2**20
"""Numbers to copy up to which windows of an image cost less than what torch does before it convolves."""

_PIECE = 32
"""Numbers that a row of a window costs besides its own."""


def _has_few_windows(layer: LayerShape, height: int, width: int) -> bool:
    rows, columns = layer.output_size(height, width)
    return layer.weights * rows * (columns + _PIECE) <= MOST_WINDOWS


def _windows(layer: LayerShape, height: int, width: int) -> Run:
    """A depthwise kernel as rows, each times what the output pixels of its channel see (im2col)."""
    channels, taps = layer.out_channels, layer.fan_in
    make = _maker(layer, (channels, 1, taps))
    (high, wide), (down, across), (below, beside) = layer.padding, layer.stride, layer.dilation
    padding, row = (wide, wide, high, high), width + 2 * wide
    output = (1, channels, *layer.output_size(height, width))
    sizes = (channels, *layer.kernel_size, *output[2:])
    strides = ((height + 2 * high) * row, below * row, beside, down * row, across)

    def run(x: Tensor, alpha: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        padded = torch.constant_pad_nd(x, padding)
        seen = padded.as_strided(sizes, strides).reshape(channels, taps, -1)
        kernel = make(alpha, weight)
        if shift is None:
            return torch.bmm(kernel, seen).view(output)
        return torch.baddbmm(shift.view(-1, 1, 1), kernel, seen).view(output)

    return run
