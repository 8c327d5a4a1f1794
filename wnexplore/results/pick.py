"""Picks one design point: the best in an objective, with tie-breaking columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wnexplore.design.point import AXES, DesignPoint
from wnexplore.errors import InputError
from wnexplore.results import filters
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, Column, direction
from wnexplore.results.compare import Measured
from wnexplore.results.frame import cells, distinct, groups, intervals, varying
from wnexplore.results.point_lines import build_line

SIZES = ("params", "flops")
"""Ties in all requested columns are broken by these: the smaller one is taken."""

_SUGGESTED = ("latency_ms", "top1", "test_loss", *SIZES)
_MAX_VALUES = 4


@dataclass(frozen=True)
class Candidate:
    """A point with its measured figures by column name."""

    point: DesignPoint
    figures: Mapping[str, Measured]
    latency_is: str | None = None
    """Whether its latencies are measured or predicted."""


@dataclass(frozen=True)
class PickStep:
    """One decision column, and the points that it leaves."""

    column: Column
    candidates: tuple[Candidate, ...]
    """The points left by earlier steps."""
    best: Candidate
    """The point with the best value, by mean or median."""
    alike: tuple[Candidate, ...]
    """The points indistinguishable from `best`: itself, and those with overlapping intervals."""


@dataclass(frozen=True)
class Pick:
    """The picked point, and why."""

    objective: Column
    prefer: tuple[Column, ...]
    where: str | None
    rows: int
    """Number of rows of the run."""
    satisfy: int
    """Number of rows that satisfy `where`."""
    steps: tuple[PickStep, ...]
    """The objective, then each preferred column that was needed. All but the last leave several points."""
    runner_up: Candidate | None
    """The runner-up of the last step."""
    suggestion: str | None
    """A further column that would decide among the points indistinguishable in the last step."""
    protocol: Mapping[str, Any]
    """The common protocol of the requested figures."""
    chosen_from: Mapping[str, tuple[Any, ...]]
    """Columns of the protocol in which rows differ, with their values: that of most points is taken."""

    @property
    def take(self) -> Candidate:
        """The picked point."""
        return self.steps[-1].best

    @property
    def line(self) -> str:
        """A line of Python that builds its network."""
        return build_line(self.take.point)


def pick(
    frame: pd.DataFrame, objective: str, *, where: str | None = None, prefer: Sequence[str] = ()
) -> Pick:
    """The point of `frame` that is best in the column `objective`, of those that satisfy `where`.

    Points whose 95 % intervals overlap the best one's are indistinguishable from it, as are equal ones; the
    first column of `prefer` decides among them, the next one among those indistinguishable in the first, and
    the last one by values only, as does `objective` without any. Ties are broken by fewer parameters, then
    FLOPs. A figure without an interval counts as exact; points without a preferred figure come last. Where
    only columns that the objective doesn't need (preferred ones, those in `where`) were measured under
    several protocols, the protocol of most points is taken, the first of several. Raises `InputError` for a
    column that is unknown or has no better direction, a mistake in `where`, an objective or accuracies of
    several protocols, and if there is nothing to pick from.
    """
    names = tuple(dict.fromkeys((objective, *prefer)))
    for name in names:
        direction(name)
    read = () if where is None else filters.condition(where).names
    rows = frame if where is None else filters.where(frame, where)
    full = rows[rows[objective].notna()].reset_index(drop=True)
    if not len(full):
        raise InputError(_nothing(len(frame), len(rows), objective, where))
    full, chosen_from = _of_one_protocol(full, list(dict.fromkeys((*names, *sorted(read)))), where)
    known = [name for name in dict.fromkeys((*names, *_SUGGESTED)) if not _apart(full, name)]
    candidates = _candidates(full, names, known)
    for name in names:
        if not any(name in candidate.figures for candidate in candidates):
            raise InputError(f"column '{name}' is empty in all {len(full)} rows: leave it out of --prefer")
    criteria = [COLUMNS[name] for name in names]
    steps = _steps(candidates, criteria)
    last = steps[-1]
    rest = [candidate for candidate in last.candidates if candidate is not last.best]
    return Pick(
        objective=COLUMNS[objective],
        prefer=tuple(criteria[1:]),
        where=where,
        rows=len(frame),
        satisfy=len(rows),
        steps=tuple(steps),
        runner_up=_best(rest, criteria[criteria.index(last.column) :]) if rest else None,
        suggestion=_suggestion(last, names) if len(last.alike) > 1 else None,
        protocol=_protocol(full, names),
        chosen_from=chosen_from,
    )


def _nothing(rows: int, satisfy: int, objective: str, where: str | None) -> str:
    parts = [f"{rows} rows"]
    if where is not None:
        parts.append(f"{satisfy} of them satisfy '{' '.join(where.split())}'")
    if satisfy:
        parts.append(f"0 of these have {objective}")
    return f"nothing to pick from: {', '.join(parts)}"


def _of_one_protocol(
    rows: pd.DataFrame, names: Sequence[str], where: str | None
) -> tuple[pd.DataFrame, dict[str, tuple[Any, ...]]]:
    """The `rows` with comparable figures in the columns `names`, the objective first.

    Also returns the alternatives. Raises `InputError` if the choice would affect the objective.
    """
    mixed = {name: apart for name in names if (apart := _apart(rows, name))}
    if not mixed:
        return rows, {}
    measured = rows[list(mixed)].notna().any(axis=1)
    keys = list(dict.fromkeys(key for apart in mixed.values() for key in apart))
    values = {key: tuple(distinct(rows[measured], key)) for key in keys}
    if names[0] in mixed or not set(keys) <= set(LATENCY_PROTOCOL):
        raise InputError(_several_protocols(mixed, values, where))
    timed = rows[measured].reset_index(drop=True)
    protocols = groups(timed, keys)
    # The first protocol with the most points.
    taken = max(protocols, key=lambda protocol: len(groups(timed.iloc[protocols[protocol]], AXES)))
    held = zip(*(cells(rows, key) for key in keys), strict=True)
    kept = [used == taken or not has_figure for used, has_figure in zip(held, measured, strict=True)]
    return rows[kept].reset_index(drop=True), values


def _several_protocols(mixed: Iterable[str], values: Mapping[str, Sequence[Any]], where: str | None) -> str:
    varies = []
    for key, held in values.items():
        few = [*map(str, held[:_MAX_VALUES]), *["..."] * (len(held) > _MAX_VALUES)]
        varies.append(f"{key} varies ({', '.join(few)})")
    first = [f"{key} == {held[0] if COLUMNS[key].numeric else repr(held[0])}" for key, held in values.items()]
    example = " and ".join([*["..."] * (where is not None), *first])
    return (
        f"{' and '.join(mixed)} can't be compared between protocols: {', '.join(varies)}:"
        f' choose one, such as --where "{example}"'
    )


def _protocol(rows: pd.DataFrame, names: Iterable[str]) -> dict[str, Any]:
    """The columns in which all rows with the figures `names` agree, with their values."""
    held: dict[str, list[Any]] = {}
    for name in names:
        full = rows[rows[name].notna()]
        held |= {key: distinct(full, key) for key in COLUMNS[name].within}
    return {key: values[0] for key, values in held.items() if values}


def _apart(rows: pd.DataFrame, name: str) -> list[str]:
    """The columns in which rows with a figure in `name` differ, which makes them incomparable."""
    return varying(rows[rows[name].notna()], COLUMNS[name].within)


def _candidates(rows: pd.DataFrame, requested: Sequence[str], known: Sequence[str]) -> list[Candidate]:
    """The points of `rows`, each with its figures in the columns `known`."""
    values = {name: cells(rows, name) for name in known}
    bounds = {name: intervals(rows, name) for name in known}
    said = cells(rows, "latency_is")
    found = []
    for axes, positions in groups(rows, AXES).items():
        # Rows of one point differ in irrelevant columns; one of them may have a failed measurement.
        row = max(positions, key=lambda row: sum(values[name][row] is not None for name in requested))
        figures = {
            n: Measured(value[row], bounds[n][row]) for n, value in values.items() if value[row] is not None
        }
        found.append(Candidate(DesignPoint(**dict(zip(AXES, axes, strict=True))), figures, said[row]))
    return found


def _steps(candidates: Sequence[Candidate], criteria: Sequence[Column]) -> list[PickStep]:
    steps = []
    left = tuple(candidates)
    for column in criteria:
        full = [candidate for candidate in left if column.name in candidate.figures]
        if full:
            best = min(full, key=lambda candidate: (_cost(candidate, column), _size(candidate)))
            alike = tuple(
                candidate
                for candidate in full
                if _alike(candidate.figures[column.name], best.figures[column.name])
            )
            steps.append(PickStep(column, left, best, alike))
            left = alike
        if len(left) == 1:
            break
    return steps


def _best(candidates: Sequence[Candidate], criteria: Sequence[Column]) -> Candidate:
    steps = _steps(candidates, criteria)
    return steps[-1].best if steps else min(candidates, key=_size)


def _cost(candidate: Candidate, column: Column) -> float:
    value = candidate.figures[column.name].value
    return value if column.better == "smaller" else -value


def _size(candidate: Candidate) -> tuple[float, ...]:
    figures = candidate.figures
    return tuple(figures[name].value if name in figures else math.inf for name in SIZES)


def _alike(a: Measured, b: Measured) -> bool:
    (a_low, a_high), (b_low, b_high) = (figure.interval or (figure.value, figure.value) for figure in (a, b))
    return a_low <= b_high and b_low <= a_high


def _suggestion(step: PickStep, names: Iterable[str]) -> str | None:
    """The first column in which the indistinguishable points differ."""
    for name in _SUGGESTED:
        if name not in names and len({candidate.figures.get(name) for candidate in step.alike} - {None}) > 1:
            return name
    return None
