"""Images as columns, each of what one output pixel sees (im2col), and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.shape import LayerShape

MOST_COLUMNS = 256
"""Output pixels up to which a kernel larger than 1x1 is applied as a matrix to columns of the image."""


def columns_of(x: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_in, H, W) -> (N, g·F, H_out·W_out); a view for a 1x1 convolution of stride 1."""
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
    # Faster than torch's own unfold on a CPU: twice to three times.
    return windows.reshape(x.shape[0], -1, height * width)


def image_of(columns: Tensor, like: Tensor, layer: LayerShape) -> Tensor:
    """What sends gradients back through `columns_of`: columns added up to an image shaped as `like`."""
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
