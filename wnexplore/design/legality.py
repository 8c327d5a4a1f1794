"""The legality of (M, G) in a network, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterable

from wnexplore.design.conv_sites import known_convs
from wnexplore.design.generator import IllegalPointError as IllegalPointError
from wnexplore.design.generator import Layer, layer_generator
from wnexplore.design.point import DesignPoint, stage_design


def check_legal(point: DesignPoint, layers: Iterable[tuple[int, Layer]] | None = None) -> None:
    """Raise `IllegalPointError` naming the first layer of `point` in which (M, G) is illegal.

    `layers` are the network's with their stages; by default `known_convs`.
    """
    if point.M is None or point.G is None:
        return
    if layers is None:
        layers = ((layer.stage, layer) for layer in known_convs(point.backbone, point.pyramid_channels))
    for stage, layer in layers:
        layer_generator(layer, stage_design(point, stage))
