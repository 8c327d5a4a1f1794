"""The shared formulation: kernels that no image decides, and a sum of their outputs that it does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.columns import MOST_COLUMNS, columns_of
from wnexplore.nn.formulations.kernel_space import needs_gradient
from wnexplore.nn.formulations.shape import LayerShape

LARGE = 2**19
"""Numbers of a kernel of one image beyond which its slices are not worth making."""


def shared(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None = None
) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), by ordinary convolutions and a scaled sum.

    y[n, o] = sum over slices s and inputs j of alpha[n, o, s, j] · conv(x[n, slice s], B[o, s, j]):
    lambda times the multiply-adds of the convolution, nothing but outputs for each image. For layers
    where each group of the generator covers whole input-channel slices (`LayerShape.slices`).
    """
    slices, terms = layer.slices, layer.inputs_per_group
    assert slices is not None
    if not torch.compiler.is_compiling():
        batch, _, height, width = x.shape
        if as_matrices(layer, batch, height, width, needs_gradient(x, alpha, weight)):
            return _multiplied(x, alpha, weight, layer, slices, shift)
    if slices * terms == 1:
        kernels = weight.view(layer.kernel_shape)
        y, each = _convolve(x, kernels, layer, layer.groups), None if shift is None else shift.view(-1, 1, 1)
        return _scaled(y, _of_filters(alpha, layer), each)
    if layer.pointwise:
        return _slice_by_slice(x, alpha, weight, layer, slices, shift)
    # Groups of the convolution are outermost, then slices; inside, one convolution for each input j.
    kernels = weight.view(layer.groups, -1, slices, *_slice_shape(layer, slices), terms)
    kernels = kernels.permute(0, 2, 6, 1, 3, 4, 5).reshape(-1, *_slice_shape(layer, slices))
    parts = _convolve(x, kernels, layer, layer.groups * slices)
    scales = _of_filters(alpha.view(alpha.shape[0], -1, slices * terms), layer)
    scales = scales.view(-1, layer.groups, layer.out_channels // layer.groups, slices * terms, 1, 1)
    of_groups = parts.view(-1, layer.groups, slices * terms, *scales.shape[2:3], *parts.shape[2:])
    products = [(of_groups[:, :, term], scales[:, :, :, term]) for term in range(slices * terms)]
    each = None if shift is None else shift.view(layer.groups, -1, 1, 1)
    return _sum(products, each).flatten(1, 2)


def as_matrices(layer: LayerShape, batch: int, height: int, width: int, training: bool) -> bool:
    """Whether slices of the kernels are applied as matrices to columns of the one image (im2col).

    Where they are large and the image small: a slice is a matrix as it lies there, and a convolution
    would need it in one piece, in its gradient too.
    """
    rows, columns = layer.output_size(height, width)
    sliced = layer.groups == 1 and layer.slices is not None and layer.slices > 1
    single = batch == layer.inputs_per_group == 1 and rows * columns <= MOST_COLUMNS
    return sliced and single and layer.weights > LARGE and (layer.pointwise or training)


def _multiplied(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, slices: int, shift: Tensor | None
) -> Tensor:
    """One product for each slice of the input channels."""
    matrices = weight.view(layer.out_channels, layer.fan_in).chunk(slices, 1)
    columns = columns_of(x, layer)[0].chunk(slices)
    scales = _of_filters(alpha.view(1, -1, slices), layer)[0, :, :, 0]
    parts = [torch.mm(matrix, own) for matrix, own in zip(matrices, columns, strict=True)]
    products = [(part, scales[:, index]) for index, part in enumerate(parts)]
    y = _sum(products, None if shift is None else shift.view(-1, 1))
    return y.view(1, layer.out_channels, *layer.output_size(*x.shape[2:]))


def _slice_by_slice(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, slices: int, shift: Tensor | None
) -> Tensor:
    """One 1x1 convolution for each slice of the input channels: in groups they are slow."""
    terms = layer.inputs_per_group
    kernels = weight.view(layer.out_channels, slices, *_slice_shape(layer, slices), terms)
    scales = _of_filters(alpha.view(alpha.shape[0], -1, slices, terms), layer)
    products = []
    for index, own in enumerate(x.chunk(slices, 1)):
        stacked = kernels[:, index].permute(4, 0, 1, 2, 3).reshape(-1, *_slice_shape(layer, slices))
        parts = _convolve(own, stacked, layer, 1).chunk(terms, 1)
        products += [(part, scales[:, :, index, term]) for term, part in enumerate(parts)]
    return _sum(products, None if shift is None else shift.view(-1, 1, 1))


def _convolve(x: Tensor, kernels: Tensor, layer: LayerShape, groups: int) -> Tensor:
    return functional.conv2d(x, kernels, None, layer.stride, layer.padding, layer.dilation, groups)


def _slice_shape(layer: LayerShape, slices: int) -> tuple[int, int, int]:
    return (layer.in_channels // layer.groups // slices, *layer.kernel_size)


def _of_filters(alpha: Tensor, layer: LayerShape) -> Tensor:
    """(N, groups of filters, ...) -> (N, C_out, ..., 1, 1): filters of one group have the same."""
    if alpha.shape[1] < layer.out_channels:
        alpha = alpha.repeat_interleave(layer.out_channels // alpha.shape[1], 1)
    return alpha.view(*alpha.shape, 1, 1)


def _sum(products: list[tuple[Tensor, Tensor]], shift: Tensor | None) -> Tensor:
    (first, scales), *rest = products
    # Not in place: it is a part of something larger.
    y = first * scales
    for part, scales in rest:
        y = y.addcmul(part, scales) if y.requires_grad else y.addcmul_(part, scales)
    return _shifted(y, shift)


def _scaled(y: Tensor, scales: Tensor, shift: Tensor | None) -> Tensor:
    # In place where no gradient needs the unscaled outputs again.
    keeps = torch.is_grad_enabled() and (y.requires_grad or scales.requires_grad)
    return _shifted(y * scales if keeps else y.mul_(scales), shift)


def _shifted(y: Tensor, shift: Tensor | None) -> Tensor:
    if shift is None:
        return y
    return y + shift if y.requires_grad or shift.requires_grad else y.add_(shift)
