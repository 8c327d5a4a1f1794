"""The mathematics of the layers as pure functions of tensors.

Every multiply-add happens in an operator that fvcore counts (bmm, convolution), once per image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Size2d = int | tuple[int, int]
"""Height and width; one number stands for both."""


def pair(size: Size2d) -> tuple[int, int]:
    """`size` as (height, width)."""
    return (size, size) if isinstance(size, int) else size


def generate_kernels(alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The grouped fully-connected layer that turns activation vectors into kernels.

    `alpha` (N, P·lambda), `weight` (C_out·F, lambda), `groups` P, which divides C_out·F -> (N, C_out·F).
    Each group of lambda inputs makes C_out·F/P consecutive numbers of the kernel: part of a filter, a
    filter, or several (CondConv's one group makes them all). lambda·C_out·F multiply-adds per image.

    Source: Ma et al., ECCV 2020, section 3.
    """
    batch, inputs = alpha.shape
    per_group = inputs // groups
    by_group = alpha.view(batch, groups, per_group).transpose(0, 1)
    # The batch is the rows of the product, so that a batch of one needs no copy to put it first again.
    kernels = torch.bmm(by_group, weight.view(groups, -1, per_group).transpose(1, 2))
    return kernels.transpose(0, 1).reshape(batch, -1)


def conv2d_per_sample(
    x: Tensor,
    kernels: Tensor,
    stride: Size2d = 1,
    padding: Size2d = 0,
    dilation: Size2d = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve each image with a kernel of its own.

    `x` (N, C_in, H, W), `kernels` (N, C_out, C_in/groups, kh, kw) -> (N, C_out, H_out, W_out); stride,
    padding and dilation as in `torch.nn.functional.conv2d`. C_out·F·H_out·W_out multiply-adds per image.
    """
    batch, out_channels = kernels.shape[:2]
    if batch == 1:
        return functional.conv2d(x, kernels[0], None, stride, padding, dilation, groups)
    if kernels.shape[3:] == (1, 1) and groups == 1 and pair(padding) == (0, 0):
        # A 1x1 kernel is a matrix; a batched matrix product is many times faster than N groups.
        rows, columns = pair(stride)
        seen = x[:, :, ::rows, ::columns] if (rows, columns) != (1, 1) else x
        return torch.bmm(kernels.flatten(2), seen.flatten(2)).view(batch, out_channels, *seen.shape[2:])
    folded = x.reshape(1, -1, *x.shape[2:])
    y = functional.conv2d(folded, kernels.flatten(0, 1), None, stride, padding, dilation, batch * groups)
    return y.view(batch, out_channels, *y.shape[2:])
