from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.errors import InputError
from wnexplore.measure.statistics import median_interval, ratio_interval

times = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (100, 40, 61)])
def test_bounds_are_those_of_the_published_tables(n: int, low: int, high: int) -> None:
    assert median_interval(range(1, n + 1)) == ((n + 1) / 2, low, high)


@pytest.mark.parametrize(
    "confidence", [Fraction(1, 2), Fraction(15, 16), Fraction(95, 100), Fraction(99, 100)]
)
def test_bounds_agree_with_exact_binomial_arithmetic(confidence: Fraction) -> None:
    for n in range(1, 120):
        allowed = (1 - confidence) * 2**n
        legal = [k for k in range(1, n // 2 + 1) if 2 * sum(math.comb(n, i) for i in range(k)) <= allowed]
        k = max(legal, default=1)
        interval = median_interval(range(1, n + 1), float(confidence))
        assert (interval.low, interval.high) == (k, n + 1 - k), n


@pytest.mark.parametrize("n", [6, 15, 40])
def test_interval_covers_the_true_median_of_skewed_samples(n: int) -> None:
    runs = 1000
    samples = np.random.default_rng(0).lognormal(mean=1.0, sigma=1.5, size=(runs, n))
    covered = sum(low <= math.e <= high for _, low, high in map(median_interval, samples.tolist()))
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


def test_bounds_of_fewer_than_six_samples_are_their_extremes() -> None:
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval([5.0, 1.0, 4.0, 2.0]) == (3.0, 1.0, 5.0)


def test_many_samples_are_no_trouble() -> None:
    median, low, high = median_interval(np.arange(200_001.0).tolist())
    half_width = 1.959964 * math.sqrt(200_001) / 2  # the normal limit of the binomial
    assert median == 100_000
    assert low == pytest.approx(100_000 - half_width, abs=2)
    assert high == pytest.approx(100_000 + half_width, abs=2)


@given(times)
def test_order_of_samples_does_not_matter_and_the_median_lies_inside(samples: list[float]) -> None:
    interval = median_interval(samples)
    assert interval == median_interval(samples[::-1])
    assert min(samples) <= interval.low <= interval.median <= interval.high <= max(samples)


def test_what_slows_both_of_a_pair_cancels_in_the_ratio() -> None:
    slowdowns = np.random.default_rng(0).lognormal(sigma=2.0, size=50)
    assert ratio_interval((3.0 * slowdowns).tolist(), (2.0 * slowdowns).tolist()) == pytest.approx((1.5,) * 3)


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    assert ratio_interval([1.0, 10.0, 3.0], [1.0, 2.0, 30.0]) == (1.0, 0.1, 5.0)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_samples_without_a_median_are_refused(samples: list[float]) -> None:
    with pytest.raises(InputError, match="at least one sample, and finite"):
        median_interval(samples)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        median_interval([1.0, 2.0], confidence)


def test_ratio_of_unpaired_samples_and_by_zero_is_refused() -> None:
    with pytest.raises(InputError, match="got 2 samples and 1"):
        ratio_interval([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="other than 0"):
        ratio_interval([1.0, 2.0], [1.0, 0.0])
