"""A design space: counted whole, searched by its counts, written down."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wnexplore.design.point import AXES, DesignPoint
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError
from wnexplore.results.escape import csv_cell
from wnexplore.results.filters import condition
from wnexplore.results.frame import frame
from wnexplore.results.record import Record
from wnexplore.space.cells import cells
from wnexplore.space.grid import Space
from wnexplore.space.selection import Indices, open_points
from wnexplore.space.skeleton_cache import skeleton_of

FIELDS = ("number", *AXES, "params", "flops", "same_as")
"""The columns of a space's CSV."""


def space_of(spec: SweepSpec) -> Space:
    """All points of a sweep, its `where` not asked."""
    return Space(cells(spec), skeleton_of)


@dataclass(frozen=True)
class Expansion:
    """What a sweep is to measure, and why the rest of its space is left out."""

    points: tuple[DesignPoint, ...]
    skipped: tuple[tuple[DesignPoint, str], ...]
    """Illegal points with the reason, the first `MAX_REPORTED` of them."""
    repeated: tuple[tuple[DesignPoint, DesignPoint], ...]
    """Points with the earlier one that is the same function, likewise."""
    illegal: int
    """How many there are in all."""
    excluded: int
    """How many legal points, each function once, the sweep's `where` excludes."""


MAX_MEASURED = 100_000
"""How many points a sweep may measure."""

MAX_REPORTED = 100
"""How many points of a kind are told one by one."""


def expand(spec: SweepSpec) -> Expansion:
    """The points of a sweep: legal, no function twice, and such that `where` may hold of them.

    Raises `InputError` if the space is too large to be listed, or `where` is wrong.
    """
    space = space_of(spec)
    kept = open_points(space, None if spec.where is None else condition(spec.where))
    if len(kept) > MAX_MEASURED:
        raise InputError(
            f"{len(kept):,} points to measure, more than the {MAX_MEASURED:,} of one sweep: leave out values"
            " of an axis, or say which by where"
        )
    illegal, repeated = np.flatnonzero(~space.legal), np.flatnonzero(space.repeated)
    doubles = (
        (space.point(i), space.point(int(space.first_like[i]))) for i in repeated[:MAX_REPORTED].tolist()
    )
    return Expansion(
        points=tuple(space.point(index) for index in kept.tolist()),
        skipped=tuple((space.point(i), space.reason(i)) for i in illegal[:MAX_REPORTED].tolist()),
        # A point that is written twice is one point.
        repeated=tuple(pair for pair in doubles if pair[0] != pair[1]),
        illegal=len(illegal),
        excluded=len(space) - len(illegal) - len(repeated) - len(kept),
    )


def frame_of(space: Space, points: Indices) -> pd.DataFrame:
    """Some points as rows of a table, as if they had been built and counted."""
    return frame(
        Record(
            "complexity",
            space.point(index),
            {},
            value={"params": int(space.params[index]), "flops": int(space.flops[index])},
        )
        for index in points.tolist()
    )


def to_csv(space: Space, points: Indices) -> str:
    """Some legal points as CSV, `FIELDS` in order; M and G exact, nothing where an axis is not the method's.

    `same_as` is the number, from 0, of the first point of the space that is the same function, where that
    is another one.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    same_as = space.first_like
    for index in points.tolist():
        first = int(same_as[index])
        counts = (int(space.params[index]), int(space.flops[index]), "" if first == index else first)
        writer.writerow((index, *map(csv_cell, space.point(index).to_dict().values()), *counts))
    return file.getvalue()
