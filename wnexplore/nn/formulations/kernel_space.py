"""The kernel formulation: each image's kernel is made, then applied, a few images at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wnexplore.nn.formulations.generate import generate_by_group, generate_kernels
from wnexplore.nn.formulations.published import convolve_folded
from wnexplore.nn.formulations.shape import Formulation, LayerShape

CHUNK_BYTES = 2**23
"""Of kernels that exist at a time: what is made is still in a cache of the CPU when it is applied."""

MOST_COLUMNS = 150
"""Output pixels up to which a kernel larger than 1x1 is applied as a matrix to columns of the image."""


def kernel(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), any layer.

    A 1x1 kernel is a matrix, and so is a larger one to columns of the image (im2col), which cost less
    than reordering the kernel where it is large and the image small. Others are applied with the images
    of a chunk folded into the groups of one convolution.
    """
    if torch.compiler.is_compiling():
        # Neither a loop over the batch nor groups for its images: its size may change.
        return (_product if layer.groups == 1 else _grouped_product)(x, alpha, weight, layer)
    training = needs_gradient(x, alpha, weight)
    if layer.pointwise or _has_few_columns(x, layer):
        if training:
            y: Tensor = _Product.apply(x, alpha, weight, layer)
            return y
        return _by_chunk(_product, x, alpha, weight, layer)
    if training:
        return _folded(x, alpha, weight, layer)
    return _by_chunk(_folded, x, alpha, weight, layer)


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether what is made of `tensors` will be asked for a gradient."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _has_few_columns(x: Tensor, layer: LayerShape) -> bool:
    if layer.groups > 1:
        return False
    height, width = layer.output_size(*x.shape[2:])
    return height * width <= MOST_COLUMNS


def _by_chunk(function: Formulation, x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    chunk = _chunk(x, layer)
    if x.shape[0] <= chunk:
        return function(x, alpha, weight, layer)
    parts = zip(x.split(chunk), alpha.split(chunk), strict=True)
    return torch.cat([function(own, own_alpha, weight, layer) for own, own_alpha in parts])


def _folded(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    return convolve_folded(x, generate_kernels(alpha, weight, layer.generator_groups), layer)


def _chunk(x: Tensor, layer: LayerShape) -> int:
    """Images whose kernels exist at a time."""
    return max(1, CHUNK_BYTES // (layer.weights * x.element_size())) if x.device.type == "cpu" else x.shape[0]


class _Product(torch.autograd.Function):
    """Kernels as matrices times columns, chunk by chunk; backward makes kernels and columns anew.

    What is kept for backward is what came in: not the kernels, which are many times as large.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
        ctx.save_for_backward(x, alpha, weight)
        ctx.layer = layer
        return _by_chunk(_product, x, alpha, weight, layer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, weight = ctx.saved_tensors
        layer: LayerShape = ctx.layer
        needs_x, needs_alpha, needs_weight, _ = ctx.needs_input_grad
        groups, terms = layer.generator_groups, layer.inputs_per_group
        by_group = weight.unflatten(0, (groups, -1))
        grad_x, grad_alpha = [], []
        grad_weight = weight.new_zeros(groups, terms, layer.outputs_per_group) if needs_weight else None
        for own, own_alpha, grad in zip(
            *(t.split(_chunk(x, layer)) for t in (x, alpha, *grads)), strict=True
        ):
            grad = grad.flatten(2)
            if needs_x:
                grad_x.append(_image(torch.bmm(_matrices(own_alpha, weight, layer).mT, grad), own, layer))
            if needs_alpha or needs_weight:
                of_kernels = torch.bmm(grad, _columns(own, layer).mT)
                # (P, n, L): each group's numbers of every image's kernel.
                of_groups = of_kernels.view(len(own), groups, -1).transpose(0, 1)
                if needs_alpha:
                    grad_alpha.append(torch.bmm(of_groups, by_group).transpose(0, 1).flatten(1))
                if grad_weight is not None:
                    inputs = own_alpha.unflatten(1, (groups, terms)).permute(1, 2, 0)
                    grad_weight.baddbmm_(inputs, of_groups)
        return (
            torch.cat(grad_x) if needs_x else None,
            torch.cat(grad_alpha) if needs_alpha else None,
            None if grad_weight is None else grad_weight.mT.reshape(weight.shape),
            None,
        )


def _product(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    matrices, columns = _matrices(alpha, weight, layer), _columns(x, layer)
    height, width = layer.output_size(*x.shape[2:])
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.bmm(matrices, columns).view(-1, layer.out_channels, height, width)
    y = torch.bmm(columns.mT, matrices.mT).view(-1, height, width, layer.out_channels)
    return y.permute(0, 3, 1, 2)


def _grouped_product(x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    height, width = layer.output_size(*x.shape[2:])
    kernels = generate_kernels(alpha, weight, layer.generator_groups)
    matrices = kernels.reshape(-1, layer.out_channels // layer.groups, layer.fan_in)
    columns = _columns(x, layer).view(-1, layer.fan_in, height * width)
    return torch.bmm(matrices, columns).view(-1, layer.out_channels, height, width)


def _matrices(alpha: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_out, F)."""
    if layer.generator_groups == layer.out_channels and layer.inputs_per_group > 1:
        return generate_by_group(alpha, weight, layer.generator_groups).transpose(0, 1)
    return generate_kernels(alpha, weight, layer.generator_groups).reshape(-1, layer.out_channels, layer.fan_in)


def _columns(x: Tensor, layer: LayerShape) -> Tensor:
    """(N, F, H_out·W_out), what each output pixel sees (im2col); a view for 1x1 at stride 1."""
    if layer.pointwise:
        down, across = layer.stride
        return (x if layer.stride == (1, 1) else x[:, :, ::down, ::across]).flatten(2)
    if torch.compiler.is_compiling():
        columns: Tensor = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return columns
    (high, wide), (down, across) = layer.padding, layer.dilation
    height, width = layer.output_size(*x.shape[2:])
    padded = functional.pad(x, (wide, wide, high, high))
    of_image, of_channel, of_row, of_pixel = padded.stride()
    windows = padded.as_strided(
        (*x.shape[:2], *layer.kernel_size, height, width),
        (
            *(of_image, of_channel, down * of_row, across * of_pixel),
            *(layer.stride[0] * of_row, layer.stride[1] * of_pixel),
        ),
    )
    # Three times as fast as torch's own unfold on a CPU.
    return windows.reshape(x.shape[0], layer.fan_in, height * width)


def _image(columns: Tensor, like: Tensor, layer: LayerShape) -> Tensor:
    """What `_columns` undoes: columns (N, F, H_out·W_out) added up to an image of the shape of `like`."""
    if not layer.pointwise:
        image: Tensor = functional.fold(
            columns, like.shape[2:], layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        return image
    if layer.stride == (1, 1):
        return columns.view(like.shape)
    image = like.new_zeros(like.shape)
    height, width = layer.output_size(*like.shape[2:])
    image[:, :, :: layer.stride[0], :: layer.stride[1]] = columns.unflatten(2, (height, width))
    return image
