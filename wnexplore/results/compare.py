"""Compares the same points in two runs, A and B, with certainty by intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from wnexplore.design.point import AXES
from wnexplore.errors import InputError
from wnexplore.results.columns import (
    COLUMNS,
    LATENCY_PROTOCOL,
    TRAINING_PROTOCOL,
    Column,
    Interval,
    direction,
)
from wnexplore.results.frame import cells, groups, intervals
from wnexplore.results.record import Record

Verdict = Literal["better", "worse", "equal", "unclear"]
"""The certain verdict on B compared with A; unclear if intervals overlap or are unknown."""

COUNTS = ("params", "flops")
"""Columns independent of the measurement: the runs can only differ if one of them counted wrong."""

# They define what is timed or tested, not how: figures of different batch sizes aren't comparable.
_NEVER_APART = ("batch_size", "mode", "dataset")
_SOFTWARE = ("wnexplore", "commit", "torch", "cuda", "cudnn", "driver")


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval: of zero width if the figure is exact, None if unknown."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Pair:
    """One point under one protocol in both runs."""

    identity: Mapping[str, Any]
    """The columns in which the two rows agree, with their values."""
    column: Column
    a: Measured
    b: Measured

    @property
    def ratio(self) -> float:
        """B over A."""
        return _over(self.b.value, self.a.value)

    @property
    def ratio_interval(self) -> Interval | None:
        """From B's lower bound over A's upper one to B's upper bound over A's lower one.

        It contains 1 if and only if the two intervals overlap. Each contains its true value in 95 % of the
        runs, and the runs are independent, so this contains the true ratio in at least 0.95² = 90 %, and in
        more than 99 % if both are about equally wide.
        """
        if self.a.interval is None or self.b.interval is None:
            return None
        (a_low, a_high), (b_low, b_high) = self.a.interval, self.b.interval
        return _over(b_low, a_high), _over(b_high, a_low)

    @property
    def verdict(self) -> Verdict:
        """The verdict on B compared with A."""
        if self.a.interval is None or self.b.interval is None:
            return "unclear"
        (a_low, a_high), (b_low, b_high) = self.a.interval, self.b.interval
        if a_low == a_high == b_low == b_high:
            return "equal"
        smaller, larger = b_high < a_low, b_low > a_high
        if not smaller and not larger:
            return "unclear"
        return "better" if smaller == (self.column.better == "smaller") else "worse"

    @property
    def worsening(self) -> float:
        """How many times worse B is: B over A, or A over B where larger is better."""
        smaller_is_better = self.column.better == "smaller"
        return self.ratio if smaller_is_better else _over(self.a.value, self.b.value)

    def fails(self, threshold: float) -> bool:
        """Whether B is certainly worse, and by more than the factor `threshold`."""
        return self.verdict == "worse" and self.worsening > threshold


@dataclass(frozen=True)
class Lonely:
    """A point under one protocol with a figure in only one run."""

    identity: Mapping[str, Any]
    status: str | None
    """Its status in the other run, such as "out_of_memory"; None if it is missing there."""


@dataclass(frozen=True)
class Count:
    """A network that the runs counted differently."""

    identity: Mapping[str, Any]
    column: Column
    a: int
    b: int


@dataclass(frozen=True)
class Versus:
    """Two runs compared in one column."""

    column: Column
    pairs: tuple[Pair, ...]
    only_a: tuple[Lonely, ...]
    only_b: tuple[Lonely, ...]
    apart: Mapping[str, tuple[Any, Any]]
    """The columns with one value per run that differ between the runs."""
    alike: Mapping[str, Any]
    """The part of the protocol common to all rows of both runs."""
    counts: tuple[Count, ...]


def versus(a: pd.DataFrame, b: pd.DataFrame, name: str = "latency_ms") -> Versus:
    """Compare the column called `name` of two frames, row by row.

    Rows are matched if they have the same point and agree in the protocol that the column depends on, except
    for columns with one value per run, which may differ between the runs (a device, a runtime); batch size,
    mode and data set may not. Rows are in the order of `a`. Raises `InputError` for a column that is unknown,
    has no better direction or is empty in one of them, and if no rows match.
    """
    direction(name)
    column = COLUMNS[name]
    for run, rows in (("A", a), ("B", b)):
        if not rows[name].notna().any():
            raise InputError(f"nothing to compare: column '{name}' is empty in {run}")
    full_a, full_b = a[a[name].notna()], b[b[name].notna()]
    varying = [
        key for key in column.within if len(groups(full_a, [key])) > 1 or len(groups(full_b, [key])) > 1
    ]
    matched = [key for key in column.within if key in _NEVER_APART or key in varying]
    rows_a, rows_b = (_rows(full, (*AXES, *matched), column) for full in (full_a, full_b))
    common = [key for key in rows_a if key in rows_b]
    if not common:
        raise InputError(
            f"nothing to compare: no point is in both runs with the same {', '.join(matched) or 'network'}"
        )

    def identity(key: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip((*AXES, *matched), key, strict=True))

    def lonely(keys: Iterable[tuple[Any, ...]], other: pd.DataFrame) -> tuple[Lonely, ...]:
        there = groups(other, (*AXES, *matched))
        statuses = cells(other, "status")
        return tuple(Lonely(identity(key), statuses[there[key][0]] if key in there else None) for key in keys)

    left_out = [key for key in column.within if key not in matched]
    held = {key: (cells(full_a, key)[0], cells(full_b, key)[0]) for key in left_out}
    return Versus(
        column=column,
        pairs=tuple(Pair(identity(key), column, rows_a[key], rows_b[key]) for key in common),
        only_a=lonely((key for key in rows_a if key not in rows_b), b),
        only_b=lonely((key for key in rows_b if key not in rows_a), a),
        apart={key: values for key, values in held.items() if values[0] != values[1]},
        alike={key: values[0] for key, values in held.items() if values[0] == values[1]},
        counts=tuple(_counted_differently(a, b, [other for other in COUNTS if other != name])),
    )


def software(a: Iterable[Record], b: Iterable[Record], name: str) -> dict[str, tuple[str, str]]:
    """The software with which each run measured the column called `name`, where it differs.

    Entries that are missing in one run, or have several versions in it, are left out.
    """
    figures = {LATENCY_PROTOCOL: "latency", TRAINING_PROTOCOL: "training"}
    figure = figures.get(COLUMNS[name].within, "complexity")
    ours = [[record.environment for record in run if record.figure == figure] for run in (a, b)]
    found = {}
    for part in _SOFTWARE:
        before, after = ({environment.get(part) for environment in record} for record in ours)
        if len(before) == len(after) == 1 and before != after and None not in before | after:
            found[part] = (str(*before), str(*after))
    return found


def _rows(frame: pd.DataFrame, keys: Sequence[str], column: Column) -> dict[tuple[Any, ...], Measured]:
    """The figure of each row; rows that agree in everything the column depends on repeat it."""
    values, bounds = cells(frame, column.name), intervals(frame, column.name)
    if column.interval is None:
        bounds = [(value, value) for value in values]
    found = {}
    for key, (first, *_) in groups(frame, keys).items():
        found[key] = Measured(values[first], bounds[first])
    return found


def _counted_differently(a: pd.DataFrame, b: pd.DataFrame, names: Sequence[str]) -> Iterable[Count]:
    there = groups(b, AXES)
    counts = {name: (cells(a, name), cells(b, name)) for name in names}
    for key, (first, *_) in groups(a, AXES).items():
        for name, (counted, other) in counts.items() if key in there else ():
            ours, theirs = counted[first], other[there[key][0]]
            if None not in (ours, theirs) and ours != theirs:
                yield Count(dict(zip(AXES, key, strict=True)), COLUMNS[name], ours, theirs)


def _over(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return 1.0 if numerator == 0 else math.inf
    return numerator / denominator
