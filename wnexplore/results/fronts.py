"""The Pareto-optimal rows of a frame."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, comparable_within, direction
from wnexplore.results.frame import doubts, groups, numbers, score_of
from wnexplore.results.pareto import pareto


def default_objectives(frame: pd.DataFrame) -> tuple[str, ...]:
    """Accuracy, or average precision, against FLOPs where something was trained, otherwise none.

    Without an accuracy there is no trade-off to mark: the plain network is smallest in every cost.
    """
    score = score_of(frame)
    trained = frame[score].notna() & frame["flops"].notna()
    return (score, "flops") if bool(trained.any()) else ()


def pareto_rows(
    frame: pd.DataFrame, objectives: Sequence[str] | None = None, *, strict: bool = False
) -> list[bool]:
    """For each row whether it is Pareto-optimal in `objectives` (column names; None: the default ones).

    A row is dominated only if another is certainly better: if latency intervals overlap, neither dominates
    the other. `strict` compares values only. Rows are compared only within the same protocol: a latency at
    batch 16 never with one at batch 1, and a predicted one never with a measured one. Rows without one of
    the figures are never marked. Raises `InputError` for a column that is unknown or has no better direction.
    """
    names = default_objectives(frame) if objectives is None else tuple(objectives)
    directions = [direction(name) for name in names]
    marked = [False] * len(frame)
    if not names:
        return marked
    points = list(zip(*(numbers(frame, name) for name in names), strict=True))
    unsure = list(zip(*(doubts(frame, name) for name in names), strict=True))
    # A predicted latency never marks, or unmarks, a measured one.
    kinds = ("latency_is",) if any(COLUMNS[name].within == LATENCY_PROTOCOL for name in names) else ()
    for positions in groups(frame, (*comparable_within(names), *kinds)).values():
        kept = pareto(
            [points[position] for position in positions],
            directions,
            None if strict else [unsure[position] for position in positions],
        )
        for position, optimal in zip(positions, kept, strict=True):
            marked[position] = optimal
    return marked


def objectives_caption(objectives: Sequence[str], *, strict: bool = False) -> str:
    """One line with the meaning of the mark: "Pareto-optimal in top-1 (larger), FLOPs (smaller), ..."."""
    if not objectives:
        return ""
    columns = [COLUMNS[name] for name in objectives]
    text = f"Pareto-optimal in {', '.join(f'{column.heading} ({column.better})' for column in columns)}"
    if not any(column.unsure for column in columns):
        return text
    return f"{text}, latencies {'by their medians' if strict else 'by disjoint intervals'}"
