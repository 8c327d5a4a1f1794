"""Efficient channel attention (ECA-Net): each channel scaled by a function of its neighbours' means.

Source: Wang, Wu, Zhu, Li, Zuo, Hu, ECA-Net: Efficient Channel Attention for Deep Convolutional Neural
Networks, CVPR 2020, section 3, https://arxiv.org/abs/1910.03151
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from wnexplore.design.methods import attention_span
from wnexplore.nn.gate import Gate
from wnexplore.nn.init import SMALL_GAIN
from wnexplore.nn.true_pixels import spatial_mean


class EfficientChannelAttention(Gate):
    """x times sigmoid(conv(mean of x over space)): (N, C, H, W) -> (N, C, H, W).

    conv, without bias, runs over the channels with `attention_span(C)` weights, the same for every
    channel; at both ends it sees zeros. Raises `InputError` for a size below 1.
    """

    initial_scale = 0.5
    unnormalised = ("conv",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        span = attention_span(channels)
        self.conv = nn.Conv1d(1, 1, span, padding=span // 2, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters; every scale starts near 1/2."""
        nn.init.normal_(self.conv.weight, std=SMALL_GAIN / math.sqrt(self.conv.kernel_size[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Raises `InputError` for a tensor of the wrong shape."""
        self._check(x)
        scale = self.conv(spatial_mean(x).unsqueeze(1)).sigmoid().squeeze(1)
        scaled: Tensor = x * scale[:, :, None, None]
        return scaled
