"""The commonest layers on a small batch without a backward pass, with everything decided beforehand.

Where images are small, deciding takes as long as computing: what follows from a layer and the shape of its
images is worked out once, and a pass only runs the operators.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.feature_space import images_at_a_time
from wnexplore.nn.formulations.kernel_space import SMALL_BYTES, is_joined
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.single_image import Run


def whole_batch(name: str, layer: LayerShape, x: torch.Size, element_bytes: int) -> Run | None:
    """Formulation `name` of `layer` for images of shape `x` on a CPU; None for others than the commonest.

    These are, with as many groups as filters or a multiple of them: the shared formulation of lambda 1 with
    one slice, and 1x1 kernels of a batch that are small enough to exist at once.
    """
    batch, _, height, width = x
    if name == "shared":
        one = layer.slices == 1 and layer.inputs_per_group == 1
        if not one or layer.generator_groups != layer.out_channels:
            return None
        whole = images_at_a_time(batch, height, width, layer, 1, element_bytes) >= batch
        return _scaled(layer, batch) if whole else None
    if name != "kernel" or not layer.pointwise or layer.stride != (1, 1):
        return None
    if batch * layer.weights * element_bytes > SMALL_BYTES or layer.generator_groups % layer.out_channels:
        return None
    return _multiplied(layer, batch, height, width)


def _scaled(layer: LayerShape, batch: int) -> Run:
    """An ordinary convolution, its outputs scaled."""
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    kernels, scales = layer.kernel_shape, (batch, layer.out_channels, 1, 1)

    def run(x: Tensor, alpha: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        y = functional.conv2d(x, weight.view(kernels), None, *options)
        y.mul_(alpha.view(scales))
        return y if shift is None else y.add_(shift.view(-1, 1, 1))

    return run


def _multiplied(layer: LayerShape, batch: int, height: int, width: int) -> Run | None:
    """Each image's kernel as a matrix times its pixels."""
    groups, terms = layer.generator_groups, layer.inputs_per_group
    matrices = (batch, layer.out_channels, layer.in_channels)
    output = (batch, layer.out_channels, height, width)
    if terms > 1 and groups > layer.out_channels and not is_joined(layer):
        return None

    def run(x: Tensor, alpha: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        if terms == 1:
            kernels = torch.mul(alpha.unsqueeze(2), weight.view(groups, -1)).view(matrices)
        else:
            by_group = alpha.view(batch, groups, terms).transpose(0, 1)
            made = torch.bmm(by_group, weight.view(groups, -1, terms).transpose(1, 2))
            kernels = made.transpose(0, 1).reshape(matrices)
        pixels = x.flatten(2)
        if shift is None:
            return torch.bmm(kernels, pixels).view(output)
        return torch.baddbmm(shift.view(-1, 1), kernels, pixels).view(output)

    return run
