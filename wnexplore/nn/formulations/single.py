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


def single(layer: LayerShape, height: int, width: int) -> Run:
    """`layer` for one contiguous image (1, C_in, height, width) without a backward pass.

    Its numbers are worked out here, once, and not at every call.
    """
    make = _maker(layer)
    if layer.pointwise and layer.stride == (1, 1):
        return _matrix(layer, make, height, width)
    shape, options = layer.kernel_shape, (layer.stride, layer.padding, layer.dilation, layer.groups)
    return lambda x, alpha, weight, shift: functional.conv2d(
        x, make(alpha, weight).view(shape), shift, *options
    )


def _maker(layer: LayerShape) -> Callable[[Tensor, Tensor], Tensor]:
    """What makes the kernel, of any shape: C_out·F numbers."""
    groups, terms = layer.generator_groups, layer.inputs_per_group
    if terms == 1:
        return lambda alpha, weight: weight.view(groups, -1) * alpha.view(groups, 1)
    return lambda alpha, weight: torch.bmm(
        alpha.view(groups, 1, terms), weight.view(groups, -1, terms).transpose(1, 2)
    )


def _matrix(layer: LayerShape, make: Callable[[Tensor, Tensor], Tensor], height: int, width: int) -> Run:
    matrix, image = (layer.out_channels, layer.in_channels), (layer.in_channels, height * width)
    output = (1, layer.out_channels, height, width)

    def run(x: Tensor, alpha: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        kernel = make(alpha, weight).view(matrix)
        if shift is None:
            return torch.mm(kernel, x.view(image)).view(output)
        return torch.addmm(shift.view(-1, 1), kernel, x.view(image)).view(output)

    return run
