"""Parameters and FLOPs of a design point in closed form; nothing is built.

The formulas are those of `wnexplore.design.methods`; the conventions are those of the `flops` column:
multiply-adds of convolutions, linear layers and matrix products for one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wnexplore.design.block_parts import Part
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Block, Skeleton
from wnexplore.design.stage_design import StageDesign, stage_design


class Counts(NamedTuple):
    """What a part of a network, or a whole one, costs."""

    params: int
    flops: int
    """Multiply-adds for one image."""


def count(point: DesignPoint, skeleton: Skeleton) -> Counts:
    """The counts of `point`, of whose plain network `skeleton` is the walk at the point's resolution.

    Raises `IllegalPointError` for an (M, G) that some layer can't have.
    """
    return total(
        [
            Part((), skeleton.params, skeleton.flops),
            *(part for block in skeleton.blocks for part in parts(block, stage_design(point, block.stage))),
        ]
    )


def function_of(point: DesignPoint, skeleton: Skeleton) -> tuple[object, ...]:
    """What the network of `point` is made of, block by block: points of one plain network with equal ones
    are one function. Raises `IllegalPointError` as `count` does.
    """
    return tuple(
        part.what for block in skeleton.blocks for part in parts(block, stage_design(point, block.stage))
    )


def parts(block: Block, design: StageDesign) -> Iterator[Part]:
    """The sites of a block as `design` makes them, and what it puts beside them."""
    for part in METHODS[design.method].count(block, design):
        yield part._replace(flops=part.flops * block.samples)


def total(parts: list[Part]) -> Counts:
    """The counts of `parts` together."""
    return Counts(sum(part.params for part in parts), sum(part.flops for part in parts))
