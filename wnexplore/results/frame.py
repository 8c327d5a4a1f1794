"""Builds one table from records: a row per point, latency protocol and training protocol."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, cast

import numpy as np
import pandas as pd

from wnexplore.design.axes import NETWORK_AXES
from wnexplore.design.multiplier import OverChannels, PerStage
from wnexplore.design.point import AXES, DesignPoint
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, LEARNED, Interval, Kind
from wnexplore.results.intervals import paired_interval, t_interval
from wnexplore.results.numbered import Numbered
from wnexplore.results.record import Record
from wnexplore.results.seeds import sequence_of, until_of
from wnexplore.results.trainings import TrainingGroup, newest, trainings
from wnexplore.results.uncollected import uncollected

_DTYPES: dict[Kind, str] = {
    "text": "string",
    "multiplier": "object",
    "whole": "Int64",
    "count": "Int64",
    "number": "Float64",
}
_SEVERITY = ("ok", "out_of_memory", "failed")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each (point, latency protocol, training protocol without its seed), all `COLUMNS`.

    `records` are sorted oldest first: the newest record for the same visible cell wins. Counts
    are Int64, other numbers Float64, M and G as a `DesignPoint` has them, missing ones NA (None for M and
    G); nothing is rounded. `top1` is the mean over the seeds that succeeded, in percent, `top1_low` and
    `top1_high` its 95 % Student-t interval. `top1_diff` is its mean distance to the plain network's, in
    percentage points, over the seeds that both succeeded with under the same protocol and for as many
    epochs, `top1_diff_low` and `top1_diff_high` the interval of `paired_interval`, or that of
    `paired_sequence` in runs with a target (then `attrs` has "looked"). `epochs` are those trained.
    `test_loss`, in nats, has the same figures over the seeds whose records have it, as those of earlier
    versions don't. `warnings` are the kinds of a latency's warnings, "drift; throttled".
    `latency_is` is "measured", as records hold no other latencies.
    Latencies are in milliseconds, memory in megabytes, energy in joules per image. Older records without a
    column get its usual value.
    """
    with uncollected():
        return _parts(records).frame()


def score_of(frame: pd.DataFrame) -> str:
    """The column by which trained networks are ranked: "ap" where only detectors are, otherwise "top1"."""
    return "ap" if frame["top1"].isna().all() and frame["ap"].notna().any() else "top1"


def cells(frame: pd.DataFrame, name: str) -> list[Any]:
    """The column called `name` as plain values, None where it is empty."""
    return _plain(frame[name])


def _plain(column: pd.Series[Any]) -> list[Any]:
    if column.dtype != object:
        # Pandas' types don't know None here.
        plain: list[Any] = column.to_numpy(dtype=object, na_value=cast(Any, None)).tolist()
        return plain
    values, empty = column.tolist(), column.isna().tolist()
    return [None if missing else value for value, missing in zip(values, empty, strict=True)]


def numbers(frame: pd.DataFrame, name: str) -> list[float | None]:
    """The numeric column called `name` as floats, None where empty or not one number (M by stage)."""
    if frame[name].dtype != object:
        floats = frame[name].to_numpy(dtype=np.float64, na_value=math.nan).tolist()
        return [None if math.isnan(value) else value for value in floats]
    values = (None if isinstance(value, (OverChannels, PerStage)) else value for value in cells(frame, name))
    return [None if value is None else float(value) for value in values]


def intervals(frame: pd.DataFrame, name: str) -> list[Interval | None]:
    """The 95 % intervals of the column called `name`, None where a value is exact or its spread unknown."""
    bounds = COLUMNS[name].interval
    if bounds is None:
        return [None] * len(frame)
    pairs = zip(*(numbers(frame, bound) for bound in bounds), strict=True)
    return [None if low is None or high is None else (low, high) for low, high in pairs]


def doubts(frame: pd.DataFrame, name: str) -> list[Interval | None]:
    """The intervals within which values of column `name` are indistinguishable; None where exact."""
    return intervals(frame, name) if COLUMNS[name].unsure else [None] * len(frame)


def distinct(frame: pd.DataFrame, name: str) -> list[Any]:
    """The distinct values of a column, in order of appearance, without empty ones."""
    return [value for value in _plain(frame[name].drop_duplicates()) if value is not None]


