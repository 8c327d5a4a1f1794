"""CBAM: a scale for each channel, then one for each pixel.

Source: Woo, Park, Lee, Kweon, CBAM: Convolutional Block Attention Module, ECCV 2018, section 3,
https://arxiv.org/abs/1807.06521
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wnexplore.nn.context import reduced_channels
from wnexplore.nn.gate import Gate
from wnexplore.nn.generated import at_least
from wnexplore.nn.init import SMALL_GAIN
from wnexplore.nn.true_pixels import spatial_max, spatial_mean


class ConvBlockAttention(Gate):
    """x times its channels' scales, then times its pixels': (N, C, H, W) -> (N, C, H, W).

    Channels: sigmoid(mlp(mean of x over space) + mlp(maximum of x over space)), where mlp is fc2(relu(fc1))
    with max(16, C // reduction) features between and no biases. Pixels: sigmoid(norm(conv(mean and
    maximum over channels))), conv 7x7 without bias. Raises `InputError` for a size below 1.
    """

    initial_scale = 0.25

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels)
        hidden = reduced_channels(channels, at_least(1, "reduction", reduction))
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters; the scales of channels and those of pixels start near 1/2.

        For the pixels' the normalisation starts small, at 1 in the paper's code.
        """
        nn.init.normal_(self.fc1.weight, std=1 / math.sqrt(self.fc1.in_features))
        nn.init.normal_(self.fc2.weight, std=SMALL_GAIN / math.sqrt(self.fc2.in_features))
        nn.init.normal_(self.conv.weight, std=1 / math.sqrt(self.conv.weight.numel()))
        self.norm.reset_parameters()
        nn.init.constant_(self.norm.weight, SMALL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `InputError` for a tensor of the wrong shape."""
        self._check(x)
        pooled = torch.stack((spatial_mean(x), spatial_max(x)), 1)
        scale = self.fc2(self.fc1(pooled).relu()).sum(1).sigmoid()
        x = x * scale[:, :, None, None]
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        scaled: Tensor = x * self.norm(self.conv(pooled)).sigmoid()
        return scaled
