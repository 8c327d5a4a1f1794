"""Expands a sweep into the points to measure, and exports spaces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wnexplore.design.point import AXES, DesignPoint
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError
from wnexplore.results.escape import csv_cell
from wnexplore.results.filters import condition
from wnexplore.results.frame import frame
from wnexplore.results.record import Record
from wnexplore.space.cells import cells
from wnexplore.space.grid import Space
from wnexplore.space.prediction import LATENCY_COLUMNS, LATENCY_IS, Predictions, calibration
from wnexplore.space.selection import Indices, open_points
from wnexplore.space.skeleton_cache import skeleton_of

FIELDS = ("number", *AXES, "params", "flops", "same_as")
"""The columns of a space's CSV."""


def space_of(spec: SweepSpec) -> Space:
    """All points of a sweep, without its `where`."""
    return Space(cells(spec), skeleton_of)


@dataclass(frozen=True)
class Expansion:
    """The points that a sweep measures, and why the rest of its space is left out."""

    points: tuple[DesignPoint, ...]
    skipped: tuple[tuple[DesignPoint, str], ...]
    """The first `MAX_REPORTED` illegal points, with reasons."""
    repeated: tuple[tuple[DesignPoint, DesignPoint], ...]
    """The first `MAX_REPORTED` points with the earlier point of the same function."""
    illegal: int
    """The number of illegal points."""
    excluded: int
    """The number of legal, distinct points that the sweep's `where` excludes."""


MAX_MEASURED = 100_000
"""Most points that a sweep may measure."""

MAX_REPORTED = 100
"""Most points of a kind that are reported individually."""


def expand(spec: SweepSpec) -> Expansion:
    """The points of a sweep that are legal, distinct functions and not excluded by `where`.

    Raises `InputError` if the space is too large to be listed, or `where` is wrong.
    """
    space = space_of(spec)
    kept = open_points(space, None if spec.where is None else condition(spec.where))
    if len(kept) > MAX_MEASURED:
        raise InputError(
            f"{len(kept):,} points to measure, more than the {MAX_MEASURED:,} of one sweep: leave out values"
            " of an axis, or select points with where"
        )
    illegal, repeated = np.flatnonzero(~space.legal), np.flatnonzero(space.repeated)
    doubles = (
        (space.point(i), space.point(int(space.first_like[i]))) for i in repeated[:MAX_REPORTED].tolist()
    )
    return Expansion(
        points=tuple(space.point(index) for index in kept.tolist()),
        skipped=tuple((space.point(i), space.reason(i)) for i in illegal[:MAX_REPORTED].tolist()),
        # A point listed twice is one point.
        repeated=tuple(pair for pair in doubles if pair[0] != pair[1]),
        illegal=len(illegal),
        excluded=len(space) - len(illegal) - len(repeated) - len(kept),
    )


def frame_of(space: Space, points: Indices, predicted: Predictions | None = None) -> pd.DataFrame:
    """Points as rows of a table with their counts, and their predicted latencies, which it says are such."""

    figures = {} if predicted is None else {n: predicted.column(n, points).tolist() for n in LATENCY_COLUMNS}

    def records() -> Iterator[Record]:
        for at, index in enumerate(points.tolist()):
            point = space.point(index)
            counts = {"params": int(space.params[index]), "flops": int(space.flops[index])}
            yield Record("complexity", point, {}, value=counts)
            if predicted is not None and predicted.known[index]:
                value = {name: values[at] for name, values in figures.items()}
                yield Record("latency", point, predicted.protocol, value=value)

    rows = frame(records())
    rows.loc[rows["latency_ms"].notna(), LATENCY_IS] = "predicted"
    return rows


def to_csv(
    space: Space,
    points: Indices,
    predicted: Predictions | None = None,
    alike: Sequence[Sequence[int]] | None = None,
) -> str:
    """Legal points as CSV with the columns `FIELDS`; M and G exact, empty where an axis is not the method's.

    `same_as` is the index, from 0, of the first point of the space with the same function, if that is another
    one. With `predicted` the protocol and the predicted latencies follow, and `latency_is`, "predicted" in
    each row; `alike` are the numbers of those points from which each one's latency can't be told apart.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    protocol = [] if predicted is None else [k for k, v in predicted.protocol.items() if v is not None]
    latencies = () if predicted is None else (*LATENCY_COLUMNS, LATENCY_IS)
    writer.writerow((*FIELDS, *protocol, *latencies, *(() if alike is None else ("alike",))))
    same_as = space.first_like
    figures = (
        [] if predicted is None else [predicted.column(name, points).tolist() for name in LATENCY_COLUMNS]
    )
    shared = [] if predicted is None else [csv_cell(predicted.protocol[name]) for name in protocol]
    for at, index in enumerate(points.tolist()):
        first = int(same_as[index])
        counts = (int(space.params[index]), int(space.flops[index]), "" if first == index else first)
        row = [index, *map(csv_cell, space.point(index).to_dict().values()), *counts]
        if predicted is not None:
            known = bool(predicted.known[index])
            row += [
                *shared,
                *(values[at] if known else "" for values in figures),
                "predicted" if known else "",
            ]
        if alike is not None:
            row.append(" ".join(map(str, alike[at])))
        writer.writerow(row)
    return file.getvalue()


MAX_PREDICTED = 20_000
"""Most predicted points beside a run's measured ones."""


def with_predicted(
    rows: pd.DataFrame, spec: SweepSpec, records: Iterable[Record], run: str, where: str | None
) -> pd.DataFrame:
    """`rows` of a run, and below them the points of a space whose latencies its `records` predict.

    `where` chooses among several protocols, and the points; those that are measured under the protocol are
    not among the predicted ones. Raises `InputError` as `calibration` and `Calibration.check` do, and for
    more than `MAX_PREDICTED` points.
    """
    texts = [text for text in (spec.where, where) if text is not None]
    wanted = condition(" and ".join(f"({text})" for text in texts)) if texts else None
    timed = calibration(records, run, wanted)
    space = space_of(spec)
    predicted = timed.predict(space, open_points(space, wanted))
    kept = open_points(space, wanted, predicted=predicted)
    kept = kept[predicted.known[kept]]
    measured = {record.point for record in timed.records}
    if len(kept) > MAX_PREDICTED + len(measured):
        raise InputError(
            f"{len(kept):,} points of the space to predict, more than {MAX_PREDICTED:,}: select fewer by"
            " --where"
        )
    kept = np.array([index for index in kept.tolist() if space.point(index) not in measured], np.intp)
    both = pd.concat([rows, frame_of(space, kept, predicted)], ignore_index=True) if len(kept) else rows
    both.attrs |= rows.attrs
    return both
