"""The activation vectors of a whole block at once: one matrix product for all its layers' fc1.

Source: Ma et al., WeightNet, ECCV 2020, section 3: every convolution of a block reads the same context.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wnexplore.nn.parameters import parameter
from wnexplore.nn.weightnet import WeightNetConv2d


class ActivationVectors(nn.Module):
    """Context (N, R) -> each layer of a block with its activation vectors (N, M·C_out).

    The layers keep their own fc1, whose weights are put side by side on the way; this has no parameters.
    They have one activation function in common, and were made with `context_features` R.
    """

    def __init__(self, layers: Iterable[WeightNetConv2d]) -> None:
        super().__init__()
        # In a tuple: these are the block's modules, not a second time this one's.
        self._layers = tuple(layers)
        self._fc1s = tuple(layer.fc1 for layer in self._layers)
        self._sizes = [fc1.out_features for fc1 in self._fc1s]
        self._apart = self._layers[0].activation == "softmax"

    def parameters_read(self) -> list[nn.Parameter]:
        """The layers' parameters that a pass reads."""
        return [parameter for fc1 in self._fc1s for parameter in fc1.parameters()]

    def forward(self, context: Tensor) -> dict[nn.Module, Tensor]:
        weight = torch.cat([parameter(fc1, "weight") for fc1 in self._fc1s])
        bias = torch.cat([parameter(fc1, "bias") for fc1 in self._fc1s])
        z = functional.linear(context, weight, bias)
        parts: Sequence[Tensor]
        if self._apart:
            parts = [
                own.activate(part) for own, part in zip(self._layers, z.split(self._sizes, 1), strict=True)
            ]
        else:
            parts = self._layers[0].activate(z).split_with_sizes(self._sizes, 1)
        return dict(zip(self._layers, parts, strict=True))
