"""Selects points of a space: by a condition, by the Pareto front, or at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from wnexplore.space.prediction import LATENCY_COLUMNS, PREDICTED, Predictions

Indices = NDArray[np.intp]
"""Indices of points of a space, in ascending order."""

COUNTED = ("params", "flops")
"""The figures known for every point before anything is built."""


def truth(
    space: Space, condition: Condition, predicted: Predictions | None = None, *, surely: bool = False
) -> Truth:
    """Where `condition` holds and where it fails; neither where it needs measurements.

    A comparison with M or G that differ by stage holds if it holds in every stage. With `predicted` latencies
    are known too, and the protocol; where `surely`, a comparison with a latency holds or fails only if it
    does so throughout the latency's interval. The result is undefined for illegal points.
    """
    return condition.truth(partial(_compared, space, predicted, surely))


def open_points(
    space: Space,
    condition: Condition | None,
    doubles: bool = False,
    predicted: Predictions | None = None,
    *,
    surely: bool = False,
) -> Indices:
    """The points to measure: legal, not definitely excluded by `condition`, and distinct functions unless
    `doubles`. `predicted` and `surely` are as in `truth`.
    """
    kept = space.legal if doubles else space.legal & ~space.repeated
    if condition is not None:
        kept = kept & ~truth(space, condition, predicted, surely=surely).fails
    return np.flatnonzero(kept)


def front(
    space: Space,
    points: Indices,
    objectives: Sequence[str] = COUNTED,
    predicted: Predictions | None = None,
) -> Indices:
    """The non-dominated `points`; less is better in all `objectives`.

    Latencies are compared by their predicted values. Raises `InputError` as `check_objectives` does.
    """
    check_objectives(objectives, predicted is not None)
    if len(points) == 0:
        return points
    costs = [_cost(space, name, points, predicted) for name in objectives]
    if len(costs) > 2:
        return np.sort(points[_undominated(np.stack([cost.astype(np.float64) for cost in costs], axis=1))])
    order = np.lexsort(costs[::-1])
    first, last = costs[0][order], costs[-1][order]
    starts = np.r_[True, (first[1:] != first[:-1]) | (last[1:] != last[:-1])]
    # In this order a point can only be dominated by an earlier one, which does if its last objective is no
    # larger.
    better = np.r_[True, last[1:] < np.minimum.accumulate(last)[:-1]]
    # Equal points share the result of the first.
    kept = better[np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))]
    return np.sort(points[order[kept]])


def _cost(space: Space, name: str, points: Indices, predicted: Predictions | None) -> NDArray[Any]:
    if name in COUNTED or predicted is None:
        cost: NDArray[Any] = getattr(space, name)[points]
        return cost
    return predicted.column(name, points)


def _undominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The rows that no other dominates; equal ones are kept together."""
    rows, inverse = np.unique(costs, axis=0, return_inverse=True)
    # Points that are good in all objectives dominate the most: they come first.
    left = np.argsort(np.argsort(rows, axis=0).sum(axis=1), kind="stable")
    done = 0
    while done < len(left):
        own = left[done]
        stays = (rows[left] < rows[own]).any(axis=1)
        stays[done] = True
        done = int(stays[:done].sum()) + 1
        left = left[stays]
    kept = np.zeros(len(rows), np.bool_)
    kept[left] = True
    return np.asarray(kept[inverse.ravel()])


def overlapping(predicted: Predictions, points: Indices) -> list[list[int]]:
    """For each of `points` those of the others from which its latency can't be told apart.

    That is where the intervals of the two ratios to plain overlap, and those of the milliseconds.
    """
    bounds = [predicted.column(f"{name}{end}", points) for name in PREDICTED for end in ("_low", "_high")]
    found = []
    for at in range(len(points)):
        alike = np.ones(len(points), np.bool_)
        for low, high in zip(bounds[::2], bounds[1::2], strict=True):
            alike &= (low <= high[at]) & (low[at] <= high)
        alike[at] = False
        found.append(points[alike].tolist())
    return found


def check_objectives(objectives: Sequence[str], with_latency: bool = False) -> list[str]:
    """`objectives`; `InputError` if empty or if one is not in `COUNTED` or, `with_latency`, `PREDICTED`."""
    known = (*COUNTED, *PREDICTED) if with_latency else COUNTED
    for name in objectives:
        if name in PREDICTED and not with_latency:
            raise InputError(
                f"objective '{name}' needs latencies to predict from: add --latency RUN (wnexplore calibrate"
                " makes one)"
            )
        if name not in known:
            raise unknown("objective of counts", name, known)
    if not objectives:
        raise InputError(f"no objective of counts: choose from {', '.join(known)}")
    return list(objectives)


def sample(points: Indices, count: int, seed: int) -> Indices:
    """A uniform random sample of `count` of `points`, or all if there are no more."""
    if count >= len(points):
        return points
    return np.sort(np.random.default_rng(seed).choice(points, count, replace=False))


def _compared(space: Space, predicted: Predictions | None, surely: bool, comparison: Comparison) -> Truth:
    if predicted is not None and comparison.names & set(LATENCY_COLUMNS):
        return _of_latency(space, predicted, surely, comparison)
    constants = {} if predicted is None else predicted.constants
    parts = [
        _in_cell(space, index, cell, span, comparison, constants)
        for index, (cell, span) in enumerate(space.spans())
    ]
    if not parts:
        return Truth.of([])
    return Truth(*(np.concatenate(flags) for flags in zip(*parts, strict=True)))


def _of_latency(space: Space, predicted: Predictions, surely: bool, comparison: Comparison) -> Truth:
    """A comparison with a predicted figure, unknown where there is no prediction."""
    known = predicted.known.copy()

    def ends(side: Side) -> tuple[Any, Any]:
        if not isinstance(side, Name):
            number = float(side) if isinstance(side, Fraction) else side
            return number, number
        if side.name in COUNTED:
            return (getattr(space, side.name),) * 2
        if side.name not in LATENCY_COLUMNS:
            known[:] = False
            return 0.0, 0.0
        bounds = ("_low", "_high") if surely and side.name in PREDICTED else ("", "")
        low, high = (predicted.column(f"{side.name}{end}") for end in bounds)
        return low, high

    (low, high), (other_low, other_high) = ends(comparison.left), ends(comparison.right)
    compared = _UFUNCS[comparison.sign]
    answers = np.array([compared(low, other_high), compared(high, other_low)])
    holds, fails = answers.all(axis=0), ~answers.any(axis=0)
    if comparison.sign in ("==", "!="):
        # Where both ends differ from a number, what lies between may be equal to it.
        exact = (low == high) & (other_low == other_high)
        apart = (high < other_low) | (other_high < low)
        holds, fails = holds & (exact | apart), fails & (exact | apart)
    return Truth(holds & known, fails & known)


def _in_cell(
    space: Space, index: int, cell: Cell, span: slice, comparison: Comparison, constants: Mapping[str, Any]
) -> Truth:
    names = comparison.names
    size = span.stop - span.start
    axes = {**constants, **_axes(cell)}
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
