"""What a figure shows, as plain data: the renderer draws it, tests look at it."""

from __future__ import annotations

from dataclasses import dataclass

from wnexplore.results.columns import Interval


@dataclass(frozen=True)
class Axis:
    """One axis: its label with unit, whether its ticks are counts (40M), logarithmic, or whole numbers."""

    label: str
    count: bool = False
    log: bool = False
    whole: bool = False
    at: tuple[float, ...] = ()
    """Where its ticks are; () for where the renderer likes them."""


@dataclass(frozen=True)
class Point:
    """One marker with its 95 % intervals; `label` is "" where it gets none."""

    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    label: str = ""
    ringed: bool = False
    """Whether it gets a ring: not on the front, but not certainly off it either."""


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
    diagonal: bool = False
    """Whether the line y = x is drawn, as between two ranks."""


@dataclass(frozen=True)
class HeatPanel:
    """A figure over M (columns) and G (rows); None where it was not measured or can't be built."""

    title: str
    M: tuple[str, ...]
    G: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Curve:
    """A line, `name` "" for one of many that get no legend; `dash` in line widths, () for a solid line."""

    name: str
    colour: str
    dash: tuple[float, ...]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    bands: tuple[Interval, ...] = ()
    """The band at each x, () for none."""
    dropped: bool = False
    """Whether it ends before the others, which its end says."""
    label: str = ""
    """What its end is labelled; "" for nothing."""


@dataclass(frozen=True)
class CurvePanel:
    """Lines over a common axis, the last one on top; with `dots` where the values are that they join."""

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    dots: bool = False


Panel = ScatterPanel | HeatPanel | CurvePanel


@dataclass(frozen=True)
class FigureInfo:
    """Panels in rows of `columns`; `note` says what all of them share."""

    panels: tuple[Panel, ...]
    columns: int
    note: str = ""
    share_y: bool = False
