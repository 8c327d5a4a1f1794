"""Squeeze-and-excitation: each channel scaled by a function of the global average.

Source: Hu, Shen, Sun, Squeeze-and-Excitation Networks, CVPR 2018, section 3,
https://arxiv.org/abs/1709.01507
"""

from __future__ import annotations

from torch import Tensor, nn

from wnexplore.nn.context import reduced_channels
from wnexplore.nn.gate import Gate
from wnexplore.nn.generated import at_least
from wnexplore.nn.init import SMALL_GAIN, init_linear_
from wnexplore.nn.true_pixels import spatial_mean


class SqueezeExcite(Gate):
    """x times sigmoid(fc2(relu(fc1(mean of x over space)))): (N, C, H, W) -> (N, C, H, W).

    fc1 leaves max(16, C // reduction) features; both layers have biases. Raises `InputError` for a size
    below 1.
    """

    initial_scale = 0.5

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels)
        hidden = reduced_channels(channels, at_least(1, "reduction", reduction))
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters; every scale starts near 1/2."""
        init_linear_(self.fc1)
        init_linear_(self.fc2, SMALL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `InputError` for a tensor of the wrong shape."""
        self._check(x)
        scale = self.fc2(self.fc1(spatial_mean(x)).relu()).sigmoid()
        scaled: Tensor = x * scale[:, :, None, None]
        return scaled
