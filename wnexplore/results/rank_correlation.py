"""Ranks, and the rank correlation of two columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from wnexplore.results.columns import direction
from wnexplore.results.intervals import FloatArray


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


def tau_b_with(order: FloatArray, values: FloatArray) -> FloatArray:
    """Kendall's tau-b of an order and of `values`, (..., n); (...), and 0 where all of one are tied.

    `order` is (n, n): the sign of item j over item i at [i, j], 0 where the two are tied. Being tied need not
    be transitive, and isn't for figures that are known to within an error. Source: the general correlation
    coefficient of Daniels (Biometrika 33, 1944), of which tau-b is the one of signs.
    """
    first, second = np.triu_indices(len(order), 1)
    ours, theirs = np.sign(values[..., second] - values[..., first]), order[first, second]
    untied = np.sqrt((ours**2).sum(axis=-1) * (theirs**2).sum())
    tau: FloatArray = (ours @ theirs) / np.maximum(untied, 1)
    return tau
