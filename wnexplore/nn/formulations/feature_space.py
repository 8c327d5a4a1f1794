"""The shared formulation: kernels that no image decides, and a sum of their outputs that it does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.shape import LayerShape


def shared(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), by ordinary convolutions and a scaled sum.

    y[n, o] = sum over slices s and inputs j of alpha[n, o, s, j] · conv(x[n, slice s], B[o, s, j]):
    lambda times the multiply-adds of the convolution, nothing but outputs for each image. For layers
    where each group of the generator covers whole input-channel slices (`LayerShape.slices`).
    """
    slices, terms = layer.slices, layer.inputs_per_group
    assert slices is not None
    if slices * terms == 1:
        kernels = weight.view(layer.kernel_shape)
        return _scaled(_convolve(x, kernels, layer, layer.groups), _of_filters(alpha, layer))
    if layer.pointwise:
        return _slice_by_slice(x, alpha, weight, layer, slices)
    # Groups of the convolution are outermost, then slices; inside, one convolution for each input j.
    kernels = weight.view(layer.groups, -1, slices, *_slice_shape(layer, slices), terms)
    kernels = kernels.permute(0, 2, 6, 1, 3, 4, 5).reshape(-1, *_slice_shape(layer, slices))
    parts = _convolve(x, kernels, layer, layer.groups * slices)
    scales = _of_filters(alpha.view(alpha.shape[0], -1, slices * terms), layer)
    scales = scales.view(-1, layer.groups, layer.out_channels // layer.groups, slices * terms, 1, 1)
    of_groups = parts.view(-1, layer.groups, slices * terms, *scales.shape[2:3], *parts.shape[2:])
    return _sum([(of_groups[:, :, term], scales[:, :, :, term]) for term in range(slices * terms)]).flatten(
        1, 2
    )


def _slice_by_slice(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, slices: int) -> Tensor:
    """One 1x1 convolution for each slice of the input channels: in groups they are slow."""
    terms = layer.inputs_per_group
    kernels = weight.view(layer.out_channels, slices, *_slice_shape(layer, slices), terms)
    scales = _of_filters(alpha.view(alpha.shape[0], -1, slices, terms), layer)
    products = []
    for index, own in enumerate(x.chunk(slices, 1)):
        stacked = kernels[:, index].permute(4, 0, 1, 2, 3).reshape(-1, *_slice_shape(layer, slices))
        parts = _convolve(own, stacked, layer, 1).chunk(terms, 1)
        products += [(part, scales[:, :, index, term]) for term, part in enumerate(parts)]
    return _sum(products)


def _convolve(x: Tensor, kernels: Tensor, layer: LayerShape, groups: int) -> Tensor:
    return functional.conv2d(x, kernels, None, layer.stride, layer.padding, layer.dilation, groups)


def _slice_shape(layer: LayerShape, slices: int) -> tuple[int, int, int]:
    return (layer.in_channels // layer.groups // slices, *layer.kernel_size)


def _of_filters(alpha: Tensor, layer: LayerShape) -> Tensor:
    """(N, groups of filters, ...) -> (N, C_out, ..., 1, 1): filters of one group have the same."""
    if alpha.shape[1] < layer.out_channels:
        alpha = alpha.repeat_interleave(layer.out_channels // alpha.shape[1], 1)
    return alpha.view(*alpha.shape, 1, 1)


def _sum(products: list[tuple[Tensor, Tensor]]) -> Tensor:
    (first, scales), *rest = products
    # Not in place: it is a part of something larger.
    y = first * scales
    for part, scales in rest:
        y = y.addcmul(part, scales) if y.requires_grad else y.addcmul_(part, scales)
    return y


def _scaled(y: Tensor, scales: Tensor) -> Tensor:
    # In place where no gradient needs the unscaled outputs again.
    keeps = torch.is_grad_enabled() and (y.requires_grad or scales.requires_grad)
    return y * scales if keeps else y.mul_(scales)
