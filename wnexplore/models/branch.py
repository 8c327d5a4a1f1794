"""Building blocks shared by all backbones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from wnexplore.nn import ActivationVectors, Context, GeneratedConv2d, WeightNetConv2d, normalised

Alphas = Mapping[nn.Module, Tensor]
"""The activation vectors (N, M·C_out) of the layers of a block that read its context."""

_NO_ALPHAS: Alphas = {}


class Branch(nn.Sequential):
    """Layers in sequence; those that read the block's context get their activation vectors.

    The last layer is no convolution.
    """

    def forward(self, x: Tensor, alphas: Alphas = _NO_ALPHAS, gate: nn.Module | None = None) -> Tensor:
        """`gate`, if any, comes before the last layer, which is the branch's activation or normalisation."""
        layers = list(self)
        if gate is not None:
            layers.insert(-1, gate)
        index = 0
        while index < len(layers):
            layer, following = layers[index], layers[index + 1 : index + 2]
            if not isinstance(layer, GeneratedConv2d):
                x = layer(x)
            elif following and isinstance(following[0], nn.BatchNorm2d):
                x = normalised(layer, following[0], x, alphas.get(layer))
                index += 1
            else:
                x = layer(x, alpha=alphas.get(layer))
            index += 1
        return x


def activation_vectors(block: nn.Module) -> ActivationVectors | None:
    """The module that computes the activation vectors of all layers of `block`; None if none reads its
    context.
    """
    layers = [module for module in block.modules() if isinstance(module, WeightNetConv2d)]
    return ActivationVectors(layers) if layers else None


def alphas_of(context: Context | None, alphas: ActivationVectors | None, x: Tensor) -> Alphas:
    """The activation vectors of the layers of a block that read its context, from its input `x`."""
    if context is None or alphas is None:
        return _NO_ALPHAS
    known = alphas.of_images(x)
    return alphas(context(x)) if known is None else known


def classifier(features: int, num_classes: int) -> nn.Linear:
    """The last linear layer, weights as PyTorch initialises them, bias zero."""
    fc = nn.Linear(features, num_classes)
    nn.init.zeros_(fc.bias)
    return fc
