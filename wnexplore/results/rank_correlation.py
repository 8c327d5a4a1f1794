"""Ranks, and the rank correlation of two columns."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from wnexplore.results.columns import direction


def ranks(frame: pd.DataFrame, name: str) -> list[float]:
    """The rank of each row by column `name`, which must be complete: 1 is best, ties share the mean.

    Raises `InputError` for a column that is unknown or has no better direction.
    """
    best_first = direction(name) == "smaller"
    return [float(rank) for rank in frame[name].rank(method="average", ascending=best_first)]


def tau_b(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b, which allows for ties; NaN if all values of one are equal."""
    # scipy.stats is slow to import, and only needed here.
    from scipy.stats import kendalltau

    return float(kendalltau(a, b, variant="b").statistic)
