"""The Pareto front of points with any number of objectives. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wnexplore.report.columns import Direction


def pareto(points: Sequence[Sequence[float | None]], directions: Sequence[Direction]) -> list[bool]:
    """Which of `points` no other point dominates: at least as good in all objectives, better in one.

    Equal points are kept together. A point with a missing value (None or NaN) is never kept and
    dominates nothing. Raises `ValueError` if a point has not one value for each direction.
    """
    signs = [1 if direction == "smaller" else -1 for direction in directions]
    costs: dict[int, tuple[float, ...]] = {}
    for index, point in enumerate(points):
        known = [value for value in point if value is not None and not math.isnan(value)]
        if len(point) != len(signs):
            raise ValueError(f"point {index} has {len(point)} values for {len(signs)} objectives")
        if len(known) == len(point):
            costs[index] = tuple(sign * value for sign, value in zip(signs, known, strict=True))
    # In lexicographic order a point can only be dominated by an earlier one, so that the front only
    # grows, and a point that the front doesn't dominate nothing does.
    front: list[tuple[float, ...]] = []
    for cost in sorted(set(costs.values())):
        if not any(all(a <= b for a, b in zip(kept, cost, strict=True)) for kept in front):
            front.append(cost)
    kept = set(front)
    return [costs.get(index) in kept for index in range(len(points))]
