"""What a figure shows, as plain data: the renderer draws it, tests look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from wnexplore.errors import InputError
from wnexplore.report.columns import COLUMNS, Column, column, compact, comparable_within, numeric_column
from wnexplore.report.frame import cells, distinct, groups, numbers, shared, varying
from wnexplore.report.pareto import pareto

_LABEL_ALL = 16
"""With more points of generated kernels in a panel than this, only those on the front get a label."""

_MAX_SERIES = 10
_NETWORK = ("stem", "resolution", "num_classes", "reduction", "activation")
_HEATS = ("params", "flops", "latency_ratio", "latency_ms", "top1")


@dataclass(frozen=True)
class Axis:
    """One axis: its label with unit, whether its ticks are counts (40M), whether it is logarithmic."""

    label: str
    count: bool
    log: bool = False


Interval = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """One marker with its 95 % intervals; `label` is "" where it gets none."""

    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points that look alike; `colour` and `marker` are matplotlib's names."""

    name: str
    colour: str
    marker: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class ScatterPanel:
    """One pair of axes; `front` is the Pareto front from left to right, () if none is drawn."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    front: tuple[tuple[float, float], ...] = ()
    front_rises_before: bool = False
    """Whether the front's step between two points is at the left one, as where more x is better."""


@dataclass(frozen=True)
class HeatPanel:
    """A figure over M (columns) and G (rows); None where it was not measured or can't be built."""

    title: str
    M: tuple[str, ...]
    G: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]


Panel = ScatterPanel | HeatPanel


@dataclass(frozen=True)
class FigureInfo:
    """Panels in rows of `columns`; `note` says what all of them share."""

    panels: tuple[Panel, ...]
    columns: int
    note: str = ""
    share_y: bool = False


def scatter_info(
    frame: pd.DataFrame, x: str, y: str, *, color: str = "method", pareto: bool = True, logx: bool = False
) -> FigureInfo:
    """The figures `x` and `y` of each row, one series for each value of `color`, and its backbone.

    A panel for each protocol (device, batch size, data set), as far as `x` or `y` depend on one.
    Rows without one of the figures are left out. Raises `InputError` for columns that are unknown,
    hold text, are empty, or split the rows into more than 10 series, and for a logarithm of what is
    not above 0.
    """
    x_column, y_column, color_column = numeric_column(x), numeric_column(y), column(color)
    frame = _plottable(frame, (x, y))
    if logx and min(value for value in numbers(frame, x) if value is not None) <= 0:
        raise InputError(f"column '{x}' has values that are not above 0: leave the logarithm out")
    keys = comparable_within((x, y))
    styles = _styles(frame, color_column)
    axes = _axis(x_column, logx), _axis(y_column, False)
    panels = tuple(
        _scatter_panel(own, axes, (x_column, y_column), styles, color, pareto)
        for own in (frame.iloc[positions] for positions in groups(frame, keys).values())
    )
    titles = [_panel_title(frame, positions, keys) for positions in groups(frame, keys).values()]
    panels = tuple(replace(panel, title=title) for panel, title in zip(panels, titles, strict=True))
    note = shared(frame, ("backbone", *keys))
    if color != "method" and any(p.label for panel in panels for s in panel.series for p in s.points):
        note += " · labels are (M, G)"
    return FigureInfo(panels, columns=min(3, len(panels)), note=note)


def heat_infos(frame: pd.DataFrame) -> dict[str, FigureInfo]:
    """For each family of WeightNets that spans a grid its figures over M and G, by a name for it.

    A family shares all but M and G. Of the figures, parameters, FLOPs, the latency over the plain
    network's (or the latency) of each protocol and the accuracy of each have a panel.
    """
    measured = frame[list(_HEATS)].notna().any(axis=1)
    generated = frame[measured & (frame["method"] == "weightnet")]
    keys = ("backbone", *_NETWORK)
    infos = {}
    for positions in groups(generated, keys).values():
        family = generated.iloc[positions]
        panels = _heat_panels(family) if _is_grid(family) else []
        if panels:
            parts = [COLUMNS[name].say(distinct(family, name)[0]) for name in varying(generated, keys)]
            name = "_".join("".join(c if c.isalnum() else "_" for c in part) for part in ["heatmap", *parts])
            note = shared(family, ("backbone", *comparable_within(_HEATS), "seeds"))
            infos[name] = FigureInfo(tuple(panels), columns=min(3, len(panels)), note=note)
    return infos


