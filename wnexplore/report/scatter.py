"""Scatter plots of one column over another: data and drawing."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from wnexplore.errors import InputError
from wnexplore.report.panels import (
    DENSE,
    FEW,
    GREY,
    FigureInfo,
    LegendEntry,
    Panel,
    PlotAxis,
    dress,
    limits,
    ticks,
)
from wnexplore.report.placement import Box, Label, leader, place, straight
from wnexplore.report.series import Key, Point, Series, fill, series_keys, styles
from wnexplore.results.columns import (
    COLUMNS,
    LATENCY_PROTOCOL,
    Column,
    Interval,
    column,
    comparable_within,
    numeric_column,
)
from wnexplore.results.frame import cells, distinct, groups, intervals, numbers, shared, varying
from wnexplore.results.pareto import pareto as pareto_points

LABEL_ALL = 16
"""Most labels in a panel; with more points only those near the front get one."""


@dataclass(frozen=True)
class ScatterPanel(Panel):
    """One pair of axes; `front` is the Pareto front from left to right, () if none is drawn."""

    title: str
    x: PlotAxis
    y: PlotAxis
    series: tuple[Series, ...]
    front: tuple[tuple[float, float], ...] = ()
    predicted_front: tuple[tuple[float, float], ...] = ()
    """The front of the predicted points among themselves."""
    front_rises_before: bool = False
    """Whether the front's step between two points is at the left one, as if larger x is better."""
    diagonal: bool = False
    """Whether the line y = x is drawn, as between two ranks."""
    few: int = FEW
    """Most points that are drawn one by one."""
    dense: int = DENSE
    """Most points that are drawn as vectors and with error bars; of more, only the front has those."""

    @property
    def points(self) -> list[Point]:
        """The points of all series."""
        return [point for series in self.series for point in series.points]

    def draw(self, ax: Axes) -> None:
        _draw(ax, self)

    def place_labels(self, ax: Axes) -> None:
        _place_labels(ax, self)

    def y_values(self) -> list[float]:
        return _reach(self.points, "y")

    def legend(self) -> list[LegendEntry]:
        return _legend(self)


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

    One panel per protocol (device, batch size, data set) on which `x` or `y` depends. With `pareto` the front
    joins the points that are optimal by their values; others that may be optimal, because latency intervals
    overlap, are ringed unless `strict`. Rows without one of the figures are left out. Raises `InputError` for
    columns that are unknown, hold text, are empty, or split the rows into more than 10 series, and for a
    logarithm of what is not above 0.
    """
    x_column, y_column, color_column = numeric_column(x), numeric_column(y), column(color)
    frame = plottable(frame, (x, y))
    if logx and min(value for value in numbers(frame, x) if value is not None) <= 0:
        raise InputError(f"column '{x}' has values that are not above 0: leave the logarithm out")
    keys = comparable_within((x, y))
    looks = styles(frame, color_column)
    # A row repeats the figures of others that differ in what neither column depends on.
    seen = (color, "backbone", "M", "G", *keys, *(name for c in (x_column, y_column) for name in _cells(c)))
    frame = frame.drop_duplicates(list(dict.fromkeys(seen)))
    panels, across = [], varying(frame, keys)
    for positions in groups(frame, keys).values():
        rows = frame.iloc[positions]
        keyed = dict.fromkeys(zip(series_keys(rows, color), _points(rows, x, y), strict=True))
        panel = ScatterPanel(
            title=shared(rows, across, usual=True),
            x=_axis(x_column, logx),
            y=_axis(y_column, False),
            series=(),
            front_rises_before=x_column.better == "larger",
        )
        panels.append(_filled(panel, list(keyed), looks, (x_column, y_column) if pareto else (), strict))
    note = shared(frame, ("backbone", *keys))
    if color != "method" and any(p.label for panel in panels for s in panel.series for p in s.points):
        note += " · labels are (M, G)"
    if any(len(panel.points) > panel.dense for panel in panels):
        note += f" · of more than {DENSE:,} points only the front has error bars"
    return FigureInfo(tuple(panels), columns=min(3, len(panels)), note=note)


def plottable(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows with values in all columns; `InputError` naming the empty column."""
    full = frame[[None not in row for row in zip(*(numbers(frame, name) for name in names), strict=True)]]
    if len(full):
        return full
    filled = [name for name, column in COLUMNS.items() if column.numeric and distinct(frame, name)]
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
    """`panel` with its points, and with the front in `objectives` if those have better directions."""
    points = [point for _, point in keyed]
    directions = [objective.better for objective in objectives if objective.better is not None]
    best: set[Point] = set()
    if len(directions) == 2:
        # Predicted points have a front among themselves: they never mark, or unmark, a measured one.
        measured, fitted = ([p for p in points if p.predicted is predicted] for predicted in (False, True))
        for some in (measured, fitted):
            values = [(point.x, point.y) for point in some]
            best |= {p for p, is_best in zip(some, pareto_points(values, directions), strict=True) if is_best}
        if not strict and any(objective.unsure for objective in objectives):
            values = [(point.x, point.y) for point in measured]
            kept = pareto_points(values, directions, [_doubts(point, objectives) for point in measured])
            ringed = {p for p, may_be in zip(measured, kept, strict=True) if may_be and p not in best}
            points = [p._replace(ringed=True) if p in ringed else p for p in points]
    points = _fewer_labels(points, [0 if p in best else 1 if p.ringed else 2 for p in points])
    return replace(
        panel,
        series=fill(looks, zip((key for key, _ in keyed), points, strict=True)),
        front=tuple(sorted({(point.x, point.y) for point in best if not point.predicted})),
        predicted_front=tuple(sorted({(point.x, point.y) for point in best if point.predicted})),
    )


