"""Compares the published table with our counts, row by row."""

from __future__ import annotations

from collections.abc import Iterator

from wnexplore.design.counts import count
from wnexplore.design.point import DesignPoint
from wnexplore.design.published_figures import PublishedComparison, PublishedRow, published_rows
from wnexplore.space.skeleton_cache import skeleton_of


def compare_published() -> Iterator[PublishedComparison]:
    """Each row of the published table with the nearest legal point of its multiplier."""
    for row in published_rows():
        comparisons = [_compared(row, point) for point in row.candidates()]
        yield min(comparisons, key=lambda comparison: comparison.distance)


def _compared(row: PublishedRow, point: DesignPoint) -> PublishedComparison:
    counts = count(point, skeleton_of(point))
    return PublishedComparison(row, point, counts.params, counts.flops)
