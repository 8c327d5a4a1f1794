"""The rank correlation of two columns over the same networks: rank over rank, with Kendall's tau-b."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from wnexplore.design.point import AXES
from wnexplore.errors import InputError
from wnexplore.report.panels import FigureInfo, PlotAxis
from wnexplore.report.scatter import LABEL_ALL, ScatterPanel, labels, plottable
from wnexplore.report.series import Point, fill, series_keys, styles
from wnexplore.results.columns import COLUMNS, Column, column, comparable_within, direction
from wnexplore.results.frame import groups, shared, varying
from wnexplore.results.rank_correlation import ranks, tau_b

_MIN_POINTS = 3
"""Fewest points of one protocol: with two, the ranks agree or they don't."""


def rank_info(
    frame: pd.DataFrame, x: str = "flops", y: str = "latency_ms", *, color: str = "method"
) -> FigureInfo:
    """The rank of each point in column `x` and in column `y`; rank 1 is best, equal values share the mean.

    One panel per protocol with both figures of at least 3 points, with Kendall's tau-b, which is 1 if the
    columns order all pairs equally and -1 if none, and the diagonal of equal ranks. Raises `InputError` for
    columns that are unknown, empty or have no better direction, where no protocol has 3 points, and for more
    than 10 series.
    """
    color_column = column(color)
    for name in (x, y):
        direction(name)
    frame = plottable(frame, (x, y))
    parts = _rankable(frame, x, y)
    if not parts:
        raise InputError(f"nothing to rank: no protocol has both {x} and {y} of {_MIN_POINTS} points or more")
    frame = pd.concat(parts, ignore_index=True)
    looks = styles(frame, color_column)
    keys = comparable_within((x, y))
    panels, across = [], varying(frame, keys)
    for part in parts:
        xs, ys = ranks(part, x), ranks(part, y)
        points = [Point(a, b, label=label) for a, b, label in zip(xs, ys, labels(part), strict=True)]
        keyed = zip(series_keys(part, color), _fewer_labels(points), strict=True)
        said = [shared(part, across, usual=True), _agreement(xs, ys)]
        panels.append(
            ScatterPanel(
                title=" · ".join(text for text in said if text),
                x=_axis(COLUMNS[x]),
                y=_axis(COLUMNS[y]),
                series=fill(looks, keyed),
                diagonal=True,
            )
        )
    meaning = f"above the line: worse in {COLUMNS[y].heading} than in {COLUMNS[x].heading}"
    note = " · ".join(text for text in (shared(frame, ("backbone", *keys)), meaning) if text)
    return FigureInfo(tuple(panels), columns=min(3, len(panels)), note=note)


def can_rank(frame: pd.DataFrame, x: str = "flops", y: str = "latency_ms") -> bool:
    """Whether some protocol has both columns for enough points."""
    return bool(_rankable(frame[frame[[x, y]].notna().all(axis=1)], x, y))


def _rankable(frame: pd.DataFrame, x: str, y: str) -> list[pd.DataFrame]:
    """The rows of each protocol with enough points, one row per point."""
    parts = []
    for positions in groups(frame, comparable_within((x, y))).values():
        rows = frame.iloc[positions]
        # A point has one row per batch size or data set, which repeats independent figures.
        rows = rows.iloc[[first for first, *_ in groups(rows, AXES).values()]]
        if len(rows) >= _MIN_POINTS:
            parts.append(rows)
    return parts


def _agreement(a: Sequence[float], b: Sequence[float]) -> str:
    tau = tau_b(a, b)
    return f"{len(a)} points, " + ("all of one rank" if math.isnan(tau) else f"Kendall's τ-b = {tau:.2f}")


def _fewer_labels(points: list[Point]) -> list[Point]:
    """`points`; if too many have labels, only those farthest from the diagonal keep theirs."""
    labelled = sorted((p for p in points if p.label), key=lambda p: -abs(p.x - p.y))
    kept = set(labelled[:LABEL_ALL])
    return [p if p in kept else p._replace(label="") for p in points]


def _axis(column: Column) -> PlotAxis:
    return PlotAxis(f"{column.axis}, rank (1 is best)", whole=True)
