"""One column over another as a scatter plot: its panels as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from wnexplore.errors import InputError
from wnexplore.report.figure_info import Axis, FigureInfo, Point, ScatterPanel, Series
from wnexplore.report.series import Key, fill, series_keys, styles
from wnexplore.results.columns import (
    COLUMNS,
    Column,
    Interval,
    column,
    comparable_within,
    numeric_column,
)
from wnexplore.results.frame import cells, distinct, groups, intervals, numbers, shared, varying
from wnexplore.results.pareto import pareto as pareto_points

LABEL_ALL = 16
"""With more points of generated kernels in a panel than this, only those that matter get a label."""


def scatter_info(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    color: str = "method",
    pareto: bool = True,
    strict: bool = False,
    logx: bool = False,
) -> FigureInfo:
    """The figures `x` and `y` of each row, one series for each value of `color`, and its backbone.

    A panel for each protocol (device, batch size, data set), as far as `x` or `y` depend on one.
    With `pareto` the front goes through the points that are optimal by their values; those beside it
    that may be optimal too, as latencies' intervals overlap, are ringed unless `strict`. Rows without
    one of the figures are left out. Raises `InputError` for columns that are unknown, hold text, are
    empty, or split the rows into more than 10 series, and for a logarithm of what is not above 0.
    """
    x_column, y_column, color_column = numeric_column(x), numeric_column(y), column(color)
    frame = plottable(frame, (x, y))
    if logx and min(value for value in numbers(frame, x) if value is not None) <= 0:
        raise InputError(f"column '{x}' has values that are not above 0: leave the logarithm out")
    keys = comparable_within((x, y))
    panels = []
    looks = styles(frame, color_column)
    for positions in groups(frame, keys).values():
        own = frame.iloc[positions]
        keyed = dict.fromkeys(zip(series_keys(own, color), _points(own, x, y), strict=True))
        panel = ScatterPanel(
            title=shared(own, varying(frame, keys), usual=True),
            x=_axis(x_column, logx),
            y=_axis(y_column, False),
            series=(),
            front_rises_before=x_column.better == "larger",
        )
        panels.append(_filled(panel, list(keyed), looks, (x_column, y_column) if pareto else (), strict))
    note = shared(frame, ("backbone", *keys))
    if color != "method" and any(p.label for panel in panels for s in panel.series for p in s.points):
        note += " · labels are (M, G)"
    return FigureInfo(tuple(panels), columns=min(3, len(panels)), note=note)


def plottable(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows that have all of the columns; `InputError` that says which column is empty."""
    full = frame[[None not in row for row in zip(*(numbers(frame, name) for name in names), strict=True)]]
    if len(full):
        return full
    filled = [name for name, each in COLUMNS.items() if each.numeric and distinct(frame, name)]
    choice = f"these can be plotted: {', '.join(filled)}" if filled else "no column can be plotted"
    empty = [name for name in names if not distinct(frame, name)]
    if empty:
        raise InputError(f"nothing to plot: column '{empty[0]}' is empty; {choice}")
    raise InputError(f"nothing to plot: no row has both {names[0]} and {names[1]}; {choice}")


def labels(frame: pd.DataFrame) -> list[str]:
    """For each row "(M, G)", "" where it has none."""
    pairs = zip(cells(frame, "M"), cells(frame, "G"), strict=True)
    return ["" if M is None else f"({M}, {G})" for M, G in pairs]


def _filled(
    panel: ScatterPanel,
    keyed: list[tuple[Key, Point]],
    looks: Mapping[Key, Series],
    objectives: Sequence[Column],
    strict: bool,
) -> ScatterPanel:
    """`panel` with its points, and with the front in `objectives` where those have better directions."""
    points = [point for _, point in keyed]
    directions = [objective.better for objective in objectives if objective.better is not None]
    best: set[Point] = set()
    if len(directions) == 2:
        values = [(point.x, point.y) for point in points]
        doubts = None if strict else [_doubts(point, objectives) for point in points]
        best = {p for p, optimal in zip(points, pareto_points(values, directions), strict=True) if optimal}
        kept = pareto_points(values, directions, doubts)
        points = [replace(p, ringed=may_be and p not in best) for p, may_be in zip(points, kept, strict=True)]
    points = _fewer_labels(points, [0 if p in best else 1 if p.ringed else 2 for p in points])
    return replace(
        panel,
        series=fill(looks, zip((key for key, _ in keyed), points, strict=True)),
        front=tuple(sorted({(point.x, point.y) for point in best})),
    )


def _doubts(point: Point, objectives: Sequence[Column]) -> list[Interval | None]:
    both = zip((point.x_interval, point.y_interval), objectives, strict=True)
    return [interval if objective.unsure else None for interval, objective in both]


def _fewer_labels(points: list[Point], ranks: list[int]) -> list[Point]:
    """`points`, where too many have labels without those of the highest ranks; rank 0 keeps its own."""
    last = 2
    while (
        last
        and sum(bool(p.label) and rank <= last for p, rank in zip(points, ranks, strict=True)) > LABEL_ALL
    ):
        last -= 1
    return [p if rank <= last else replace(p, label="") for p, rank in zip(points, ranks, strict=True)]


def _points(frame: pd.DataFrame, x: str, y: str) -> list[Point]:
    xs, ys = numbers(frame, x), numbers(frame, y)
    rows = zip(xs, ys, intervals(frame, x), intervals(frame, y), labels(frame), strict=True)
    return [Point(a, b, c, d, label) for a, b, c, d, label in rows if a is not None and b is not None]


def _axis(column: Column, log: bool) -> Axis:
    return Axis(column.label, count=column.kind == "count", log=log)
