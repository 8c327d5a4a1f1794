"""What the blocks of all backbones are put together from."""

from __future__ import annotations

from torch import Tensor, nn

from wnexplore.nn import GeneratedConv2d


class Branch(nn.Sequential):
    """Layers one after another; those made with `context_features` are handed the block's context."""

    def forward(self, x: Tensor, context: Tensor | None = None, gate: nn.Module | None = None) -> Tensor:
        """`gate`, if any, comes before the last layer, which is the branch's activation or normalisation."""
        *layers, last = self
        for layer in layers:
            x = call(layer, x, context)
        if gate is not None:
            x = gate(x)
        return call(last, x, context)


def call(layer: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """`layer` on `x`, with the block's context if it is one that takes it."""
    y: Tensor = layer(x, context) if isinstance(layer, GeneratedConv2d) else layer(x)
    return y


def classifier(features: int, num_classes: int) -> nn.Linear:
    """The last linear layer, weights as PyTorch starts them (published: std 0.01), bias zero."""
    fc = nn.Linear(features, num_classes)
    nn.init.zeros_(fc.bias)
    return fc
