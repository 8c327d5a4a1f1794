"""Intervals of paired differences that hold at every look, for adding seeds until a difference is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from statistics import fmean, variance

from wnexplore.results.columns import Interval

ALPHA = 0.01
"""The probability that the interval misses the true mean at any look, for normal differences, at most.

Skewed ones have a smaller variance in most samples than in truth, which costs coverage: at 1 % the intervals
of exponential differences miss the true mean at one of 30 looks in about 4 % of sweeps, at 5 % in about 9 %.
"""

PRIOR_SEEDS = 2.0
"""The weight of the mixture's prior, in seeds: more make intervals narrower after many seeds, wider after
few."""

MOST_SEEDS = 10_000
"""Most seeds that are ever said to be needed."""


def paired_sequence(differences: Sequence[float], step: float = 0.0) -> Interval | None:
    """The interval of the mean of `differences` in a 95 % confidence sequence; None while it is unbounded.

    It may be computed after each difference: the probability that any of these intervals misses the true
    mean is at most `ALPHA` for independent normal differences of unknown variance, however many there are
    (Ville's inequality), and below 5 % for exponential ones, as simulated up to 30. It is the mixture of t
    likelihood ratios over normal effect sizes of Lai, On Confidence Sequences, Annals of Statistics 1976; see
    Wang and Ramdas, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance,
    2023.

    `step` is the smallest change of a difference, such as one test image: the sum of squares is never less
    than that of differences of which one is a step off, so that equal differences aren't taken for certain.
    Equal ones without a step have no interval, and fewer than 8 never have one.

    For n equal differences the half width is then more than 1 - 0.05^(1/n) steps. So it bounds the mean with
    95 % at all looks, without normality, if a seed that differs does so by one step at most: a share p of
    such seeds leaves n equal ones with probability (1 - p)^n. It is no bound for rare seeds that differ by
    much more, of which equal differences tell nothing.
    """
    count = len(differences)
    if count < 2:
        return None
    mean = fmean(differences)
    half = multiplier(count) * math.sqrt(_variance(differences, step) / count)
    return (mean - half, mean + half) if 0 < half < math.inf else None


def multiplier(count: int) -> float:
    """The half width of the interval of `count` differences in standard errors; infinite for too few."""
    # The likelihood ratio of the mixture, sqrt(c / (n + c)) ((1 + q) / (1 + q c / (n + c)))^(n / 2) with
    # q = n mean² / (sum of squares around the mean), reaches 1 / alpha.
    share = PRIOR_SEEDS / (count + PRIOR_SEEDS)
    ratio = (1 / (share * ALPHA**2)) ** (1 / count)
    left = 1 - ratio * share
    return math.sqrt((ratio - 1) / left * (count - 1)) if left > 0 else math.inf


MIN_SEEDS = next(count for count in itertools.count(2) if multiplier(count) < math.inf)
"""Fewest differences with an interval: 8."""


def seeds_needed(differences: Sequence[float], wanted: float, step: float = 0.0) -> int:
    """About how many differences make the interval's half width `wanted`, at their present variance.

    At least one more than there are, at most `MOST_SEEDS`.
    """
    spread = _variance(differences, step)
    least = len(differences) + 1
    found = (n for n in range(least, MOST_SEEDS) if multiplier(n) * math.sqrt(spread / n) <= wanted)
    return next(found, MOST_SEEDS)


def resolution(percentages: Iterable[float]) -> float:
    """The step of percentages, each a whole number of the same unknown number of images: 100 over it.

    From the images that the percentages need at least, so that it is never too small.
    """
    images = 1
    for value in percentages:
        images = math.lcm(images, Fraction(value / 100).limit_denominator(_MOST_IMAGES).denominator)
        if images > _MOST_IMAGES:
            return 100 / _MOST_IMAGES
    return 100 / images


_MOST_IMAGES = 1_000_000


def _variance(differences: Sequence[float], step: float) -> float:
    count = len(differences)
    # A rounding error is no spread.
    spread = variance(differences) if max(differences) - min(differences) > 1e-9 else 0.0
    return max(spread, step**2 / count)
