"""Expands a sweep into the points to measure, and exports spaces."""

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
    """All points of a sweep, without its `where`."""
    return Space(cells(spec), skeleton_of)


@dataclass(frozen=True)
class Expansion:
    """The points that a sweep measures, and why the rest of its space is left out."""

    points: tuple[DesignPoint, ...]
    skipped: tuple[tuple[DesignPoint, str], ...]
    """The first `MAX_REPORTED` illegal points, with reasons."""
    repeated: tuple[tuple[DesignPoint, DesignPoint], ...]
    """The first `MAX_REPORTED` points with the earlier point of the same function."""
    illegal: int
    """The number of illegal points."""
    excluded: int
    """The number of legal, distinct points that the sweep's `where` excludes."""


MAX_MEASURED = 100_000
"""Most points that a sweep may measure."""

MAX_REPORTED = 100
"""Most points of a kind that are reported individually."""


def expand(spec: SweepSpec) -> Expansion:
    """The points of a sweep that are legal, distinct functions and not excluded by `where`.

    Raises `InputError` if the space is too large to be listed, or `where` is wrong.
    """
    space = space_of(spec)
    kept = open_points(space, None if spec.where is None else condition(spec.where))
    if len(kept) > MAX_MEASURED:
        raise InputError(
            f"{len(kept):,} points to measure, more than the {MAX_MEASURED:,} of one sweep: leave out values"
            " of an axis, or select points with where"
        )
    illegal, repeated = np.flatnonzero(~space.legal), np.flatnonzero(space.repeated)
    doubles = (
        (space.point(i), space.point(int(space.first_like[i]))) for i in repeated[:MAX_REPORTED].tolist()
    )
    return Expansion(
        points=tuple(space.point(index) for index in kept.tolist()),
        skipped=tuple((space.point(i), space.reason(i)) for i in illegal[:MAX_REPORTED].tolist()),
        # A point listed twice is one point.
        repeated=tuple(pair for pair in doubles if pair[0] != pair[1]),
        illegal=len(illegal),
        excluded=len(space) - len(illegal) - len(repeated) - len(kept),
    )


def frame_of(space: Space, points: Indices) -> pd.DataFrame:
    """Points as rows of a table with their counts."""
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
    """Legal points as CSV with the columns `FIELDS`; M and G exact, empty where an axis is not the method's.

    `same_as` is the index, from 0, of the first point of the space with the same function, if that is another
    one.
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
