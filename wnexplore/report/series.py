"""The styles of points: a colour and a marker per method, or per value of another column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from wnexplore.design.methods import METHODS, methods_with
from wnexplore.errors import InputError
from wnexplore.results.columns import Column, Interval
from wnexplore.results.frame import cells, distinct

Key = tuple[Any, Any]
"""The key of a series: a value of the colour column, and a backbone."""

_MAX_SERIES = 10


class Point(NamedTuple):
    """One marker with its 95 % intervals; `label` is "" for none."""

    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    label: str = ""
    ringed: bool = False
    """Whether it is ringed: not on the front, but possibly optimal."""
    predicted: bool = False
    """Whether a coordinate is a predicted latency: it is drawn hollow."""


@dataclass(frozen=True)
class Series:
    """Points of one style; `colour` and `marker` are matplotlib's names."""

    name: str
    colour: str
    marker: str
    points: tuple[Point, ...]


def series_keys(frame: pd.DataFrame, color: str) -> list[Key]:
    """The series of each row."""
    return list(zip(cells(frame, color), cells(frame, "backbone"), strict=True))


def styles(frame: pd.DataFrame, color: Column) -> dict[Key, Series]:
    """An empty series per (value of `color`, backbone), in legend order.

    The value determines the colour, and also the marker unless there are several backbones.
    Raises `InputError` for more than 10 values or backbones.
    """
    values, backbones = distinct(frame, color.name), distinct(frame, "backbone")
    if color.numeric:
        values.sort()
    if None in cells(frame, color.name):
        values = [None, *values]
    if max(len(values), len(backbones)) > _MAX_SERIES:
        raise InputError(
            f"column '{color.name}' splits the rows into {len(values)} series, "
            f"{len(backbones)} backbones: at most {_MAX_SERIES} of each can be distinguished"
        )
    several = len(backbones) > 1 and color.name != "backbone"
    free = iter(MORE_LOOKS)
    known = {name: spec.look for name, spec in METHODS.items() if spec.look is not None}
    assigned = {value: known[value] for value in values if value in known}
    unused = (style for style in free if style not in assigned.values())
    looks = {value: assigned[value] if value in assigned else next(unused) for value in values}
    present = set(series_keys(frame, color.name))
    found = {}
    for index, backbone in enumerate(backbones):
        for value in values:
            if (value, backbone) in present:
                colour, marker = looks[value]
                name = _series_name(color, value)
                if several:
                    name, marker = f"{name}, {backbone}", _MARKERS[index]
                if value in methods_with("M"):
                    name = f"{name} (M, G)"
                found[value, backbone] = Series(name, colour, marker, ())
    return found


def fill(styles: Mapping[Key, Series], keyed: Iterable[tuple[Key, Point]]) -> tuple[Series, ...]:
    """The non-empty series of `styles` with their points, in the same order."""
    points: dict[Key, list[Point]] = {}
    for key, point in keyed:
        points.setdefault(key, []).append(point)
    return tuple(replace(styles[key], points=tuple(points[key])) for key in styles if key in points)


def _series_name(color: Column, value: Any) -> str:
    if value is None:
        return f"no {color.heading}"
    return method_label(value) if color.name == "method" else color.say(value)


def method_label(method: str) -> str:
    """The label of a method in figures."""
    return (METHODS[method].label if method in METHODS else None) or method


# Lightness 0, 38, 66, 88, 52, 78, ... of 100: they differ in greyscale too, and by marker.
_COLOURS = (
    *("#0060A8", "#E8862E", "#000000", "#F2D74E", "#009E73", "#8CC9F0"),
    *("#CC79A7", "#8A3B12", "#9A9A9A", "#C9E4A0"),
)
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p")

MORE_LOOKS = tuple(zip(_COLOURS, _MARKERS, strict=True))
"""Colours and markers for values that have none of their own."""
