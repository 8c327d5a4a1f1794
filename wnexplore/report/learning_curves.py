"""Learning curves: training loss, top-1 or AP, and test loss over the epochs, data and drawing."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from wnexplore.design.point import AXES, DesignPoint
from wnexplore.report.panels import (
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
from wnexplore.report.placement import spread
from wnexplore.report.series import method_label, styles
from wnexplore.results.columns import COLUMNS, Interval
from wnexplore.results.frame import groups, score_of, shared
from wnexplore.results.intervals import MIN_SEEDS, t_interval
from wnexplore.results.record import Record
from wnexplore.results.trainings import TrainingGroup, differing, newest, rungs_of, trainings

NAMED = 12
"""Most distinguishable variants; of more only the best and the plain network have a name and a colour.

The same ones in all panels, so that the legend stays short.
"""


@dataclass(frozen=True)
class Curve:
    """A line; `name` is "" without a legend entry; `dash` in line widths, () for a solid line."""

    name: str
    colour: str
    dash: tuple[float, ...]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    bands: tuple[Interval, ...] = ()
    """The band at each x, () for none."""
    dropped: bool = False
    """Whether it was dropped before the others, which is marked at its end."""
    label: str = ""
    """The label at its end; "" for none."""


@dataclass(frozen=True)
class CurvePanel(Panel):
    """Lines over a common axis, the last one on top; with `dots` at their values."""

    title: str
    x: PlotAxis
    y: PlotAxis
    curves: tuple[Curve, ...]
    dots: bool = False
    few: int = FEW
    """Most unnamed lines that are drawn; of more, which cover each other, a band shows the range."""

    def draw(self, ax: Axes) -> None:
        _draw(ax, self)

    def place_labels(self, ax: Axes) -> None:
        _label_ends(ax, self)

    def legend(self) -> list[LegendEntry]:
        return [LegendEntry(handle) for handle in _handles(self)]


def curve_infos(frame: pd.DataFrame, records: Iterable[Record]) -> dict[str, FigureInfo]:
    """The figure learning_curves of the trainings behind the rows of `frame`; empty without curves.

    One row of panels per backbone and protocol: the training loss of each epoch, and the top-1 and the test
    loss after each test, if some training has at least 2; the test loss only if each row of panels has one.
    Lines are means over the successful seeds; bands are 95 % Student-t intervals, or the range of 2 seeds. A
    line ends where halving dropped its variant.
    """
    families: dict[tuple[str, str], list[TrainingGroup]] = {}
    for curve in _shown(frame, records):
        families.setdefault((curve.point.backbone, curve.family), []).append(curve)
    every = [curve for family in families.values() for curve in family]
    kinds = [kind for kind in _KINDS if any(len(kind.values(curve)) > 1 for curve in every)]
    usual = [kind for kind in kinds if not kind.newer]
    drawn = [family for family in families.values() if all(_has(family, kind) for kind in usual)]
    if not usual or not drawn:
        return {}
    kinds = [kind for kind in kinds if all(_has(family, kind) for family in drawn)]
    names = differing([{"backbone": members[0].point.backbone, **members[0].common} for members in drawn])
    panels = []
    looks = _looks(frame, drawn)
    for title, members in zip(names, drawn, strict=True):
        panels += [_panel(kind, title, members, looks) for kind in kinds]
    rows = frame[frame[score_of(frame)].notna()]
    said = (shared(rows, ("backbone", "dataset")), _meaning([len(curve.succeeded) for curve in every]))
    note = " · ".join(text for text in said if text)
    return {"learning_curves": FigureInfo(tuple(panels), columns=len(kinds), note=note)}


@dataclass(frozen=True)
class _Kind:
    """A quantity over the epochs."""

    label: str
    values: Callable[[TrainingGroup], Mapping[int, Sequence[float]]]
    """Epoch -> one value per seed."""
    bounds: Interval
    """The bounds of values, and so of bands."""
    dots: bool
    """Whether only some epochs have values, so that they are marked."""
    newer: bool = False
    """Whether records of earlier versions lack it."""


def _tested(name: str, *, newer: bool = False) -> _Kind:
    column = COLUMNS[name]
    return _Kind(column.label, lambda training: training.curve(name), column.bounds, True, newer)


_KINDS = (
    _Kind("Training loss (nats)", lambda training: training.losses, (0.0, math.inf), False),
    _tested("top1", newer=True),
    _tested("ap", newer=True),
    _tested("test_loss", newer=True),
)


def _has(family: Iterable[TrainingGroup], kind: _Kind) -> bool:
    return any(kind.values(curve) for curve in family)


@dataclass(frozen=True)
class _Look:
    name: str
    """"" for variants without a name."""
    label: str
    """The name at the line's end."""
    colour: str
    dash: tuple[float, ...]


