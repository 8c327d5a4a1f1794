"""Learning curves: loss and tested top-1 over the epochs, a line for each variant, as plain data."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from wnexplore.design.point import AXES, DesignPoint
from wnexplore.report.figure_info import Axis, Curve, CurvePanel, FigureInfo
from wnexplore.report.series import method_label, styles
from wnexplore.results.columns import COLUMNS, Interval
from wnexplore.results.frame import groups, shared
from wnexplore.results.intervals import FEWEST, t_interval
from wnexplore.results.record import Record
from wnexplore.results.trainings import Training, differing, newest, rungs_of, trainings

NAMED = 12
"""Variants that can be told apart; of more only the best and the plain network have a name and a colour."""


def curve_infos(frame: pd.DataFrame, records: Iterable[Record]) -> dict[str, FigureInfo]:
    """The figure learning_curves of the trainings that `frame` has rows of; none without such curves.

    A row of panels for each backbone and protocol: the training loss of each epoch and the top-1 after
    each epoch that was tested, as far as some training has 2 of them. Lines are means over the seeds that
    succeeded; bands are 95 % Student-t intervals, or reach from the smaller to the larger of 2 seeds. A
    line ends where halving dropped its variant.
    """
    families: dict[tuple[str, str], list[Training]] = {}
    for each in _shown(frame, records):
        families.setdefault((each.point.backbone, each.family), []).append(each)
    every = [each for family in families.values() for each in family]
    kinds = [kind for kind in _KINDS if any(len(kind.values(each)) > 1 for each in every)]
    drawn = [
        own for own in families.values() if all(any(kind.values(each) for each in own) for kind in kinds)
    ]
    if not kinds or not drawn:
        return {}
    names = differing([{"backbone": own[0].point.backbone, **own[0].settings} for own in drawn])
    panels = []
    looks = _looks(frame, drawn)
    for title, own in zip(names, drawn, strict=True):
        panels += [_panel(kind, title, own, looks) for kind in kinds]
    rows = frame[frame["top1"].notna()]
    said = (shared(rows, ("backbone", "dataset")), _meaning([len(each.succeeded) for each in every]))
    note = " · ".join(text for text in said if text)
    return {"learning_curves": FigureInfo(tuple(panels), columns=len(kinds), note=note)}


@dataclass(frozen=True)
class _Kind:
    """What is drawn over the epochs."""

    label: str
    values: Callable[[Training], Mapping[int, Sequence[float]]]
    """Epoch -> a value of each seed."""
    bounds: Interval
    """What no value, and so no band, can leave."""
    dots: bool
    """Whether few epochs have one, so that the figure has to say which."""


_KINDS = (
    _Kind("Training loss (nats)", lambda training: training.losses, (0.0, math.inf), False),
    _Kind(COLUMNS["top1"].label, lambda training: training.tested, (0.0, 100.0), True),
)


@dataclass(frozen=True)
class _Look:
    name: str
    """"" for those of which there are too many."""
    label: str
    """The name at the line's end."""
    colour: str
    dash: tuple[float, ...]


_OTHER = _Look("", "", "#C8C8C8", ())


def _shown(frame: pd.DataFrame, records: Iterable[Record]) -> list[Training]:
    """The trainings behind the rows of `frame`, in the order of these."""
    by_point: dict[DesignPoint, list[Training]] = {}
    for each in trainings(records):
        by_point.setdefault(each.point, []).append(each)
    behind = {
        (*(getattr(point, axis) for axis in AXES), each.dataset, each.epochs): each
        for point, own in by_point.items()
        for each in newest(own)
        if each.succeeded
    }
    return [behind[row] for row in groups(frame, (*AXES, "dataset", "epochs")) if row in behind]


def _panel(
    kind: _Kind, title: str, own: Sequence[Training], looks: Mapping[DesignPoint, _Look]
) -> CurvePanel:
    curves = [_curve(kind, each, looks.get(_variant(each), _OTHER)) for each in own if kind.values(each)]
    # Those without a name lie behind the others.
    curves.sort(key=lambda curve: bool(curve.name))
    rungs = rungs_of(own[0].settings)
    # Rungs are equally far apart on a logarithmic axis.
    x = Axis("Epoch", log=bool(rungs), whole=True, at=tuple(map(float, rungs)))
    return CurvePanel(title, x, Axis(kind.label), tuple(curves), kind.dots)