def _doubts(point: Point, objectives: Sequence[Column]) -> list[Interval | None]:
    both = zip((point.x_interval, point.y_interval), objectives, strict=True)
    return [interval if objective.unsure else None for interval, objective in both]


def _fewer_labels(points: list[Point], ranks: list[int]) -> list[Point]:
    """`points`; if too many have labels, those of the highest ranks lose theirs; rank 0 keeps its label."""
    last = 2
    while (
        last
        and sum(bool(p.label) and rank <= last for p, rank in zip(points, ranks, strict=True)) > LABEL_ALL
    ):
        last -= 1
    return [
        p if rank <= last or not p.label else p._replace(label="")
        for p, rank in zip(points, ranks, strict=True)
    ]


def _points(frame: pd.DataFrame, x: str, y: str) -> list[Point]:
    xs, ys = numbers(frame, x), numbers(frame, y)
    timed = any(COLUMNS[name].within == LATENCY_PROTOCOL for name in (x, y))
    fitted = [timed and value == "predicted" for value in cells(frame, "latency_is")]
    rows = zip(xs, ys, intervals(frame, x), intervals(frame, y), labels(frame), fitted, strict=True)
    return [
        Point(a, b, c, d, label, predicted=predicted)
        for a, b, c, d, label, predicted in rows
        if a is not None and b is not None
    ]


def _cells(column: Column) -> tuple[str, ...]:
    """The columns with its value and interval."""
    return column.name, *(column.interval or ())


def _axis(column: Column, log: bool) -> PlotAxis:
    return PlotAxis(column.label, count=column.kind == "count", log=log)


# --- drawing -----------------------------------------------------------------------------------------

_MARKER = 5.0
_RING = 9.0
_CAP = 1.5
_BARS = 500
"""Error bars of one path: longer paths aren't moved to whole pixels, and look blurred."""
_LABEL = 6.5
_FRONT_LINE: Any = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 2))}
_PREDICTED_LINE: Any = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (1, 1.5))}
_DIAGONAL: Any = {"color": GREY, "linewidth": 0.7, "linestyle": (0, (1, 2))}
_RING_MARK: Any = {
    "marker": "o",
    "markersize": _RING,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
    "markeredgewidth": 0.6,
}


_Place = tuple[float, float]


