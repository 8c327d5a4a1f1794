"""The shared formulation: kernels that no image decides, and a sum of their outputs that it does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.shape import LayerShape


def shared(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), by one convolution and a scaled sum of its outputs.

    y[n, o] = sum over slices s and inputs j of alpha[n, o, s, j] · conv(x[n, slice s], B[o, s, j]):
    lambda times the multiply-adds of the convolution, nothing but outputs for each image. For layers
    where each group of the generator covers whole input-channel slices (`LayerShape.slices`).
    """
    slices, terms = layer.slices, layer.inputs_per_group
    assert slices is not None
    if slices * terms == 1:
        kernels = weight.view(layer.kernel_shape)
        y = functional.conv2d(x, kernels, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        return _scaled(y, _of_filters(alpha, layer))
    # Groups of the convolution are outermost, then slices; inside, one convolution for each input j.
    kernels = (
        weight.view(layer.groups, -1, slices, *_slice_shape(layer, slices), terms)
        .permute(0, 2, 6, 1, 3, 4, 5)
        .reshape(-1, *_slice_shape(layer, slices))
    )
    parts = functional.conv2d(
        x, kernels, None, layer.stride, layer.padding, layer.dilation, layer.groups * slices
    )
    return _weighted_sum(parts, alpha, layer, slices * terms)


def _slice_shape(layer: LayerShape, slices: int) -> tuple[int, int, int]:
    return (layer.in_channels // layer.groups // slices, *layer.kernel_size)


def _weighted_sum(parts: Tensor, alpha: Tensor, layer: LayerShape, terms: int) -> Tensor:
    """`parts` (N, g·terms·C_out/g, H, W), each output channel's terms times alpha, added up."""
    batch = alpha.shape[0]
    scales = _of_filters(alpha.view(batch, -1, terms), layer).view(batch, layer.groups, -1, terms, 1, 1)
    of_groups = parts.view(batch, layer.groups, terms, -1, *parts.shape[2:])
    y = of_groups[:, :, 0] * scales[:, :, :, 0]
    for term in range(1, terms):
        y = y.addcmul(of_groups[:, :, term], scales[:, :, :, term])
    return y.flatten(1, 2)


def _of_filters(alpha: Tensor, layer: LayerShape) -> Tensor:
    """(N, groups of filters, ...) -> (N, C_out, ..., 1, 1): filters of one group have the same."""
    if alpha.shape[1] < layer.out_channels:
        alpha = alpha.repeat_interleave(layer.out_channels // alpha.shape[1], 1)
    return alpha.view(*alpha.shape, 1, 1)


def _scaled(y: Tensor, scales: Tensor) -> Tensor:
    # In place where nothing needs the unscaled outputs again.
    return y * scales if y.requires_grad or scales.requires_grad else y.mul_(scales)
