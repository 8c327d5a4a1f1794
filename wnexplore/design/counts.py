"""Parameters and FLOPs of a design point in closed form; nothing is built.

Source of the formulas: Ma et al., WeightNet, ECCV 2020, section 3 and table 1; the conventions are those of
the `flops` column: multiply-adds of convolutions, linear layers and matrix products for one image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wnexplore.design.legality import generator_shape, published_pair
from wnexplore.design.point import DesignPoint
from wnexplore.design.stages import has_method
from wnexplore.design.walk import Block, Site, Walk


@dataclass(frozen=True)
class Counts:
    """What a part of a network, or a whole one, costs."""

    params: int = 0
    flops: int = 0
    """Multiply-adds for one image."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.params + other.params, self.flops + other.flops)


def count(point: DesignPoint, walk: Walk) -> Counts:
    """The counts of `point`, of whose plain network `walk` is the walk at the point's resolution.

    Raises `IllegalPointError` for an (M, G) that some layer can't have.
    """
    rest = Counts(walk.params, walk.flops)
    return sum((count_block(block, point) for block in walk.blocks), rest)


def count_block(block: Block, point: DesignPoint) -> Counts:
    """The counts of a block's sites and of what the method of `point` puts beside them."""
    method = point.method if has_method(point.stages, block.stage) else "plain"
    return _METHODS[method](block, point)


def _plain(block: Block, point: DesignPoint) -> Counts:
    return sum((Counts(site.weights, site.weights * site.pixels) for site in block.sites), Counts())


def _squeeze_excite(block: Block, point: DesignPoint) -> Counts:
    channels = block.gate_channels
    hidden = _reduced(channels, _given(point.reduction))
    return _plain(block, point) + _linear(channels, hidden) + _linear(hidden, channels)


def _condconv(block: Block, point: DesignPoint) -> Counts:
    experts = _given(point.experts)
    of_sites = (
        _linear(site.in_channels, experts) + _generated(site, experts * site.weights) for site in block.sites
    )
    return sum(of_sites, Counts())


def _weightnet(block: Block, point: DesignPoint) -> Counts:
    features = _reduced(block.context_channels, _given(point.reduction))
    found = _linear(block.context_channels, features)
    for site in block.sites:
        M, G = published_pair(_given(point.M), _given(point.G), depthwise=site.depthwise)
        shape = generator_shape(M, G, site.out_channels, site.fan_in)
        found += _linear(features, shape.inputs)
        found += _generated(site, shape.inputs_per_group * site.weights)
    return found


_METHODS: dict[str, Callable[[Block, DesignPoint], Counts]] = {
    "plain": _plain,
    "se": _squeeze_excite,
    "condconv": _condconv,
    "weightnet": _weightnet,
}


def _generated(site: Site, weights: int) -> Counts:
    """A generator without bias of `weights` weights, and the convolution with what it makes."""
    return Counts(weights, weights + site.weights * site.pixels)


def _linear(inputs: int, outputs: int) -> Counts:
    return Counts(inputs * outputs + outputs, inputs * outputs)


def _reduced(channels: int, reduction: int) -> int:
    return max(16, channels // reduction)


def _given(value: Any) -> Any:
    assert value is not None
    return value