def _draw(ax: Axes, panel: ScatterPanel) -> None:
    if panel.front:
        steps = "steps-pre" if panel.front_rises_before else "steps-post"
        xs, ys = zip(*panel.front, strict=True)
        ax.plot(xs, ys, drawstyle=steps, zorder=1, **_FRONT_LINE)
    if panel.predicted_front:
        steps = "steps-pre" if panel.front_rises_before else "steps-post"
        xs, ys = zip(*panel.predicted_front, strict=True)
        ax.plot(xs, ys, drawstyle=steps, zorder=1, **_PREDICTED_LINE)
    points = panel.points
    dense = len(points) > panel.dense
    # Of very many points, the bars would hide what they belong to.
    barred = {*panel.front, *panel.predicted_front} if dense else None
    for series in panel.series:
        _draw_series(ax, series, barred, one_by_one=len(points) <= panel.few, rasterized=dense)
    if panel.diagonal:
        ax.axline((1, 1), slope=1, zorder=1, **_DIAGONAL)
    ringed = [point for point in points if point.ringed]
    ax.plot(
        [point.x for point in ringed],
        [point.y for point in ringed],
        linestyle="none",
        zorder=2,
        rasterized=dense,
        **_RING_MARK,
    )
    ax.set_xlim(*limits(_reach(points, "x"), panel.x.log))
    ax.set_ylim(*limits(_reach(points, "y"), panel.y.log))
    if panel.x.log:
        ax.set_xscale("log")
        ax.set_xlim(*limits(_reach(points, "x"), log=True))
    if panel.diagonal:
        low, high = limits(_reach(points, "x") + _reach(points, "y"), log=False)
        # Ranks and their ticks start at 1.
        ax.set(xlim=(max(low, 0.25), high), ylim=(max(low, 0.25), high))
    ticks(ax, panel.x, "x")
    ticks(ax, panel.y, "y")
    ax.set_xlabel(panel.x.label)
    ax.set_ylabel(panel.y.label)
    ax.set_title("\n".join(textwrap.wrap(panel.title, 52)))
    dress(ax)


def _draw_series(
    ax: Axes, series: Series, barred: Collection[_Place] | None, *, one_by_one: bool, rasterized: bool
) -> None:
    """A marker for each point, and bars for all or those at the places `barred`."""
    with_bars = [point for point in series.points if barred is None or (point.x, point.y) in barred]
    # Each point's bars lie on those of the points before it, which nobody could see of very many.
    for points in ([point] for point in with_bars) if one_by_one else [with_bars]:
        draw_bars(ax, "x", [(p.x, p.y, p.x_interval) for p in points if p.x_interval], rasterized)
        draw_bars(ax, "y", [(p.x, p.y, p.y_interval) for p in points if p.y_interval], rasterized)
    for predicted in (True, False):
        points = [point for point in series.points if point.predicted is predicted]
        if points:
            ax.plot(
                [point.x for point in points],
                [point.y for point in points],
                linestyle="none",
                zorder=3,
                rasterized=rasterized,
                **(_hollow(series) if predicted else _marker(series)),
            )


def draw_bars(ax: Axes, name: str, bars: Sequence[tuple[float, float, Interval]], rasterized: bool) -> None:
    """The error bars of some points along one axis: each point's place and its interval there.

    As `Axes.errorbar` draws them, which takes thousands of bars several times as long.
    """
    if not bars:
        return
    along = 0 if name == "x" else 1
    places = np.array([(x, y) for x, y, _ in bars])
    ends = np.repeat(places[:, None], 2, axis=1)
    # Rounding may put a median outside its interval: the bar then ends at it.
    bounds = np.array([interval for *_, interval in bars])
    ends[:, 0, along] = np.minimum(places[:, along], bounds[:, 0])
    ends[:, 1, along] = np.maximum(places[:, along], bounds[:, 1])
    codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=Path.code_type), len(ends))
    paths = [
        Path(ends[start : start + _BARS].reshape(-1, 2), codes[: 2 * len(ends[start : start + _BARS])])
        for start in range(0, len(ends), _BARS)
    ]
    lines = PathCollection(
        paths, facecolors="none", edgecolors=GREY, linewidths=0.7, zorder=2, rasterized=rasterized
    )
    ax.add_collection(lines, autolim=False)
    xs, ys = ends.reshape(-1, 2).T
    caps: dict[str, Any] = {"marker": "|" if along == 0 else "_", "markersize": 2 * _CAP, "color": GREY}
    ax.plot(xs, ys, linestyle="none", zorder=2, rasterized=rasterized, **caps)


def _marker(series: Series) -> dict[str, Any]:
    return {
        "marker": series.marker,
        "markersize": _MARKER,
        "markerfacecolor": series.colour,
        "markeredgecolor": "#222222",
        "markeredgewidth": 0.6,
    }


def _hollow(series: Series) -> dict[str, Any]:
    edge = series.colour if series.colour != "#F2D74E" else GREY
    return _marker(series) | {"markerfacecolor": "none", "markeredgecolor": edge, "markersize": _MARKER - 1}


