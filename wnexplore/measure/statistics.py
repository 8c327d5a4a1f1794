"""Medians with an error bar that assumes nothing about how the samples are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

from wnexplore.errors import InputError


class Interval(NamedTuple):
    """A median and its confidence interval, in the unit of the samples."""

    median: float
    low: float
    high: float


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median of independent samples, and an interval that covers the true one.

    The bounds are the order statistics x_(k) and x_(n+1-k) with the largest k for which
    2·P(Binomial(n, 1/2) < k) <= 1 - confidence, so that the true coverage is at least `confidence`
    whatever the distribution (David and Nagaraja, Order Statistics, 3rd ed., section 7.1). Where
    there is no such k (at 95 %: fewer than 6 samples) the bounds are the smallest and the largest
    sample, which cover less: 1 - 2^(1-n).

    Raises `InputError` without samples, for one that is not finite, or if `confidence` is not
    between 0 and 1.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: expected a number between 0 and 1, such as 0.95")
    if ordered.size == 0 or not np.isfinite(ordered).all():
        raise InputError("a median needs at least one sample, and finite ones only")
    n = ordered.size
    tail = bdtr(np.arange((n + 1) // 2), n, 0.5)
    k = max(1, int(np.searchsorted(tail, (1 - confidence) / 2, side="right")))
    return Interval(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k]))


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float = 0.95
) -> Interval:
    """The median of the pairwise ratios a_i / b_i and its interval, as `median_interval` gives it.

    For samples taken in pairs, one after the other: what slows both of a pair cancels. Raises
    `InputError` if the lengths differ or a denominator is 0, and as `median_interval` does.
    """
    if len(numerators) != len(denominators):
        raise InputError(f"ratios need pairs: got {len(numerators)} samples and {len(denominators)}")
    if 0 in denominators:
        raise InputError("ratios need denominators other than 0")
    return median_interval([a / b for a, b in zip(numerators, denominators, strict=True)], confidence)
