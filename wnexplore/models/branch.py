"""What the blocks of all backbones are put together from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from wnexplore.nn import ActivationVectors, WeightNetConv2d

Alphas = Mapping[nn.Module, Tensor]
"""The activation vectors (N, M·C_out) of those layers of a block that read its context."""

_NO_ALPHAS: Alphas = {}


class Branch(nn.Sequential):
    """Layers one after another; those that read the block's context get their activation vectors."""

    def forward(self, x: Tensor, alphas: Alphas = _NO_ALPHAS, gate: nn.Module | None = None) -> Tensor:
        """`gate`, if any, comes before the last layer, which is the branch's activation or normalisation."""
        *layers, last = self
        for layer in layers:
            x = call(layer, x, alphas)
        if gate is not None:
            x = gate(x)
        return call(last, x, alphas)


def call(layer: nn.Module, x: Tensor, alphas: Alphas) -> Tensor:
    """`layer` on `x`, with its activation vectors if it has any."""
    y: Tensor = layer(x, alpha=alphas[layer]) if layer in alphas else layer(x)
    return y


def activation_vectors(block: nn.Module) -> ActivationVectors | None:
    """What computes the activation vectors of all layers of `block`; None if none reads its context."""
    layers = [module for module in block.modules() if isinstance(module, WeightNetConv2d)]
    return ActivationVectors(layers) if layers else None


def classifier(features: int, num_classes: int) -> nn.Linear:
    """The last linear layer, weights as PyTorch starts them (published: std 0.01), bias zero."""
    fc = nn.Linear(features, num_classes)
    nn.init.zeros_(fc.bias)
    return fc
