"""The published formulation: the batch folded into the groups of one convolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.generate import generate_published
from wnexplore.nn.formulations.layer_shape import LayerShape


def published(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None = None
) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), any layer; kept for comparison."""
    return convolve_folded(x, generate_published(alpha, weight, layer.generator_groups), layer, shift)


def convolve_folded(x: Tensor, kernels: Tensor, layer: LayerShape, shift: Tensor | None) -> Tensor:
    """Each image of `x` convolved with its own row of `kernels` (N, C_out·F), as N·g groups of one image."""
    batch = x.shape[0]
    weight = kernels.reshape(batch * layer.out_channels, *layer.kernel_shape[1:])
    folded = x.reshape(1, batch * layer.in_channels, *x.shape[2:])
    # Several times faster than `repeat`.
    bias = None if shift is None else shift.expand(batch, -1).reshape(-1)
    y = functional.conv2d(
        folded, weight, bias, layer.stride, layer.padding, layer.dilation, batch * layer.groups
    )
    return y.view(batch, layer.out_channels, *y.shape[2:])
