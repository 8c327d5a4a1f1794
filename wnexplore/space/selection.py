"""Selects points of a space: by a condition, by the Pareto front, or at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wnexplore.design.point import AXES
from wnexplore.design.where import Comparison, Condition, Name, Side, Truth, compare
from wnexplore.errors import InputError, unknown
from wnexplore.space.cells import Cell
from wnexplore.space.grid import Space

Indices = NDArray[np.intp]
"""Indices of points of a space, in ascending order."""

COUNTED = ("params", "flops")
"""The figures known for every point before anything is built."""


def truth(space: Space, condition: Condition) -> Truth:
    """Where `condition` holds and where it fails; neither where it needs measurements.

    A comparison with M or G that differ by stage holds if it holds in every stage. The result is undefined
    for illegal points.
    """
    return condition.truth(partial(_compared, space))


def open_points(space: Space, condition: Condition | None, doubles: bool = False) -> Indices:
    """The points to measure: legal, not definitely excluded by `condition`, and distinct functions unless
    `doubles`.
    """
    kept = space.legal if doubles else space.legal & ~space.repeated
    if condition is not None:
        kept = kept & ~truth(space, condition).fails
    return np.flatnonzero(kept)


def front(space: Space, points: Indices, objectives: Sequence[str] = COUNTED) -> Indices:
    """The non-dominated `points`; less is better in all `objectives`.

    Raises `InputError` as `check_objectives` does.
    """
    check_objectives(objectives)
    if len(points) == 0:
        return points
    costs = [getattr(space, name)[points] for name in objectives]
    order = np.lexsort(costs[::-1])
    first, last = costs[0][order], costs[-1][order]
    starts = np.r_[True, (first[1:] != first[:-1]) | (last[1:] != last[:-1])]
    # In this order a point can only be dominated by an earlier one, which does if its last objective is no
    # larger.
    better = last < np.r_[np.iinfo(np.int64).max, np.minimum.accumulate(last)[:-1]]
    # Equal points share the result of the first.
    kept = better[np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))]
    return np.sort(points[order[kept]])


def check_objectives(objectives: Sequence[str]) -> list[str]:
    """`objectives`; `InputError` if empty or if one is not in `COUNTED`."""
    for name in objectives:
        if name not in COUNTED:
            raise unknown("objective of counts", name, COUNTED)
    if not objectives:
        raise InputError(f"no objective of counts: choose from {', '.join(COUNTED)}")
    return list(objectives)


def sample(points: Indices, count: int, seed: int) -> Indices:
    """A uniform random sample of `count` of `points`, or all if there are no more."""
    if count >= len(points):
        return points
    return np.sort(np.random.default_rng(seed).choice(points, count, replace=False))


def _compared(space: Space, comparison: Comparison) -> Truth:
    parts = [
        _in_cell(space, index, cell, span, comparison) for index, (cell, span) in enumerate(space.spans())
    ]
    if not parts:
        return Truth.of([])
    return Truth(*(np.concatenate(flags) for flags in zip(*parts, strict=True)))


def _in_cell(space: Space, index: int, cell: Cell, span: slice, comparison: Comparison) -> Truth:
    names = comparison.names
    size = span.stop - span.start
    axes = _axes(cell)
    if not names <= {*axes, *COUNTED, "M", "G"}:
        return Truth(np.zeros(size, np.bool_), np.zeros(size, np.bool_))
    counts = {name: getattr(space, name)[span] for name in names & set(COUNTED)}
    if not counts:
        return _by_choice(space, index, cell, comparison, axes)
    sides = [_numbers(side, axes, counts) for side in (comparison.left, comparison.right)]
    if any(side is None for side in sides):
        return Truth(np.zeros(size, np.bool_), np.zeros(size, np.bool_))
    holds = _UFUNCS[comparison.sign](*sides)
    return Truth(np.broadcast_to(holds, size), np.broadcast_to(~holds, size))


def _by_choice(space: Space, index: int, cell: Cell, comparison: Comparison, axes: dict[str, Any]) -> Truth:
    """A comparison of axes only: evaluated once per choice of M and G."""
    pairs: Sequence[tuple[Any, Any]] = cell.pairs or [(None, None)]
    answers = [
        compare(
            _value(comparison.left, {**axes, "M": M, "G": G}),
            comparison.sign,
            _value(comparison.right, {**axes, "M": M, "G": G}),
        )
        for M, G in pairs
    ]
    one = Truth.of(answers)
    choices = space.choice_of(index)
    if not isinstance(choices, dict):
        return Truth(one.holds[choices], one.fails[choices])
    decided = np.logical_and.reduce([(one.holds | one.fails)[choice] for choice in choices.values()])
    holds = np.logical_and.reduce([one.holds[choice] for choice in choices.values()])
    return Truth(decided & holds, decided & ~holds)


def _axes(cell: Cell) -> dict[str, Any]:
    """The axes that all points of a cell share."""
    given = {"method": cell.method, **cell.axes}
    return {axis: given.get(axis, getattr(cell.baseline, axis)) for axis in AXES if axis not in ("M", "G")}


def _value(side: Side, values: dict[str, Any]) -> Any:
    return values[side.name] if isinstance(side, Name) else side


def _numbers(side: Side, axes: dict[str, Any], counts: dict[str, NDArray[np.int64]]) -> Any:
    """A side of a comparison with a count, for numpy; None where it is missing or differs by stage."""
    if isinstance(side, Name):
        return counts.get(side.name, axes.get(side.name))
    if isinstance(side, Fraction):
        # An integer is above 2.5 exactly if it is above 2.25: so this is exact for any fraction.
        return int(side) if side.denominator == 1 else math.floor(side) + 0.5
    return side


_UFUNCS = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