def _plottable(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows that have all of the columns; `InputError` that says which column is empty."""
    full = frame[frame[list(names)].notna().all(axis=1)]
    if len(full):
        return full
    filled = [name for name, each in COLUMNS.items() if each.numeric and distinct(frame, name)]
    choice = f"these can be plotted: {', '.join(filled)}" if filled else "no column can be plotted"
    empty = [name for name in names if not distinct(frame, name)]
    if empty:
        raise InputError(f"nothing to plot: column '{empty[0]}' is empty; {choice}")
    raise InputError(f"nothing to plot: no row has both {names[0]} and {names[1]}; {choice}")


def _scatter_panel(
    frame: pd.DataFrame,
    axes: tuple[Axis, Axis],
    columns: tuple[Column, Column],
    styles: dict[tuple[Any, Any], Series],
    color: str,
    with_front: bool,
) -> ScatterPanel:
    points: dict[tuple[Any, Any], list[Point]] = {}
    for key, point in zip(_series_keys(frame, color), _points(frame, *columns), strict=True):
        own = points.setdefault(key, [])
        if point not in own:  # a row for each batch size repeats the accuracy
            own.append(point)
    directions = [column.better for column in columns if column.better is not None]
    everything = [point for own in points.values() for point in own]
    front: list[tuple[float, float]] = []
    if with_front and len(directions) == 2:
        kept = pareto([(point.x, point.y) for point in everything], directions)
        front = sorted({(p.x, p.y) for p, optimal in zip(everything, kept, strict=True) if optimal})
    if sum(bool(point.label) for point in everything) > _LABEL_ALL:
        best = set(front)
        for own in points.values():
            own[:] = [p if (p.x, p.y) in best else replace(p, label="") for p in own]
    return ScatterPanel(
        title="",
        x=axes[0],
        y=axes[1],
        series=tuple(replace(styles[key], points=tuple(points[key])) for key in styles if key in points),
        front=tuple(front),
        front_rises_before=columns[0].better == "larger",
    )


def _points(frame: pd.DataFrame, x: Column, y: Column) -> list[Point]:
    rows = zip(
        numbers(frame, x.name),
        numbers(frame, y.name),
        _intervals(frame, x),
        _intervals(frame, y),
        cells(frame, "M"),
        cells(frame, "G"),
        strict=True,
    )
    return [
        Point(a, b, a_interval, b_interval, "" if M is None else f"({M}, {G})")
        for a, b, a_interval, b_interval, M, G in rows
        if a is not None and b is not None
    ]


def _intervals(frame: pd.DataFrame, column: Column) -> list[Interval | None]:
    if column.interval is None:
        return [None] * len(frame)
    bounds = zip(*(numbers(frame, name) for name in column.interval), strict=True)
    return [None if low is None or high is None else (low, high) for low, high in bounds]


def _axis(column: Column, log: bool) -> Axis:
    return Axis(column.label, count=column.kind == "count", log=log)


def _panel_title(frame: pd.DataFrame, positions: list[int], keys: Sequence[str]) -> str:
    return shared(frame.iloc[positions], varying(frame, keys))


# --- how series look ---------------------------------------------------------------------------------

# Lightness 0, 38, 66, 88, 52, 78, ... of 100: in greyscale they still differ, and so do the markers.
_COLOURS = (
    *("#0060A8", "#E8862E", "#000000", "#F2D74E", "#009E73", "#8CC9F0"),
    *("#CC79A7", "#8A3B12", "#9A9A9A", "#C9E4A0"),
)
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p")
_METHOD_STYLE = {
    "weightnet": (_COLOURS[0], "o"),
    "condconv": (_COLOURS[1], "^"),
    "plain": (_COLOURS[2], "s"),
    "se": (_COLOURS[3], "D"),
}
_METHOD_NAME = {"weightnet": "WeightNet", "condconv": "CondConv", "plain": "Plain", "se": "SE"}


def _series_keys(frame: pd.DataFrame, color: str) -> list[tuple[Any, Any]]:
    return list(zip(cells(frame, color), cells(frame, "backbone"), strict=True))


def _styles(frame: pd.DataFrame, color: Column) -> dict[tuple[Any, Any], Series]:
    """An empty series for each (value of `color`, backbone), in the order of the legend.

    The value has the colour; it has the marker too, unless there are several backbones to tell apart.
    """
    values, backbones = distinct(frame, color.name), distinct(frame, "backbone")
    if color.numeric:
        values.sort()
    if None in cells(frame, color.name):
        values = [None, *values]
    if max(len(values), len(backbones)) > _MAX_SERIES:
        raise InputError(
            f"column '{color.name}' splits the rows into {len(values)} series, "
            f"{len(backbones)} backbones: at most {_MAX_SERIES} of each can be told apart"
        )
    several = len(backbones) > 1 and color.name != "backbone"
    free = iter(zip(_COLOURS, _MARKERS, strict=True))
    own = {value: _METHOD_STYLE[value] for value in values if value in _METHOD_STYLE}
    unused = (style for style in free if style not in own.values())
    looks = {value: own[value] if value in own else next(unused) for value in values}
    present = set(_series_keys(frame, color.name))
    styles = {}
    for index, backbone in enumerate(backbones):
        for value in values:
            if (value, backbone) in present:
                colour, marker = looks[value]
                name = _series_name(color, value)
                if several:
                    name, marker = f"{name}, {backbone}", _MARKERS[index]
                if value == "weightnet":
                    name = f"{name} (M, G)"
                styles[value, backbone] = Series(name, colour, marker, ())
    return styles


def _series_name(color: Column, value: Any) -> str:
    if value is None:
        return f"no {color.heading}"
    return _METHOD_NAME.get(value, color.say(value)) if color.name == "method" else color.say(value)


# --- heat maps ---------------------------------------------------------------------------------------


def _is_grid(frame: pd.DataFrame) -> bool:
    return len(varying(frame, ("M", "G"))) > 0 and len(groups(frame, ("M", "G"))) > 2


def _heat_panels(frame: pd.DataFrame) -> list[HeatPanel]:
    unwanted = "latency_ms" if distinct(frame, "latency_ratio") else "latency_ratio"
    panels = []
    for name in (name for name in _HEATS if name != unwanted):
        measured = frame[frame[name].notna()]
        keys = COLUMNS[name].within
        for positions in groups(measured, keys).values():
            protocol = _panel_title(measured, positions, keys)
            title = COLUMNS[name].label + (f"\n{protocol}" if protocol else "")
            panels.append(_heat_panel(frame, measured.iloc[positions], COLUMNS[name], title))
    return panels


def _heat_panel(grid: pd.DataFrame, frame: pd.DataFrame, column: Column, title: str) -> HeatPanel:
    Ms, Gs = sorted(distinct(grid, "M")), sorted(distinct(grid, "G"))
    cell = zip(cells(frame, "M"), cells(frame, "G"), cells(frame, column.name), strict=True)
    found = {(M, G): value for M, G, value in cell}
    values = [[found.get((M, G)) for M in Ms] for G in Gs]
    show = compact if column.kind == "count" else column.format
    return HeatPanel(
        title=title,
        M=tuple(str(M) for M in Ms),
        G=tuple(str(G) for G in Gs),
        values=tuple(tuple(None if v is None else float(v) for v in row) for row in values),
        texts=tuple(tuple("" if v is None else show(v) for v in row) for row in values),
    )
