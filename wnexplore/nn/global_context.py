"""The global context block (GCNet): an attention-weighted mean over all pixels is added to each of them.

Source: Cao, Xu, Lin, Wei, Hu, GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond,
ICCV Workshops 2019, section 3.3, https://arxiv.org/abs/1904.11492
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from wnexplore.nn.context import reduced_channels
from wnexplore.nn.gate import Gate
from wnexplore.nn.generated import at_least
from wnexplore.nn.init import SMALL_GAIN, init_linear_
from wnexplore.nn.true_pixels import spatial_softmax


class GlobalContext(Gate):
    """x plus fc2(relu(norm(fc1(weighted mean of x over space)))): (N, C, H, W) -> (N, C, H, W).

    The weights of the pixels are the softmax of `attention`, a 1x1 convolution to one channel; fc1 leaves
    max(16, C // reduction) features, norm is layer normalisation, and all have biases. The bias of
    `attention`, kept as published, has no effect: softmax cancels it and its gradient is zero up to rounding.
    Raises `InputError` for a size below 1.
    """

    initial_scale = 1.0
    unnormalised = ("attention",)

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels)
        hidden = reduced_channels(channels, at_least(1, "reduction", reduction))
        self.attention = nn.Conv2d(channels, 1, 1)
        self.fc1 = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters: the weights of pixels near equal, the added term small.

        The paper's code starts fc2 at zero.
        """
        nn.init.normal_(self.attention.weight, std=SMALL_GAIN / math.sqrt(self.channels))
        nn.init.zeros_(self.get_parameter("attention.bias"))
        init_linear_(self.fc1)
        self.norm.reset_parameters()
        init_linear_(self.fc2, SMALL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `InputError` for a tensor of the wrong shape."""
        self._check(x)
        weights = spatial_softmax(self.attention(x))  # (N, 1, H·W)
        context = (x.flatten(2) @ weights.transpose(1, 2)).squeeze(2)
        added = self.fc2(self.norm(self.fc1(context)).relu())
        changed: Tensor = x + added[:, :, None, None]
        return changed
