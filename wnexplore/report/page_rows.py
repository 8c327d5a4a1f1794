"""What a page shows of its runs' rows: columns, cells and looks, as JSON values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from wnexplore.design.methods import METHODS
from wnexplore.design.multiplier import plain_multiplier
from wnexplore.design.point import AXES
from wnexplore.report.layout import ALIKE, FAILED, PREDICTED, STAR, WARNING
from wnexplore.report.marks import ADVICE, indistinguishable
from wnexplore.report.series import MORE_LOOKS, method_label
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, TRAINING_PROTOCOL, WORTHLESS, Column
from wnexplore.results.frame import cells

MARKS = {"optimal": STAR, "alike": ALIKE, "predicted": PREDICTED, "warning": WARNING, "failed": FAILED}
"""What the table's marks are, by their meaning."""


def column_dicts() -> list[dict[str, Any]]:
    """The table of columns."""
    bounds = {name for column in COLUMNS.values() for name in column.interval or ()}
    return [_column(column, column.name in bounds) for column in COLUMNS.values()]


def row_columns(frame: pd.DataFrame) -> dict[str, Any]:
    """The cells of `frame`, unrounded, by column.

    {"all": cell} where all rows have the same one; {"of": distinct cells, "at": index of each row's} where
    few differ; else {"cells": one for each row}.
    """
    return {name: _compact(_plain(frame, column)) for name, column in COLUMNS.items()}


def row_marks(frame: pd.DataFrame, run: str) -> dict[str, Any]:
    """For each row whether its accuracy is that of the plain network, as far as is known, and its key.

    A key names a row of `run` in addresses, whatever rows come before it later: "POINT-PROTOCOL".
    """
    alike = [int(alike) for alike in indistinguishable(frame)]
    return {"alike": _compact(alike), "key": _compact(_keys(frame, run))}


def looks() -> dict[str, Any]:
    """The label, colour and shape of each method, and the colours and shapes of other columns' values."""
    methods = {
        name: {"label": method_label(name), "colour": spec.look[0], "shape": _SHAPES[spec.look[1]]}
        for name, spec in METHODS.items()
        if spec.look is not None
    }
    others = [{"colour": colour, "shape": _SHAPES[marker]} for colour, marker in MORE_LOOKS]
    return {"methods": methods, "others": others}


def words() -> dict[str, Any]:
    """Marks, the advice on each kind of warning, and the half-width from which a latency is worthless."""
    return {"mark_signs": MARKS, "advice": ADVICE, "worthless": WORTHLESS}


def together(columns: Sequence[dict[str, Any]], lengths: Sequence[int]) -> dict[str, Any]:
    """The columns of several tables, one below the other; `lengths` are their numbers of rows."""
    names = columns[0] if columns else {}
    return {
        name: _compact(
            [cell for part, n in zip(columns, lengths, strict=True) for cell in _all(part[name], n)]
        )
        for name in names
    }


def _keys(frame: pd.DataFrame, run: str) -> list[str]:
    parts = [
        zip(*(cells(frame, name) for name in names), strict=True)
        for names in (AXES, (*LATENCY_PROTOCOL, "latency_is", *TRAINING_PROTOCOL))
    ]
    found: dict[str, int] = {}
    for axes, protocol in zip(*parts, strict=True):
        key = f"{_digest(run, *axes)}-{_digest(*protocol)[:6]}"
        found[f"{key}-{len(found)}" if key in found else key] = len(found)
    return list(found)


def _digest(*values: Any) -> str:
    text = "\0".join(map(str, values))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]


def _column(column: Column, bound: bool) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "heading": column.heading,
        "label": column.label,
        "unit": column.unit,
        "decimals": column.decimals,
        "better": column.better,
        "within": list(column.within),
        "unsure": column.unsure,
        "interval": list(column.interval) if column.interval else None,
        "difference": column.name.endswith("_diff"),
        "bound": bound,
        "phrase": column.phrase,
        "usual": column.usual if isinstance(column.usual, (str, int, float)) else None,
    }


def _plain(frame: pd.DataFrame, column: Column) -> list[Any]:
    values = cells(frame, column.name)
    if column.kind == "multiplier":
        texts = {id(value): None if value is None else str(plain_multiplier(value)) for value in values}
        return [texts[id(value)] for value in values]
    if column.kind in ("whole", "count"):
        return [None if value is None else int(value) for value in values]
    return [None if value is None else str(value) for value in values] if column.kind == "text" else values


def _compact(values: Sequence[Any]) -> dict[str, Any]:
    places: dict[Any, int] = {}
    for value in values:
        places.setdefault(value, len(places))
    if len(places) <= 1:
        return {"all": next(iter(places), None)}
    if 2 * len(places) > len(values):
        return {"cells": list(values)}
    return {"of": list(places), "at": [places[value] for value in values]}


def _all(column: dict[str, Any], count: int) -> Iterable[Any]:
    if "all" in column:
        return [column["all"]] * count
    if "cells" in column:
        found: list[Any] = column["cells"]
        return found
    return [column["of"][at] for at in column["at"]]


_SHAPES = {
    "o": "circle",
    "^": "triangle-up",
    "s": "square",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z",
}
"""matplotlib's markers as Vega's shapes."""
