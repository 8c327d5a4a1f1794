"""Filters and sorts the rows of a frame."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import pandas as pd

from wnexplore.design.where import Comparison, Condition, Name, Side, Truth, compare, parse
from wnexplore.results.columns import COLUMNS, column
from wnexplore.results.frame import cells


def where(frame: pd.DataFrame, expression: str) -> pd.DataFrame:
    """The rows of `frame` for which `expression` holds, in their order.

    A comparison with a missing value is neither true nor false: neither it nor its negation matches. Raises
    `InputError` with the position of a mistake, or the nearest name of an unknown column.
    """

    return frame[truth(frame, condition(expression)).holds].reset_index(drop=True)


def truth(frame: pd.DataFrame, wanted: Condition) -> Truth:
    """The rows of `frame` in which a condition holds, and those in which it fails; neither if a value is
    missing.
    """

    def side(value: Side) -> Iterable[Any]:
        return cells(frame, value.name) if isinstance(value, Name) else repeat(value, len(frame))

    def leaf(comparison: Comparison) -> Truth:
        pairs = zip(side(comparison.left), side(comparison.right), strict=True)
        return Truth.of(compare(a, comparison.sign, b) for a, b in pairs)

    return wanted.truth(leaf)


def condition(expression: str) -> Condition:
    """`expression` in the language of `wnexplore.design.where`, over all `COLUMNS`."""
    return parse(expression, {name: column.kind for name, column in COLUMNS.items()})


def sort(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """`frame` ordered by a column, "-top1" for the largest first, "backbone,-top1" for several.

    Rows with a missing value come last either way, equal ones keep their order. Raises `InputError`
    for an unknown column.
    """
    order = list(range(len(frame)))
    for part in reversed(key.split(",")):
        name = part.strip()
        descending = name.startswith("-")
        values = cells(frame, column(name.removeprefix("-").strip()).name)
        known = [index for index in order if values[index] is not None]
        known.sort(key=values.__getitem__, reverse=descending)
        order = known + [index for index in order if values[index] is None]
    return frame.iloc[order].reset_index(drop=True)
