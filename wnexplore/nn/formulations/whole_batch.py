"""The commonest layers on a small batch without a backward pass, with everything decided beforehand.

Where images are small, deciding takes as long as computing: what follows from a layer and the shape of its
images is worked out once, and a pass only runs the operators.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.feature_space import as_one_product, images_at_a_time
from wnexplore.nn.formulations.kernel_space import SMALL_BYTES, fits_at_once, is_joined
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.single_image import Prepare, Run


def whole_batch(name: str, layer: LayerShape, x: torch.Size, element_bytes: int) -> Prepare | None:
    """Formulation `name` of `layer` for images of shape `x` on a CPU; None for others than the commonest.

    These are, with as many groups as filters or a multiple of them: the shared formulation of lambda 1 with
    one slice, and 1x1 and depthwise kernels of a batch that are small enough to exist at once.
    """
    batch, _, height, width = x
    if name == "shared":
        if as_one_product(layer, batch, height, width, "cpu"):
            return None
        one = layer.slices == 1 and layer.inputs_per_group == 1
        if not one or layer.generator_groups != layer.out_channels:
            return None
        whole = images_at_a_time(batch, height, width, layer, 1, element_bytes) >= batch
        return _scaled(layer, batch) if whole else None
    if name != "kernel" or layer.generator_groups % layer.out_channels:
        return None
    if layer.depthwise:
        return _folded(layer, batch) if fits_at_once(layer, batch, height, width, element_bytes) else None
    if batch * layer.weights * element_bytes > SMALL_BYTES or not layer.pointwise or layer.stride != (1, 1):
        return None
    return _multiplied(layer, batch, height, width)


def _scaled(layer: LayerShape, batch: int) -> Prepare:
    """An ordinary convolution, its outputs scaled."""
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    scales = (batch, layer.out_channels, 1, 1)

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        kernels = weight.view(layer.kernel_shape)
        if shift is None:
            return lambda x, alpha: functional.conv2d(x, kernels, None, *options).mul_(alpha.view(scales))
        added = shift.view(-1, 1, 1)
        # Two operators: one for both is several times as slow where it broadcasts.
        return lambda x, alpha: (
            functional.conv2d(x, kernels, None, *options).mul_(alpha.view(scales)).add_(added)
        )

    return prepare


def _folded(layer: LayerShape, batch: int) -> Prepare:
    """All kernels as the groups of one convolution."""
    options = (layer.stride, layer.padding, layer.dilation, batch * layer.groups)
    kernels = (batch * layer.out_channels, *layer.kernel_shape[1:])

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        make, added = _maker(layer, batch, weight), None if shift is None else shift.view(-1, 1, 1)

        def run(x: Tensor, alpha: Tensor) -> Tensor:
            folded = x.reshape(1, -1, *x.shape[2:])
            y = functional.conv2d(folded, make(alpha).view(kernels), None, *options)
            y = y.view(batch, -1, *y.shape[2:])
            # Takes less time than a bias of every image.
            return y if added is None else y.add_(added)

        return run

    return prepare


def _maker(layer: LayerShape, batch: int, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that generates the kernels, each image's contiguous."""
    groups, terms = layer.generator_groups, layer.inputs_per_group
    if terms == 1:
        by_group = weight.view(groups, -1)
        return lambda alpha: torch.mul(alpha.unsqueeze(2), by_group)
    rows, vectors = weight.view(groups, -1, terms).transpose(1, 2), (batch, groups, terms)
    return lambda alpha: torch.bmm(alpha.view(vectors).transpose(0, 1), rows).transpose(0, 1).contiguous()


def _multiplied(layer: LayerShape, batch: int, height: int, width: int) -> Prepare | None:
    """Each image's kernel as a matrix times its pixels."""
    groups, terms = layer.generator_groups, layer.inputs_per_group
    matrices = (batch, layer.out_channels, layer.in_channels)
    output = (batch, layer.out_channels, height, width)
    if terms > 1 and groups > layer.out_channels and not is_joined(layer):
        return None

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        make, added = _maker(layer, batch, weight), None if shift is None else shift.view(-1, 1)
        if height * width <= FEW_PIXELS:

            def turned(x: Tensor, alpha: Tensor) -> Tensor:
                y = torch.bmm(x.flatten(2).mT, make(alpha).view(matrices).mT).mT
                laid = x.new_empty(y.shape)
                return (laid.copy_(y) if added is None else torch.add(y, added, out=laid)).view(output)

            return turned
        if added is None:
            return lambda x, alpha: torch.bmm(make(alpha).view(matrices), x.flatten(2)).view(output)
        return lambda x, alpha: torch.baddbmm(added, make(alpha).view(matrices), x.flatten(2)).view(output)

    return prepare


FEW_PIXELS = 4
"""Pixels up to which images times kernels are a faster product than kernels times images."""
