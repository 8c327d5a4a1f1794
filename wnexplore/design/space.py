"""From a sweep to its design points: the grid crossed, each network once, the illegal ones apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.design.sweep_file import SweepSpec


@dataclass(frozen=True)
class Space:
    """The points of a sweep in order, and those skipped as illegal, each with the reason."""

    points: tuple[DesignPoint, ...]
    skipped: tuple[tuple[DesignPoint, str], ...]


def expand(spec: SweepSpec) -> Space:
    """Every point of the sweep. Methods appear once for each value of the axes that they read."""
    legal: dict[DesignPoint, None] = {}
    skipped: dict[DesignPoint, str] = {}
    for point in _written(spec):
        try:
            check_legal(point)
            legal[point] = None
        except IllegalPointError as error:
            skipped[point] = str(error)
    return Space(tuple(legal), tuple(skipped.items()))


def _written(spec: SweepSpec) -> Iterator[DesignPoint]:
    if spec.has_grid:
        yield from _grid(spec)
    for point in spec.points or ():
        yield point.point()


def _grid(spec: SweepSpec) -> Iterator[DesignPoint]:
    networks = product(spec.backbones, spec.stem, spec.resolution or (None,), spec.num_classes, spec.methods)
    for backbone, stem, resolution, num_classes, method in networks:
        axes = METHODS[method]
        for values in product(*(getattr(spec, axis) for axis in axes)):
            yield DesignPoint.of(
                backbone,
                method,
                stem=stem,
                resolution=resolution,
                num_classes=num_classes,
                **dict(zip(axes, values, strict=True)),
            )
