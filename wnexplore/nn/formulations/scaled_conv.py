"""The shared formulation with one term, in training on a GPU: a convolution and a scale, in few operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wnexplore.nn.formulations.layer_shape import LayerShape


class Scaled(torch.autograd.Function):
    """x (N, C_in, H, W), scales (N, P), kernels (C_out, C_in/g, kh, kw) -> (N, C_out, H_out, W_out).

    `conv(x, kernels)`, each run of C_out/P channels times one of `scales`. Four operators in forward and
    backward together: one gradient operator each for scale and convolution, where autograd has two products
    and a sum for the former.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, kernels: Tensor, layer: LayerShape) -> Tensor:
        y = functional.conv2d(x, kernels, None, *_options(layer))
        ctx.save_for_backward(x, scales, kernels, y)
        ctx.layer = layer
        # No view: the next layer may work in place.
        scaled = torch.empty_like(y)
        torch.mul(_by_scale(y, scales), scales[:, :, None, None, None], out=_by_scale(scaled, scales))
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scales, kernels, y = ctx.saved_tensors
        needs_x, needs_scales, needs_kernels, _ = ctx.needs_input_grad
        of_y, of_scales = _of_product(grads[0], y, scales, (needs_x or needs_kernels, needs_scales))
        of_x = of_kernels = None
        if of_y is not None and (needs_x or needs_kernels):
            stride, padding, dilation, groups = _options(ctx.layer)
            of_x, of_kernels, _ = torch.ops.aten.convolution_backward(
                *(of_y, x, kernels, None, stride, padding, dilation),
                *(False, (0, 0), groups, (needs_x, needs_kernels, False)),
            )
        return of_x, of_scales, of_kernels, None


def _of_product(
    grad: Tensor, y: Tensor, scales: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of y (N, C, H, W) and of scales (N, P), given that of their product."""
    if not (y.is_contiguous() and grad.is_contiguous()):
        by_scale = _by_scale(grad, scales)
        of_y = by_scale.mul(scales[:, :, None, None, None]).flatten(1, 2) if needed[0] else None
        products = by_scale * _by_scale(y, scales) if needed[1] else None
        return of_y, None if products is None else products.sum((2, 3, 4), dtype=scales.dtype)
    # A 1x1 convolution with one group per image and scale.
    groups, folded = scales.numel(), (1, scales.numel(), -1, y.shape[3])
    of_y, of_scales, _ = torch.ops.aten.convolution_backward(
        *(grad.view(folded), y.view(folded), scales.reshape(groups, 1, 1, 1), None),
        *((1, 1), (0, 0), (1, 1), False, (0, 0), groups, (*needed, False)),
    )
    return (
        None if of_y is None else of_y.view(y.shape),
        None if of_scales is None else of_scales.view(scales.shape),
    )


def _by_scale(y: Tensor, scales: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, P, C/P, H, W)."""
    by_scale: Tensor = y.unflatten(1, (scales.shape[1], -1))
    return by_scale


def _options(layer: LayerShape) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    return layer.stride, layer.padding, layer.dilation, layer.groups
