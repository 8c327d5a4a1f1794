"""The layout of a table: its columns, rounding, title and caption."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from wnexplore.design.point import AXES
from wnexplore.report.marks import (
    difference_line,
    indistinguishable,
    indistinguishable_line,
    warning_kinds,
    warning_lines,
)
from wnexplore.results.columns import (
    COLUMNS,
    LATENCY_PROTOCOL,
    LEARNED,
    PREFIXES,
    Column,
    comparable_within,
    difference,
    ratio_text,
    with_interval,
)
from wnexplore.results.frame import cells, distinct, shared, varying
from wnexplore.results.fronts import default_objectives, objectives_caption, pareto_rows

STAR = "★"
"""Marks a Pareto-optimal row."""

WARNING = "⚠"
"""Marks a row with a warning about its latency."""

ALIKE = "≈"
"""Marks a row whose accuracy is indistinguishable from the plain network's."""

PREDICTED = "○"
"""Marks a latency that is predicted, not measured."""

PREDICTED_LINE = "latencies predicted from other networks' measured ones"
"""What the mark means."""

FAILED = "✗"
"""Marks a row with a failed measurement, with the number of the explanation."""

DIFFERENCE = "Δ"
"""The symbol of a difference to the plain network."""

_MAX_NOTES = 8
_MAX_REASON = 84

_TIMED = ("latency_ms", "latency_ratio", "peak_memory_mb", "energy_j", "compile_s")
# The other figures of detectors are in the CSV.
_TRAINED = ("top1", "ap", "test_loss")
_LEARNED = tuple(f"{name}{part}" for name in _TRAINED for part in ("", "_diff"))
_ALWAYS = ("method", "M", "G", "params", "flops", *_TIMED, "dropped_at", *_LEARNED)
_SHOWN = (
    *(*AXES, "params", "flops", *LATENCY_PROTOCOL, *_TIMED),
    *("dataset", "epochs", "dropped_at", *_LEARNED, "seeds"),
)
# Columns dropped in a narrow terminal, in this order.
_SPARE = ("compile_s", "energy_j", "test_loss", "peak_memory_mb", "test_loss_diff", "latency_ratio")
_WITH_UNIT = ("latency_ms", "peak_memory_mb", "energy_j", "compile_s", *_LEARNED)
# With both intervals a row exceeds 100 characters; the latency's interval implies the ratio's.
_WITH_INTERVAL = {
    "latency_ms": with_interval,
    "latency_ratio": ratio_text,
    **{column.name: with_interval for column in LEARNED},
    **{f"{column.name}_diff": difference for column in LEARNED},
}


@dataclass(frozen=True)
class TableLayout:
    """A table as text, for any renderer."""

    title: str
    """The common part of all networks."""
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    """For each column whether it is right-aligned."""
    rows: tuple[tuple[str, ...], ...]
    failed: tuple[bool, ...]
    """For each row whether one of its measurements failed."""
    caption: tuple[str, ...]
    """Lines: the common protocol; the meaning of the marks."""
    spare: tuple[int, ...] = ()
    """The columns that can be dropped for space, in this order."""

    def mapped(self, change: Callable[[str], str]) -> TableLayout:
        """This table with what `change` makes of each text but the caption's.

        `change` is called once for each different cell: many cells of a large table are alike.
        """
        changed = {cell: change(cell) for cell in set().union(*self.rows)}
        return replace(
            self,
            title=change(self.title),
            headings=tuple(map(change, self.headings)),
            rows=tuple(tuple(map(changed.__getitem__, row)) for row in self.rows),
        )

    def without(self, columns: Collection[int]) -> TableLayout:
        """This table without some columns, and a line that says so."""
        if not columns:
            return self
        kept = [index for index in range(len(self.headings)) if index not in columns]
        missing = ", ".join(self.headings[index] for index in sorted(columns))
        return TableLayout(
            title=self.title,
            headings=tuple(self.headings[index] for index in kept),
            numeric=tuple(self.numeric[index] for index in kept),
            rows=tuple(tuple(row[index] for index in kept) for row in self.rows),
            failed=self.failed,
            caption=(
                *self.caption,
                f"no room for {missing}: a wider terminal or wnexplore export shows it all",
            ),
        )


