"""The context: the pooled and reduced vector that the generators of a block read.

Source: Ma et al., WeightNet, ECCV 2020, section 3, https://arxiv.org/abs/2007.11823
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wnexplore.nn.init import init_linear_
from wnexplore.nn.parameters import parameter
from wnexplore.nn.precision import is_cast
from wnexplore.nn.true_pixels import is_padded, spatial_mean


def reduced_channels(channels: int, reduction: int) -> int:
    """Features left of `channels`: max(16, channels // reduction)."""
    return max(16, channels // reduction)


_SUMMED = (torch.float32, torch.float64)
"""The dtypes in which a sum over an image's pixels can't overflow."""


class Context(nn.Linear):
    """Mean over space, then one biased linear layer: (N, C, H, W) -> (N, R), R = max(16, C // reduction).

    A block keeps it in an attribute `reduce`, so its parameters are `reduce.weight` (R, C) and `reduce.bias`
    (R). They are initialised with the variance that keeps the scale of the means.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels, reduced_channels(channels, reduction))

    def reset_parameters(self) -> None:
        """Draw the starting parameters."""
        init_linear_(self)

    def forward(self, x: Tensor) -> Tensor:
        """The context of a batch: (N, C, H, W) -> (N, R)."""
        if is_padded() or x.dtype not in _SUMMED or is_cast(x.device.type):
            return super().forward(spatial_mean(x))
        # The mean's division is folded into the matrix product: one operator fewer per block.
        pixels = x.shape[2] * x.shape[3]
        weight, bias = parameter(self, "weight"), parameter(self, "bias")
        return torch.addmm(bias, x.sum((2, 3)), weight.t(), alpha=1 / pixels)