_OTHER = _Look("", "", "#C8C8C8", ())


def _shown(frame: pd.DataFrame, records: Iterable[Record]) -> list[TrainingGroup]:
    """The trainings behind the rows of `frame`, in the same order."""
    by_point: dict[DesignPoint, list[TrainingGroup]] = {}
    for training in trainings(records):
        by_point.setdefault(training.point, []).append(training)
    behind: dict[tuple[Any, ...], TrainingGroup] = {}
    for point, trained in by_point.items():
        axes = tuple(getattr(point, axis) for axis in AXES)
        for training in newest(trained):
            if training.succeeded:
                behind[(*axes, training.dataset, training.epochs)] = training
    return [behind[row] for row in groups(frame, (*AXES, "dataset", "epochs")) if row in behind]


def _panel(
    kind: _Kind, title: str, family: Sequence[TrainingGroup], looks: Mapping[DesignPoint, _Look]
) -> CurvePanel:
    curves = [_curve(kind, curve, looks.get(curve.variant, _OTHER)) for curve in family if kind.values(curve)]
    # Unnamed lines are behind the others.
    curves.sort(key=lambda curve: bool(curve.name))
    rungs = rungs_of(family[0].settings)
    # Rungs are equally spaced on a logarithmic axis.
    x = PlotAxis("Epoch", log=bool(rungs), whole=True, at=tuple(map(float, rungs)))
    return CurvePanel(title, x, PlotAxis(kind.label), tuple(curves), kind.dots)


def _curve(kind: _Kind, training: TrainingGroup, look: _Look) -> Curve:
    values = kind.values(training)
    return Curve(
        name=look.name,
        colour=look.colour,
        dash=look.dash,
        xs=tuple(float(epoch) for epoch in values),
        ys=tuple(fmean(value) for value in values.values()),
        bands=tuple(_band(value, kind.bounds) for value in values.values()) if look.name else (),
        dropped=training.dropped_at is not None,
        label="" if training.dropped_at is not None else look.label,
    )


def _band(values: Sequence[float], bounds: Interval) -> Interval:
    if any(not math.isfinite(value) for value in values):
        return min(values), max(values)
    low, high = t_interval(values) if len(values) >= MIN_SEEDS else (min(values), max(values))
    return max(low, bounds[0]), min(high, bounds[1])


def _meaning(counts: Sequence[int]) -> str:
    """The meaning of lines and bands for these numbers of seeds."""
    low, high = min(counts), max(counts)
    if high == 1:
        return "one seed"
    lines = f"means over {high if low == high else f'{low} to {high}'} seeds"
    bands = "bands are 95 % Student-t intervals" if high >= MIN_SEEDS else ""
    if 2 in counts:
        bands = f"{bands}, of 2 seeds their range" if bands else "bands are their range"
    return f"{lines}, {bands}"


def _looks(frame: pd.DataFrame, families: Iterable[Sequence[TrainingGroup]]) -> dict[DesignPoint, _Look]:
    """The look of each named variant, regardless of its backbone: its method's colour shaded by M, dashes by
    G.
    """
    named: dict[str, dict[DesignPoint, None]] = {}
    for point in _best(families):
        named.setdefault(point.method, {})[point] = None
    colours = {method: look.colour for (method, _), look in styles(frame, COLUMNS["method"]).items()}
    looks = {}
    shown = dict.fromkeys(curve.variant for curve in itertools.chain(*families))
    for method, curves in named.items():
        points = [point for point in shown if point in curves]
        pairs = Counter((point.M, point.G) for point in points)
        for point, name, shade, dash in zip(points, _names(points), *_steps(points), strict=True):
            colour = colours[method] if shade is None else _shade(colours[method], shade)
            short = name if point.M is None else f"({point.M}, {point.G})"
            unclear = len(short) > _LONGEST or pairs[point.M, point.G] > 1
            looks[point] = _Look(name, "" if unclear else short, colour, _DASHES[dash % len(_DASHES)])
    return looks


