"""Which rows of a frame are Pareto-optimal, and in what."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from wnexplore.errors import InputError
from wnexplore.report.columns import COLUMNS, Column, Direction, comparable_within, numeric_column
from wnexplore.report.frame import groups, numbers
from wnexplore.report.pareto import pareto


def default_objectives(frame: pd.DataFrame) -> tuple[str, ...]:
    """Accuracy against FLOPs where something was trained, otherwise none.

    Without an accuracy there is no trade-off to mark: the plain network is smallest in every cost.
    """
    trained = frame["top1"].notna() & frame["flops"].notna()
    return ("top1", "flops") if bool(trained.any()) else ()


def pareto_rows(frame: pd.DataFrame, objectives: Sequence[str] | None = None) -> list[bool]:
    """For each row whether it is Pareto-optimal in `objectives` (column names; None: the default ones).

    Rows compete only with rows of the same protocol: a latency at batch 16 never with one at batch 1.
    Rows without one of the figures are never marked. Raises `InputError` for a column that is unknown
    or has no better direction.
    """
    names = default_objectives(frame) if objectives is None else tuple(objectives)
    directions = [_direction(numeric_column(name)) for name in names]
    marked = [False] * len(frame)
    if not names:
        return marked
    points = list(zip(*(numbers(frame, name) for name in names), strict=True))
    for positions in groups(frame, comparable_within(names)).values():
        kept = pareto([points[position] for position in positions], directions)
        for position, optimal in zip(positions, kept, strict=True):
            marked[position] = optimal
    return marked


def objectives_caption(objectives: Sequence[str]) -> str:
    """One line that says what a Pareto mark means: "Pareto-optimal in top-1 (larger), FLOPs (smaller)"."""
    if not objectives:
        return ""
    parts = (f"{COLUMNS[name].heading} ({COLUMNS[name].better})" for name in objectives)
    return f"Pareto-optimal in {', '.join(parts)}"


def _direction(column: Column) -> Direction:
    if column.better is None:
        names = ", ".join(name for name, each in COLUMNS.items() if each.better)
        raise InputError(f"column '{column.name}' is no objective: choose from {names}")
    return column.better
