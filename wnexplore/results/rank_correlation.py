"""Ranks, and the rank correlation of two columns."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

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
    """Kendall's tau-b, which allows for ties; NaN if all values of one are equal.

    Pairs are counted by sorting (Knight, A Computer Method for Calculating Kendall's Tau with Ungrouped Data,
    JASA 61, 1966). It is scipy.stats.kendalltau to the last digit, whose import takes longer than drawing a
    figure.
    """
    pairs = sorted(zip(a, b, strict=True))
    discordant = 0
    before: list[float] = []
    for _, second in pairs:
        place = bisect_right(before, second)
        discordant += len(before) - place
        before.insert(place, second)
    every = math.comb(len(pairs), 2)
    tied, tied_too, twice = (_tied(values) for values in (a, b, pairs))
    if every in (tied, tied_too):
        return math.nan
    surplus = every - tied - tied_too + twice - 2 * discordant
    return min(1.0, max(-1.0, surplus / math.sqrt(every - tied) / math.sqrt(every - tied_too)))


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


def _tied(values: Iterable[Hashable]) -> int:
    """The number of pairs of equal values."""
    return sum(math.comb(count, 2) for count in Counter(values).values())
