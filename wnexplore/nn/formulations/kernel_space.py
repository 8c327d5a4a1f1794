"""The kernel formulation: each image's kernel is made, then applied, a few images at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from wnexplore.nn.formulations.columns import columns_of
from wnexplore.nn.formulations.generate import generate_kernels
from wnexplore.nn.formulations.product import CHUNK_BYTES, Product
from wnexplore.nn.formulations.published import convolve_folded
from wnexplore.nn.formulations.shape import LayerShape

MOST_COLUMNS = 256
"""Output pixels up to which a kernel larger than 1x1 is applied as a matrix to columns of the image."""

SMALL_BYTES = 2**22
"""Of a batch's kernels that are worth neither tiles nor making them anew for backward."""


def kernel(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), any layer.

    A 1x1 kernel is a matrix, and so is a larger one to columns of the image (im2col), which cost less
    than reordering the kernel where it is large and the image small. Others are applied with the images
    of a chunk folded into the groups of one convolution.
    """
    if torch.compiler.is_compiling():
        return _traced(x, alpha, weight, layer)
    if layer.pointwise and x.shape[0] * layer.weights * x.element_size() <= SMALL_BYTES:
        return _multiplied(x, alpha, weight, layer)
    if layer.pointwise or _has_few_columns(x, layer):
        y: Tensor = Product.apply(x, alpha, weight, layer)
        return y
    if needs_gradient(x, alpha, weight):
        return _folded(x, alpha, weight, layer)
    chunk = max(1, CHUNK_BYTES // (layer.weights * x.element_size()))
    if x.shape[0] <= chunk or x.device.type != "cpu":
        return _folded(x, alpha, weight, layer)
    parts = zip(x.split(chunk), alpha.split(chunk), strict=True)
    return torch.cat([_folded(own, own_alpha, weight, layer) for own, own_alpha in parts])


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether what is made of `tensors` will be asked for a gradient."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _has_few_columns(x: Tensor, layer: LayerShape) -> bool:
    if layer.groups > 1:
        return False
    height, width = layer.output_size(*x.shape[2:])
    return height * width <= MOST_COLUMNS


def _multiplied(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """All kernels at once, as matrices times pixels."""
    kernels = generate_kernels(alpha, weight, layer.generator_groups)
    matrices, pixels = kernels.reshape(-1, *layer.kernel_shape[:2]), columns_of(x, layer)
    height, width = layer.output_size(*x.shape[2:])
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.bmm(matrices, pixels).view(-1, layer.out_channels, height, width)
    y = torch.bmm(pixels.mT, matrices.mT).view(-1, height, width, layer.out_channels)
    return y.permute(0, 3, 1, 2)


def _folded(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    return convolve_folded(x, generate_kernels(alpha, weight, layer.generator_groups), layer)


def _traced(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """One product for each image and group: neither loops over the batch nor groups for its images."""
    height, width = layer.output_size(*x.shape[2:])
    kernels = generate_kernels(alpha, weight, layer.generator_groups)
    matrices = kernels.reshape(-1, layer.out_channels // layer.groups, layer.fan_in)
    columns = columns_of(x, layer).reshape(-1, layer.fan_in, height * width)
    return torch.bmm(matrices, columns).view(-1, layer.out_channels, height, width)
