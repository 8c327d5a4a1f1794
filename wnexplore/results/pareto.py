"""The Pareto front of points with any number of objectives, by their values or by their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wnexplore.results.columns import Direction, Interval

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Truths = np.ndarray[Any, np.dtype[np.bool_]]


def pareto(
    points: Sequence[Sequence[float | None]],
    directions: Sequence[Direction],
    intervals: Sequence[Sequence[Interval | None]] | None = None,
) -> list[bool]:
    """Which of `points` no other point dominates.

    Without `intervals` the plain rule: A dominates B if it is at least as good in all objectives and better
    in one. With them (one per value, None for an exact value) only certain dominance counts: A dominates B if
    it does by the plain rule for all true values within the intervals, that is, if in all objectives A's
    worse bound is at least as good as B's better bound, and better in one. So an overlap in any objective
    keeps B, everything kept by the plain rule is kept, and with intervals of zero width the rules agree. Both
    relations are transitive.

    Equal points are kept together. A point with a missing value (None or NaN) is never kept and
    dominates nothing. An interval that doesn't contain its value is extended to it. Raises
    `ValueError` if a point has not one value, and one interval, for each direction.
    """
    if intervals is None:
        intervals = [[None] * len(directions)] * len(points)
    for index, (point, bounds_of) in enumerate(zip(points, intervals, strict=True)):
        if not len(point) == len(bounds_of) == len(directions):
            given = f"{len(point)} values and {len(bounds_of)} intervals"
            raise ValueError(f"point {index} has {given} for {len(directions)} objectives")
    shape = len(points), len(directions)
    signs = np.array([1.0 if direction == "smaller" else -1.0 for direction in directions])
    costs = np.array(points, dtype=np.float64).reshape(shape) * signs
    nowhere = (math.nan, math.nan)
    bounds = np.array([[interval or nowhere for interval in row] for row in intervals], dtype=np.float64)
    # A missing bound is replaced by the value.
    ends = np.concatenate([costs[..., None], bounds.reshape(*shape, 2) * signs[:, None]], axis=2)
    best, worst = np.fmin.reduce(ends, axis=2), np.fmax.reduce(ends, axis=2)
    known = ~np.isnan(costs).any(axis=1)
    worst = np.ascontiguousarray(front_of(worst[known]).T)
    kept = np.zeros(len(points), dtype=np.bool_)
    kept[known] = ~dominated(best[known], worst)
    return [bool(optimal) for optimal in kept]


def front_of(costs: Numbers) -> Numbers:
    """The distinct rows of `costs` that no other is at least as good as in each column; less is better.

    Whatever a row dominates, one of these does.
    """
    kept, done = np.unique(costs, axis=0), 0
    while done < len(kept):
        left = (kept < kept[done]).any(axis=1)
        left[done] = True
        done = int(left[:done].sum()) + 1
        kept = kept[left]
    return kept


def dominated(best: Numbers, worst: Numbers) -> Truths:
    """For each row of `best`, the better bounds of a point's costs, whether another certainly dominates it.

    `worst` has the worse bounds of the others, shape (objectives, others).
    """
    # So many rows at once that a table of rows by points stays small.
    step = max(1, 1_000_000 // max(1, worst.size))
    found: list[Truths] = [np.zeros(0, dtype=np.bool_)]
    for start in range(0, len(best), step):
        rows = best[start : start + step, :, None]
        dominates = np.all(worst <= rows, axis=1) & np.any(worst < rows, axis=1)
        found.append(np.asarray(np.any(dominates, axis=1)))
    return np.concatenate(found)