def _best(families: Iterable[Sequence[TrainingGroup]]) -> list[DesignPoint]:
    """The plain network and the variants that come first, by their places in all families together."""
    scores: Counter[DesignPoint] = Counter()
    for family in families:
        for place, curve in enumerate(sorted(family, key=_place)[:NAMED]):
            scores[curve.variant] += NAMED - place
    return [point for point, _ in scores.most_common(NAMED)]


def _place(training: TrainingGroup) -> tuple[bool, int, float]:
    """Sorts the plain network first, then those trained longest, then the most accurate."""
    return training.point.method != "plain", -(training.epochs or 0), -fmean(training.scores.values())


def _steps(points: Sequence[DesignPoint]) -> tuple[list[float | None], list[int]]:
    """For each point of one method its shade (0 to 1, by M) and its dash (by G), or both by its position."""
    Ms, Gs = (sorted({getattr(p, axis) for p in points} - {None}) for axis in ("M", "G"))
    places = list(range(len(points)))
    shades = [Ms.index(point.M) for point in points] if len(Ms) > 1 else places
    if len({(point.M, point.G) for point in points}) == len(points) and Ms:
        dashes = [Gs.index(point.G) for point in points]
    else:
        # The position of each within its shade.
        dashes = [shades[:place].count(shades[place]) for place in places] if len(Ms) > 1 else places
    last = max(shades)
    return [shade / last if last else None for shade in shades], dashes


_LONGEST = 9
"""Most letters at a line's end."""

_DASHES = ((), (4.0, 1.5), (1.0, 1.2), (5.0, 1.2, 1.0, 1.2), (7.0, 3.0), (3.0, 1.0, 1.0, 1.0, 1.0, 1.0))


def _names(points: Sequence[DesignPoint]) -> list[str]:
    """Names that distinguish points of one method: "WeightNet (2, 1), stages 3+4"."""
    others = [
        axis
        for axis in AXES
        if axis not in ("backbone", "method", "M", "G") and len({getattr(p, axis) for p in points}) > 1
    ]
    names = []
    for point in points:
        name = method_label(point.method)
        if point.M is not None:
            name += f" ({point.M}, {point.G})"
        said = [COLUMNS[a].say(getattr(point, a)) for a in others if getattr(point, a) is not None]
        names.append(", ".join([name, *said]))
    return names


def _shade(colour: str, share: float) -> str:
    """`colour` from light (0) over unchanged (1/2) to dark (1)."""
    channels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    towards, amount = (255, 1.2 * (0.5 - share)) if share < 0.5 else (0, 1.1 * (share - 0.5))
    return "#" + "".join(f"{round(c + amount * (towards - c)):02X}" for c in channels)


# --- drawing -----------------------------------------------------------------------------------------

_WIDTH = 1.1
_LABEL = 6.0
_ARM = 14.0
"""Points from a line's end to its label."""
_ROOM = 0.24
"""How much wider an axis is for the labels at its end."""
_OTHERS = "other variants"
_RANGE: Any = {"color": _OTHER.colour, "alpha": 0.6, "linewidth": 0}
_DROPPED = "dropped by halving"
_DOTS: Any = {"linestyle": "none", "marker": "o", "markersize": 2.2}
# Without a patch: otherwise lines would stop at matplotlib's frame around the text.
_ARROW: Any = {
    "arrowstyle": "-",
    "linewidth": 0.5,
    "shrinkA": 1.5,
    "shrinkB": 1,
    "relpos": (0, 0.5),
    "patchA": None,
}
_CROSS: Any = {"marker": "X", "markersize": 5.0, "markeredgecolor": "white", "markeredgewidth": 0.5}