def _curve(kind: _Kind, training: Training, look: _Look) -> Curve:
    values = kind.values(training)
    return Curve(
        name=look.name,
        colour=look.colour,
        dash=look.dash,
        xs=tuple(float(epoch) for epoch in values),
        ys=tuple(fmean(own) for own in values.values()),
        bands=tuple(_band(own, kind.bounds) for own in values.values()) if look.name else (),
        dropped=training.dropped_at is not None,
        label="" if training.dropped_at is not None else look.label,
    )


def _band(values: Sequence[float], bounds: Interval) -> Interval:
    if any(not math.isfinite(value) for value in values):
        return min(values), max(values)
    low, high = t_interval(values) if len(values) >= FEWEST else (min(values), max(values))
    return max(low, bounds[0]), min(high, bounds[1])


def _meaning(counts: Sequence[int]) -> str:
    """What lines and bands are, for trainings of these numbers of seeds."""
    low, high = min(counts), max(counts)
    if high == 1:
        return "one seed"
    lines = f"means over {high if low == high else f'{low} to {high}'} seeds"
    bands = "bands are 95 % Student-t intervals" if high >= FEWEST else ""
    if 2 in counts:
        bands = f"{bands}, of 2 seeds their range" if bands else "bands are their range"
    return f"{lines}, {bands}"


def _looks(frame: pd.DataFrame, families: Iterable[Sequence[Training]]) -> dict[DesignPoint, _Look]:
    """How each named variant looks, whatever its backbone: its method's colour by M, a dash by G."""
    named: dict[str, dict[DesignPoint, None]] = {}
    for family in families:
        for each in sorted(family, key=_place)[:NAMED]:
            named.setdefault(each.point.method, {})[_variant(each)] = None
    colours = {method: look.colour for (method, _), look in styles(frame, COLUMNS["method"]).items()}
    looks = {}
    for method, own in named.items():
        points = [point for point in dict.fromkeys(map(_variant, itertools.chain(*families))) if point in own]
        pairs = Counter((point.M, point.G) for point in points)
        for point, name, shade, dash in zip(points, _names(points), *_steps(points), strict=True):
            colour = colours[method] if shade is None else _shade(colours[method], shade)
            short = name if point.M is None else f"({point.M}, {point.G})"
            unclear = len(short) > _LONGEST or pairs[point.M, point.G] > 1
            looks[point] = _Look(name, "" if unclear else short, colour, _DASHES[dash % len(_DASHES)])
    return looks


def _place(training: Training) -> tuple[bool, int, float]:
    """Sorts the plain network first, then those trained longest, then the most accurate."""
    return training.point.method != "plain", -(training.epochs or 0), -fmean(training.top1.values())


def _variant(training: Training) -> DesignPoint:
    return replace(training.point, backbone="")


def _steps(points: Sequence[DesignPoint]) -> tuple[list[float | None], list[int]]:
    """For each point of one method its shade (0 to 1, by M) and its dash (by G), or both by its place."""
    Ms, Gs = (sorted({getattr(p, axis) for p in points} - {None}) for axis in ("M", "G"))
    places = list(range(len(points)))
    shades = [Ms.index(point.M) for point in points] if len(Ms) > 1 else places
    if len({(point.M, point.G) for point in points}) == len(points) and Ms:
        dashes = [Gs.index(point.G) for point in points]
    else:
        # The how many-th of its shade each is.
        dashes = [shades[:place].count(shades[place]) for place in places] if len(Ms) > 1 else places
    last = max(shades)
    return [shade / last if last else None for shade in shades], dashes


_LONGEST = 9
"""Letters that a line's end has room for."""

_DASHES = ((), (4.0, 1.5), (1.0, 1.2), (5.0, 1.2, 1.0, 1.2), (7.0, 3.0), (3.0, 1.0, 1.0, 1.0, 1.0, 1.0))


def _names(points: Sequence[DesignPoint]) -> list[str]:
    """Names that tell points of one method apart: "WeightNet (2, 1), stages 3+4"."""
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
    """`colour` from light (0) by itself (1/2) to dark (1)."""
    channels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    towards, amount = (255, 1.2 * (0.5 - share)) if share < 0.5 else (0, 1.1 * (share - 0.5))
    return "#" + "".join(f"{round(c + amount * (towards - c)):02X}" for c in channels)
