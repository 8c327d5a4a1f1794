"""The marks of table rows: warnings on latencies, accuracies indistinguishable from plain."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from wnexplore.results.columns import COLUMNS
from wnexplore.results.frame import cells, score_of
from wnexplore.results.intervals import ENOUGH, MIN_SEEDS, best_coverage
from wnexplore.results.sequences import MIN_SEEDS as FEWEST_LOOKED

ADVICE = {
    "outliers": "single passes took far longer than the median: close other programs, or give more --seconds",
    "slow_start": "the first passes were slow even after the warm-up: measure again",
    "drift": "the machine's speed changed while it was timed: trust latency_ratio, not latency_ms",
    "throttled": "the GPU held its clocks down: let it cool, or report that it ran throttled",
    "gpu_shared": "other processes had the GPU open: measure when it is free",
    "busy_machine": "other programs kept the cores busy: close them, or use fewer --threads",
    "worthless": "an interval beyond ±30 %: end what keeps the cores busy, or use fewer --threads",
    "wide_interval": "less precise than the target: give more --seconds, or a wider --target",
}
"""Kind of warning -> one line for all rows that have it; records have the details."""


def warning_kinds(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The kinds of warnings of each row."""
    return [tuple(text.split("; ")) if text else () for text in cells(frame, "warnings")]


def warning_lines(frame: pd.DataFrame) -> list[str]:
    """One line per kind of warning: "drift (3 rows): the machine's speed changed ...".

    Unknown kinds have no advice.
    """
    count = Counter(kind for kinds in warning_kinds(frame) for kind in kinds)
    return [_line(kind, rows) for kind, rows in count.items()]


def indistinguishable(frame: pd.DataFrame) -> list[bool]:
    """For each row whether its accuracy is indistinguishable from the plain network's.

    That is if the interval of the difference contains 0 or is unknown; rows without a difference are not
    marked.
    """
    score = score_of(frame)
    bounds = (f"{score}_diff", f"{score}_diff_low", f"{score}_diff_high")
    return [
        value is not None and (low is None or high is None or low <= 0 <= high)
        for value, low, high in zip(*(cells(frame, name) for name in bounds), strict=True)
    ]


def indistinguishable_line(frame: pd.DataFrame) -> str:
    """The meaning of a row that is `indistinguishable`."""
    fewest = FEWEST_LOOKED if frame.attrs.get("looked") else MIN_SEEDS
    heading = COLUMNS[f"{score_of(frame)}_diff"].heading
    few = f"fewer than {fewest} seeds give none"
    return f"can't be told apart from plain: the interval of {heading} holds 0, or {few}"


def difference_line(frame: pd.DataFrame) -> str:
    """The meaning of the difference to plain, and the coverage of its interval; "" without any."""
    score = score_of(frame)
    heading = COLUMNS[score].heading
    if frame[f"{score}_diff"].isna().all():
        return ""
    line = f"{heading} over plain's on the same seeds, in percentage points"
    if frame["test_loss_diff"].notna().any():
        line = f"{heading} (percentage points) and test loss (nats) over plain's on the same seeds"
    known = frame[f"{score}_diff_low"].notna()
    if not known.any():
        return line
    if frame.attrs.get("looked"):
        sequence = f"a confidence sequence, from {FEWEST_LOOKED} seeds on"
        return f"{line}, with an interval that holds after every seed ({sequence})"
    paired = frame[known | (frame["method"] == "plain")]
    fewest = min(count for count in cells(paired, "seeds") if count is not None and count >= MIN_SEEDS)
    if fewest >= ENOUGH:
        return f"{line}, with a 95 % bootstrap interval"
    return (
        f"{line}; the bootstrap interval of {fewest} seeds covers {100 * best_coverage(fewest):.0f} % at most"
    )


def _line(kind: str, rows: int) -> str:
    head = f"{kind.replace('_', ' ')} ({rows} row{'s' if rows > 1 else ''})"
    return f"{head}: {ADVICE[kind]}" if kind in ADVICE else head
