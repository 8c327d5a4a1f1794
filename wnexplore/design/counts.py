"""Parameters and FLOPs of a design point in closed form; nothing is built.

The formulas are those of `wnexplore.design.methods`; the conventions are those of the `flops` column:
multiply-adds of convolutions, linear layers and matrix products for one image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wnexplore.design.block_parts import Part
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.design.skeleton import Block, Site, Skeleton
from wnexplore.design.stage_design import StageDesign


class Counts(NamedTuple):
    """The counts of a network or of a part of one."""

    params: int
    flops: int
    """Multiply-adds for one image."""


def count(point: DesignPoint, skeleton: Skeleton) -> Counts:
    """The counts of `point`; `skeleton` is that of its plain network at its resolution.

    Raises `IllegalPointError` for an (M, G) that is illegal in some layer.
    """
    return total(
        [
            Part((), skeleton.params, skeleton.flops),
            *(part for block in skeleton.blocks for part in parts(block, stage_design(point, block.stage))),
        ]
    )


def function_of(point: DesignPoint, skeleton: Skeleton) -> tuple[object, ...]:
    """The identity of the function of `point`, block by block: points of one plain network with equal
    identities are the same function. Raises `IllegalPointError` as `count` does.
    """
    return tuple(
        part.what for block in skeleton.blocks for part in parts(block, stage_design(point, block.stage))
    )


def parts(block: Block, design: StageDesign) -> Iterator[Part]:
    """The parts of a block under `design`: its sites and additional layers."""
    for part in METHODS[design.method].count(block, design):
        yield part._replace(flops=part.flops * block.samples, again=block.again)


def site_of(part: Part, left: Sequence[Site], block: Block) -> Site | None:
    """The first convolution of those `left` in `block` that `part` computes; None for a layer beside them."""
    for site in left:
        work = site.weights * site.pixels * block.samples
        if part.flops == work or part.flops == work + part.params * block.samples:
            return site
    return None


def total(parts: Sequence[Part]) -> Counts:
    """The counts of `parts` together."""
    params = sum(part.params for part in parts if not part.again)
    return Counts(params, sum(part.flops for part in parts))