def shared(frame: pd.DataFrame, names: Iterable[str], *, usual: bool = False) -> str:
    """The values of these columns common to all rows, for a caption: "cpu · float32 · batch 1".

    Usual values ("warm cache") are included only if `usual`.
    """
    values = {name: distinct(frame, name) for name in names}
    alike = {name: value[0] for name, value in values.items() if len(value) == 1}
    said = (n for n, value in alike.items() if usual or value != COLUMNS[n].usual)
    return " · ".join(COLUMNS[name].say(alike[name]) for name in said)


def varying(frame: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """The columns with more than one value."""
    return [name for name in names if len(distinct(frame, name)) > 1]


def groups(frame: pd.DataFrame, names: Sequence[str]) -> dict[tuple[Any, ...], list[int]]:
    """Row positions by their values in `names`, in order of appearance; empty counts as a value."""
    if not names:
        return {(): list(range(len(frame)))} if len(frame) else {}
    found: dict[tuple[Any, ...], list[int]] = {}
    for position, values in enumerate(zip(*(cells(frame, name) for name in names), strict=True)):
        found.setdefault(values, []).append(position)
    return found


@dataclass(frozen=True)
class _Part:
    """The cells of a row from some records."""

    cells: Mapping[str, Any]
    severity: int
    """The worst status among them by `_SEVERITY`."""
    errors: tuple[str, ...]

    @classmethod
    def of(cls, cells: Mapping[str, Any], records: Sequence[Record]) -> _Part:
        errors = tuple(record.error for record in records if record.status != "ok" and record.error)
        severity = max((_SEVERITY.index(record.status) for record in records), default=0)
        return cls(cells, severity, errors)


_NOTHING = _Part({}, 0, ())


class _Parts:
    """The parts of all rows, of three kinds, each of which many rows share."""

    def __init__(self) -> None:
        self._parts: list[list[_Part]] = [[_NOTHING], [_NOTHING], [_NOTHING]]
        self._rows: list[list[int]] = [[], [], []]
        self._statuses: list[str] = []
        self._errors: list[str | None] = []
        self.looked = False
        """Whether seeds were added until differences were known."""

    def add(self, counted: _Part, timings: Sequence[_Part], learned: Sequence[_Part]) -> None:
        """Add the rows of one point: one for each pair of a timing and a training."""
        places: list[Sequence[int]] = []
        for found, parts in zip(self._parts, ([counted], timings, learned), strict=True):
            places.append(range(len(found), len(found) + len(parts)) if parts else [0])
            found += parts
        for row in itertools.product(*places):
            parts = [found[place] for found, place in zip(self._parts, row, strict=True)]
            for rows, place in zip(self._rows, row, strict=True):
                rows.append(place)
            severity = max(part.severity for part in parts)
            self._statuses.append(_SEVERITY[severity])
            errors = dict.fromkeys(error for part in parts for error in part.errors) if severity else ()
            self._errors.append("; ".join(errors) or None)

    def frame(self) -> pd.DataFrame:
        """One row for each triple of parts; of a column that several parts have, the last part's cell."""
        names = [set[str]().union(*(part.cells for part in parts)) for parts in self._parts]
        columns = {name: self._column(name, [name in known for known in names]) for name in COLUMNS}
        columns |= {"status": _series("status", self._statuses), "error": _series("error", self._errors)}
        made = pd.DataFrame(columns)
        if self.looked:
            made.attrs["looked"] = True
        return made

    def _column(self, name: str, known: Sequence[bool]) -> pd.Series[Any]:
        kinds = [(p, r) for p, r, k in zip(self._parts, self._rows, known, strict=True) if k]
        if len(kinds) == 1:
            ((parts, rows),) = kinds
            # Cells are converted once, however many rows they are in.
            return _series(name, [part.cells.get(name) for part in parts]).take(rows).reset_index(drop=True)
        values: list[Any] = [None] * len(self._statuses)
        for parts, rows in kinds:
            cells = [parts[row].cells for row in rows]
            values = [row.get(name, value) for row, value in zip(cells, values, strict=True)]
        return _series(name, values)


def _parts(records: Iterable[Record]) -> _Parts:
    numbers: Numbered[DesignPoint] = Numbered(lambda point: point)
    by_point: list[list[Record]] = []
    for record in records:
        number = numbers[record.point]
        if number == len(by_point):
            by_point.append([])
        by_point[number].append(record)
    trained: dict[int, list[TrainingGroup]] = {}
    for training in trainings(record for point_records in by_point for record in point_records):
        trained.setdefault(numbers[training.point], []).append(training)
    baselines: dict[tuple[Any, ...], DesignPoint] = {}
    found = _Parts()
    found.looked = any(until_of(training) is not None for parts in trained.values() for training in parts)
    for number, point_records in enumerate(by_point):
        point = point_records[0].point
        plain: dict[Any, TrainingGroup] = {}
        if number in trained:
            network = tuple(getattr(point, axis) for axis in NETWORK_AXES)
            if network not in baselines:
                baselines[network] = point.baseline()
            baseline = numbers[baselines[network]]
            if baseline != number:
                plain = {training.identity: training for training in trained.get(baseline, ())}
        found.add(
            _counted(point, point_records),
            _timings(record for record in point_records if record.figure == "latency"),
            [
                _Part.of(_training(part) | _difference(part, plain.get(part.identity)), part.records)
                for part in newest(trained.get(number, ()))
            ],
        )
    return found


def _counted(point: DesignPoint, records: Sequence[Record]) -> _Part:
    """The axes of a point, and the counts of its newest complexity."""
    complexity = [record for record in records if record.figure == "complexity"][-1:]
    axes: dict[str, Any] = {axis: getattr(point, axis) for axis in AXES}
    return _Part.of(axes | (_visible(complexity[0].value) if complexity else {}), complexity)


def _timings(records: Iterable[Record]) -> list[_Part]:
    """The cells of each latency protocol, from its newest record."""
    found: dict[tuple[Any, ...], _Part] = {}
    for record in records:
        protocol = {name: record.protocol.get(name, COLUMNS[name].usual) for name in LATENCY_PROTOCOL}
        cells = protocol | _visible(record.value) | {"warnings": _warnings(record)}
        if "latency_ms" in record.value:
            cells["latency_is"] = "measured"
        found[tuple(protocol.values())] = _Part.of(cells, [record])
    return list(found.values())


def _warnings(record: Record) -> str | None:
    kinds = dict.fromkeys(str(warning["kind"]) for warning in record.value.get("warnings", ()))
    return "; ".join(kinds) or None


def _training(training: TrainingGroup) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": training.dataset,
        "epochs": training.epochs,
        "seeds": len(training.scores),
        "dropped_at": training.dropped_at,
    }
    for column in LEARNED:
        values = list(training.learned(column.name).values())
        if values:
            row[column.name] = fmean(values)
        if len(values) > 1:
            low, high = t_interval(values)
            row |= _bounds(column.name, (max(column.bounds[0], low), min(column.bounds[1], high)))
    return row


def _difference(training: TrainingGroup, baseline: TrainingGroup | None) -> dict[str, Any]:
    """The difference of a training to the plain network's, over the seeds that succeeded in both."""
    if baseline is None:
        return {}
    row: dict[str, Any] = {}
    # Seeds were added by looking at the interval, which must hold at each look.
    looked = until_of(training) is not None or until_of(baseline) is not None
    for name in (column.name for column in LEARNED):
        ours, plain = training.learned(name), baseline.learned(name)
        differences = [ours[seed] - plain[seed] for seed in ours if seed in plain]
        if differences:
            row[f"{name}_diff"] = fmean(differences)
            interval = sequence_of(name, training, baseline) if looked else paired_interval(differences)
            row |= _bounds(f"{name}_diff", interval or (None, None))
    return row


def _bounds(name: str, interval: tuple[float | None, float | None]) -> dict[str, float | None]:
    return dict(zip((f"{name}_low", f"{name}_high"), interval, strict=True))


def _visible(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in COLUMNS}


def _series(name: str, values: Iterable[Any]) -> pd.Series[Any]:
    """A column, None for missing values."""
    known = [None if isinstance(value, float) and value != value else value for value in values]
    return pd.Series(known, dtype=_DTYPES[COLUMNS[name].kind])
