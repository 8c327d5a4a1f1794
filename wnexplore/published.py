"""The published table, row by row beside what this code counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from wnexplore.design.point import DesignPoint
from wnexplore.design.published import Comparison, published_rows
from wnexplore.measure.complexity import Complexity, measure_complexity
from wnexplore.models import build


def compare_published() -> Iterator[Comparison]:
    """Each row of the published table beside the legal point of its multiplier that comes nearest to it."""
    for row in published_rows():
        counted = [(point, _count(point)) for point in row.candidates()]
        comparisons = [Comparison(row, point, counts.params, counts.flops) for point, counts in counted]
        yield min(comparisons, key=lambda comparison: comparison.distance)


@cache
def _count(point: DesignPoint) -> Complexity:
    return measure_complexity(build(point), point.resolution)