def _draw(ax: Axes, panel: CurvePanel) -> None:
    """Lines over bands; a cross where a variant was dropped, dots where there are few values."""
    nameless = _nameless(panel)
    many = len(nameless) > panel.few
    if many:
        _draw_range(ax, nameless)
    for order, curve in enumerate(panel.curves, start=3):
        if many and not curve.name:
            continue
        if curve.bands:
            low, high = zip(*curve.bands, strict=True)
            ax.fill_between(curve.xs, low, high, color=curve.colour, alpha=0.1, linewidth=0, zorder=1)
        ax.plot(curve.xs, curve.ys, zorder=order, **_line(curve))
        if panel.dots and not curve.dropped:
            ax.plot(curve.xs, curve.ys, zorder=order, color=curve.colour, **_DOTS)
        if curve.dropped:
            ax.plot(curve.xs[-1], curve.ys[-1], color=curve.colour, zorder=order + 0.5, **_CROSS)
    xs = [x for curve in panel.curves for x in curve.xs]
    ys = [y for curve in panel.curves for y in curve.ys]
    ys += [bound for curve in panel.curves for band in curve.bands for bound in band]
    if panel.x.log:
        ax.set_xscale("log")
    left, right = limits(xs, panel.x.log)
    if any(curve.label for curve in panel.curves):
        right = right * (right / left) ** _ROOM if panel.x.log else right + _ROOM * (right - left)
    ax.set(xlim=(left, right), ylim=limits(ys, panel.y.log), xlabel=panel.x.label)
    ticks(ax, panel.x, "x")
    # No tick under the labels.
    ax.set_xticks([tick for tick in ax.get_xticks() if left <= tick <= max(xs)])
    ticks(ax, panel.y, "y")
    ax.set_ylabel(panel.y.label)
    ax.set_title("\n".join(textwrap.wrap(panel.title, 52)))
    dress(ax)


def _nameless(panel: CurvePanel) -> list[Curve]:
    return [curve for curve in panel.curves if not curve.name]


def _draw_range(ax: Axes, curves: Sequence[Curve]) -> None:
    """The range of many curves at each place, and where some were dropped, below the others."""
    values: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in zip(curve.xs, curve.ys, strict=True):
            values.setdefault(x, []).append(y)
    xs = sorted(values)
    ax.fill_between(xs, [min(values[x]) for x in xs], [max(values[x]) for x in xs], zorder=2, **_RANGE)
    ends = [(curve.xs[-1], curve.ys[-1]) for curve in curves if curve.dropped]
    ax.plot([x for x, _ in ends], [y for _, y in ends], color=GREY, zorder=2.1, linestyle="none", **_CROSS)


def _label_ends(ax: Axes, panel: CurvePanel) -> None:
    """Write the lines' labels at their ends, stacked without overlap as near as possible."""
    to_points = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    ended = sorted((curve for curve in panel.curves if curve.label), key=lambda curve: curve.ys[-1])
    heights = [float(ax.transData.transform((c.xs[-1], c.ys[-1]))[1]) * to_points for c in ended]
    window, half = ax.get_window_extent(), _LABEL / 2 + 2
    low, high = window.y0 * to_points + half, window.y1 * to_points - half
    for curve, height, at in zip(ended, heights, spread(heights, _LABEL + 1, low, high), strict=True):
        text = ax.annotate(
            curve.label,
            (curve.xs[-1], curve.ys[-1]),
            xytext=(_ARM, at - height),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=_LABEL,
            arrowprops={"color": curve.colour, **_ARROW},
        )
        text.set_in_layout(False)


def _handles(panel: CurvePanel) -> list[Line2D | Patch]:
    """Legend entries; one for all unnamed lines."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=curve.name, **_line(curve)) for curve in panel.curves if curve.name
    ]
    nameless = _nameless(panel)
    if len(nameless) > panel.few:
        handles.append(Patch(label=f"{_OTHERS}, lowest to highest", **_RANGE))
    elif nameless:
        handles.append(Line2D([], [], label=_OTHERS, **_line(nameless[0])))
    if any(curve.dropped for curve in panel.curves):
        handles.append(Line2D([], [], label=_DROPPED, linestyle="none", color=GREY, **_CROSS))
    return handles


def _line(curve: Curve) -> dict[str, Any]:
    return {
        "color": curve.colour,
        "linewidth": _WIDTH,
        "linestyle": (0, curve.dash) if curve.dash else "solid",
        "dash_capstyle": "butt",
    }