def layout(
    frame: pd.DataFrame,
    *,
    pareto: Sequence[str] | None = None,
    strict: bool = False,
    title: str | None = None,
    units_in_headings: bool = False,
) -> TableLayout:
    """Lay `frame` out: constant columns to title and caption, empty ones dropped, figures rounded.

    `pareto` names the objectives of the ★ mark (None: `default_objectives`, (): no mark), `strict` is
    as in `pareto_rows`. Counts get a prefix each ("1.46 M"), or one for the column in its heading if
    `units_in_headings`. Raises `InputError` for an objective that is unknown or has no better direction.
    """
    objectives = default_objectives(frame) if pareto is None else tuple(pareto)
    optimal = pareto_rows(frame, objectives, strict=strict)
    shown = [name for name in _SHOWN if _is_shown(frame, name)]
    headings = [_heading(frame, name, units_in_headings) for name in shown]
    columns = [_texts(frame, name, units_in_headings) for name in shown]
    numeric = [COLUMNS[name].numeric for name in shown]
    failures = _failures(frame)
    notes = list(dict.fromkeys(failure for failure in failures if failure))
    numbers = {note: number for number, note in enumerate(notes, start=1)}
    constant = [name for name in _SHOWN if name not in shown and name != "backbone"]
    meaning = objectives_caption(objectives, strict=strict)
    if "epochs" in comparable_within(objectives) and varying(frame, ["epochs"]):
        meaning += ", among those trained for as many epochs"
    caption = [shared(frame, constant), f"{STAR} {meaning}" if any(optimal) else ""]
    differences, alike = difference_line(frame), indistinguishable(frame)
    predicted = [value == "predicted" for value in cells(frame, "latency_is")]
    caption += [
        f"{DIFFERENCE} {differences}" if differences else "",
        f"{ALIKE} {indistinguishable_line(frame)}" if any(alike) else "",
    ]
    if any(predicted):
        caption.append(f"{PREDICTED} {PREDICTED_LINE}")
    caption += [f"{WARNING} {line}" for line in warning_lines(frame)]
    caption += [f"{FAILED}{number} {note}" for number, note in enumerate(notes[:_MAX_NOTES], start=1)]
    if len(notes) > _MAX_NOTES:
        caption.append(f"{FAILED} and {len(notes) - _MAX_NOTES} more errors: see column error of the export")
    marks = [
        (STAR if best else "")
        + (ALIKE if doubtful else "")
        + (PREDICTED if fitted else "")
        + (WARNING if kinds else "")
        + (f"{FAILED}{numbers[failure]}" if failure else "")
        for best, doubtful, fitted, kinds, failure in zip(
            optimal, alike, predicted, warning_kinds(frame), failures, strict=True
        )
    ]
    if any(marks):
        shown, headings = ["", *shown], ["", *headings]
        numeric, columns = [False, *numeric], [marks, *columns]
    if title is None:
        title = "" if "backbone" in shown else " ".join(distinct(frame, "backbone"))
    return TableLayout(
        title=title,
        headings=tuple(headings),
        numeric=tuple(numeric),
        rows=tuple(zip(*columns, strict=True)),
        failed=tuple(bool(failure) for failure in failures),
        caption=tuple(line for line in caption if line),
        spare=tuple(shown.index(name) for name in _SPARE if name in shown and name not in objectives),
    )


def _is_shown(frame: pd.DataFrame, name: str) -> bool:
    return len(distinct(frame, name)) > (0 if name in _ALWAYS else 1)


def _heading(frame: pd.DataFrame, name: str, units_in_headings: bool) -> str:
    column = COLUMNS[name]
    unit = column.unit if name in _WITH_UNIT else ""
    if units_in_headings and column.kind == "count":
        unit = _common_prefix(frame, name)[0]
    return f"{column.heading} ({unit})" if unit else column.heading


def _texts(frame: pd.DataFrame, name: str, units_in_headings: bool) -> list[str]:
    column, values = COLUMNS[name], cells(frame, name)
    if units_in_headings and column.kind == "count":
        scale = _common_prefix(frame, name)[1]
        digits = 2 if scale > 1 else 0
        return ["" if value is None else f"{value / scale:.{digits}f}" for value in values]
    if name in _WITH_INTERVAL:
        return _with_intervals(frame, column)
    texts = {value: column.format(value) for value in dict.fromkeys(values)}
    return [texts[value] for value in values]


def _with_intervals(frame: pd.DataFrame, column: Column) -> list[str]:
    low, high = column.interval or (column.name, column.name)
    rows = list(zip(cells(frame, column.name), cells(frame, low), cells(frame, high), strict=True))
    text = _WITH_INTERVAL[column.name]
    texts = {row: "" if row[0] is None else text(*row, column) for row in dict.fromkeys(rows)}
    return [texts[row] for row in rows]


def _common_prefix(frame: pd.DataFrame, name: str) -> tuple[str, int]:
    """The prefix that suits the smallest value, so that none of a column is rounded away."""
    smallest = min(distinct(frame, name), default=0)
    return next(((prefix, scale) for prefix, scale in PREFIXES if smallest >= scale), ("", 1))


def _failures(frame: pd.DataFrame) -> list[str]:
    """For each row the failure, on one line; "" if there is none."""
    texts = []
    for status, error in zip(cells(frame, "status"), cells(frame, "error"), strict=True):
        reason = " ".join(str(error or "").split())
        reason = reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 1]}…"
        word = "" if status in ("ok", None) else status.replace("_", " ")
        texts.append(f"{word}: {reason}" if word and reason else word)
    return texts