def _reach(points: Iterable[Point], axis: str) -> list[float]:
    """All values along an axis, intervals included."""
    found = []
    for point in points:
        value, interval = (point.x, point.x_interval) if axis == "x" else (point.y, point.y_interval)
        found += [value, *(interval or ())]
    return found


def _legend(panel: ScatterPanel) -> list[LegendEntry]:
    entries = [
        LegendEntry(Line2D([], [], linestyle="none", label=series.name, **_marker(series)))
        for series in panel.series
    ]
    if len(panel.front) > 1:
        entries.append(LegendEntry(Line2D([], [], label="Pareto front", **_FRONT_LINE), 1))
    if len(panel.predicted_front) > 1:
        entries.append(LegendEntry(Line2D([], [], label="front of predicted ones", **_PREDICTED_LINE), 1))
    if any(point.predicted for point in panel.points):
        mark: dict[str, Any] = {"marker": "o", "markersize": _MARKER - 1, "markerfacecolor": "none"}
        mark |= {"markeredgecolor": GREY, "label": "hollow: latency predicted"}
        entries.append(LegendEntry(Line2D([], [], linestyle="none", **mark), 1))
    if panel.diagonal:
        entries.append(LegendEntry(Line2D([], [], label="same rank", **_DIAGONAL), 2))
    if any(point.ringed for point in panel.points):
        label = "may be optimal (intervals overlap)"
        entries.append(LegendEntry(Line2D([], [], linestyle="none", label=label, **_RING_MARK), 3))
    return entries


def _place_labels(ax: Axes, panel: ScatterPanel) -> None:
    """Place the points' labels without overlap; those on the front choose first."""
    to_points = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]

    def at(places: Sequence[_Place]) -> Any:
        return ax.transData.transform(np.array(places).reshape(-1, 2)) * to_points

    front = set(panel.front)
    points = panel.points
    labelled = sorted((p for p in points if p.label), key=lambda p: (p.x, p.y) not in front)
    if not labelled:
        return
    where = at([(p.x, p.y) for p in labelled]).tolist()
    labels = [Label(x, y, *_text_size(p.label)) for (x, y), p in zip(where, labelled, strict=True)]
    half, centres = _MARKER / 2 + 0.8, at([(p.x, p.y) for p in points])
    markers = np.hstack([centres - half, centres + half])
    ends: list[tuple[_Place, _Place]] = []
    for p in points if len(points) <= panel.dense else (p for p in points if (p.x, p.y) in front):
        if p.x_interval is not None:
            ends.append(((p.x_interval[0], p.y), (p.x_interval[1], p.y)))
        if p.y_interval is not None:
            ends.append(((p.x, p.y_interval[0]), (p.x, p.y_interval[1])))
    for (x0, y0), (x1, y1) in zip(panel.front, panel.front[1:], strict=False):
        corner = (x0, y1) if panel.front_rises_before else (x1, y0)
        ends += [((x0, y0), corner), (corner, (x1, y1))]
    starts, stops = (at([line[end] for line in ends]).tolist() for end in (0, 1))
    lines = [straight(*line) for line in zip(starts, stops, strict=True)]
    window = ax.get_window_extent()
    area = Box(*(float(edge) * to_points for edge in (window.x0, window.y0, window.x1, window.y1)))
    for point, label, box in zip(labelled, labels, place(labels, markers, lines, area), strict=True):
        if box is not None:
            _write(ax, point, label, box)


def _text_size(text: str) -> tuple[float, float]:
    # A digit of matplotlib's font is 0.64 em wide, which is accurate enough for labels.
    return 0.55 * _LABEL * len(text) + 1, _LABEL + 0.5


def _write(ax: Axes, point: Point, label: Label, box: Box) -> None:
    end = leader(label, box)
    if end is not None:
        ax.annotate(
            "",
            (point.x, point.y),
            xytext=(end[0] - label.x, end[1] - label.y),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2},
            zorder=2,
        )
    centre = (box.left + box.right) / 2 - label.x, (box.bottom + box.top) / 2 - label.y
    text = ax.annotate(
        point.label,
        (point.x, point.y),
        xytext=centre,
        textcoords="offset points",
        ha="center",
        va="center_baseline",
        fontsize=_LABEL,
        zorder=4,
        # A halo, in case it overlaps error bars.
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )
    text.set_in_layout(False)
