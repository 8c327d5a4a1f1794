"""Medians with intervals, and diagnostics of samples. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import bdtr

from wnexplore.errors import InputError
from wnexplore.results.intervals import MedianInterval

_Samples = np.ndarray[Any, np.dtype[np.float64]]


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> MedianInterval:
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
    return MedianInterval(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k]))


def bootstrap_interval(samples: Sequence[float], confidence: float = 0.95) -> MedianInterval:
    """The median of samples in order of measurement, and its bootstrap percentile interval.

    Where neighbouring samples resemble each other (a burst of load slows several in a row), blocks of them
    are drawn, on a circle, so that the interval reflects the smaller effective sample size (Politis and
    Romano, A circular block-resampling procedure for stationary data, 1992; the length of a block as in
    Politis and White, Automatic block-length selection, 2004, for a first-order process). The draws are
    seeded: the same samples give the same interval. Raises `InputError` as `median_interval` does.
    """
    plain = median_interval(samples, confidence)
    values = np.asarray(samples, dtype=np.float64)
    n = values.size
    block = _block_length(values)
    starts = np.random.default_rng(0).integers(0, n, (_RESAMPLES, -(-n // block)))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(_RESAMPLES, -1)[:, :n] % n
    medians = np.median(values[drawn], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, (tail, 1 - tail))
    return MedianInterval(plain.median, min(float(low), plain.median), max(float(high), plain.median))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratios a_i / b_i of samples of the same rounds: a slowdown of a complete round cancels.

    Raises `InputError` if the lengths differ or a denominator is 0.
    """
    if len(numerators) != len(denominators):
        raise InputError(f"ratios need pairs: got {len(numerators)} samples and {len(denominators)}")
    if 0 in denominators:
        raise InputError("ratios need denominators other than 0")
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def slow_outliers(samples: Sequence[float]) -> int:
    """How many samples lie far above the median: by more than 5 standard deviations.

    The deviation is estimated by 1.4826 times the median absolute deviation, which is robust to outliers
    (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
    """
    values = np.asarray(samples, dtype=np.float64)
    return int((values > _far_above(values)).sum())


def slow_start(samples: Sequence[float]) -> float | None:
    """The first samples over the median, if they lie far above the later ones.

    The median of the first 3, as one outlier is no slow start; None if they don't, or for fewer than 12
    samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    first, later = np.median(values[:_FIRST]), values[_FIRST:]
    if values.size < 4 * _FIRST or first <= _far_above(later):
        return None
    return float(first / np.median(later))


def drift(samples: Sequence[float], least: float = 0.05) -> float | None:
    """The relative slowdown from the first to the last third of the samples; None if there is none.

    They differ if their medians' 95 % intervals are disjoint and the medians differ by more than `least`.
    Negative for a speed-up. None for fewer than 30 samples.
    """
    third = len(samples) // 3
    if third < 10:
        return None
    first, last = bootstrap_interval(samples[:third]), bootstrap_interval(samples[-third:])
    change = last.median / first.median - 1
    apart = first.high < last.low or last.high < first.low
    return change if apart and abs(change) > least else None


_RESAMPLES = 1000


def _block_length(values: _Samples) -> int:
    """The block length: 1 where the ranks of neighbours aren't correlated."""
    n = len(values)
    # Equal samples share the mean of their ranks.
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: _Samples = (np.cumsum(counts) - (counts - 1) / 2)[inverse] - (n + 1) / 2
    spread = float(ranks @ ranks)
    correlation = float(ranks[1:] @ ranks[:-1]) / spread if spread else 0.0
    if correlation < 2 / math.sqrt(n):
        return 1
    best: float = (3 * correlation**2 / (1 - correlation**2) ** 2 * n) ** (1 / 3)
    return min(n // 2, math.ceil(best))


_FIRST = 3
_FAR = 5.0


def _far_above(values: _Samples) -> float:
    median = np.median(values)
    # Times at the clock's resolution may all be equal: a difference of 1 % isn't far, whatever the deviation.
    deviation = max(1.4826 * float(np.median(np.abs(values - median))), 0.01 * float(median))
    return float(median) + _FAR * deviation
