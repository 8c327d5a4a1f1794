"""What each kind of warning on a latency means for a reader of tables, and what to do about it."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from wnexplore.report.frame import cells

ADVICE = {
    "outliers": "single passes took far longer than the median: close other programs, or give --seconds more",
    "slow_start": "the first passes were slow even after the warm-up: measure again",
    "drift": "the machine's speed changed while it was timed: trust latency_ratio, not latency_ms",
    "throttled": "the GPU held its clocks down: let it cool, or say in print that it ran throttled",
    "gpu_shared": "other processes had the GPU open: measure when it is free",
    "busy_machine": "other programs kept the cores busy: close them, or give fewer --threads",
    "wide_interval": "known less well than the target: give --seconds more, or a wider --target",
}
"""Kind of warning -> one line for all rows that have it; the record itself says it with numbers."""


def warning_kinds(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The kinds of warnings of each row."""
    return [tuple(text.split("; ")) if text else () for text in cells(frame, "warnings")]


def warning_lines(frame: pd.DataFrame) -> list[str]:
    """One line for each kind of warning: "drift (3 rows): the machine's speed changed ...".

    A kind that this version has no advice for is a line without one.
    """
    count = Counter(kind for kinds in warning_kinds(frame) for kind in kinds)
    return [_line(kind, rows) for kind, rows in count.items()]


def _line(kind: str, rows: int) -> str:
    head = f"{kind.replace('_', ' ')} ({rows} row{'s' if rows > 1 else ''})"
    return f"{head}: {ADVICE[kind]}" if kind in ADVICE else head
