from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from tests.examples import rest_slow
from wnexplore.errors import InputError
from wnexplore.measure.statistics import (
    bootstrap_interval,
    drift,
    median_interval,
    ratios,
    slow_outliers,
    slow_start,
)
from wnexplore.results.intervals import MedianInterval

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


def test_what_slows_a_whole_round_cancels_in_the_ratios() -> None:
    slowdowns = np.random.default_rng(0).lognormal(sigma=2.0, size=50)
    found = ratios((3.0 * slowdowns).tolist(), (2.0 * slowdowns).tolist())
    assert bootstrap_interval(found) == pytest.approx((1.5,) * 3)


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([1.0, 10.0, 3.0], [1.0, 2.0, 30.0]) == [1.0, 5.0, 0.1]


@pytest.mark.parametrize("n", rest_slow([20, 60], 20))
def test_bootstrap_covers_the_true_ratio_in_95_of_100_simulated_runs(n: int) -> None:
    dice = np.random.default_rng(n)
    covered = 0
    for _ in range(1000):
        drift = np.linspace(1, dice.uniform(0.5, 2), n) * dice.lognormal(sigma=0.3, size=n)
        plain = 10 * drift * dice.lognormal(sigma=0.1, size=n)
        latencies = 14 * drift * dice.lognormal(sigma=0.1, size=n)
        interval = bootstrap_interval(ratios(latencies.tolist(), plain.tolist()))
        covered += interval.low <= 1.4 <= interval.high
    # Three standard errors of the share, and the percentile interval's own small bias.
    assert 0.92 <= covered / 1000 <= 0.975


def test_bursts_that_slow_several_samples_in_a_row_widen_the_interval() -> None:
    dice = np.random.default_rng(0)
    bursts = np.repeat(dice.lognormal(sigma=0.3, size=40), 5)
    together, shuffled = (
        bootstrap_interval(bursts.tolist()),
        bootstrap_interval(dice.permutation(bursts).tolist()),
    )
    assert together.half_width > 1.5 * shuffled.half_width


def test_bootstrap_agrees_with_scipys_where_samples_are_independent() -> None:
    samples = np.random.default_rng(3).lognormal(sigma=0.2, size=200)
    ours = bootstrap_interval(samples.tolist())
    theirs = bootstrap((samples,), np.median, method="percentile", rng=np.random.default_rng(1))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, rel=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, rel=0.01)


@given(times)
def test_bootstrap_is_repeatable_and_contains_the_median(samples: list[float]) -> None:
    interval = bootstrap_interval(samples)
    assert interval == bootstrap_interval(samples)
    assert interval.median == np.median(samples)
    assert min(samples) <= interval.low <= interval.median <= interval.high <= max(samples)


def test_half_width_is_that_of_the_wider_side_relative_to_the_median() -> None:
    assert MedianInterval(10.0, 9.5, 12.0).half_width == pytest.approx(0.2)


@given(
    st.lists(st.floats(0.95, 1.05), min_size=20, max_size=60),
    st.lists(st.floats(10, 100), max_size=5),
    st.randoms(use_true_random=False),
)
def test_slow_outliers_are_the_ones_put_in(
    usual: list[float], slow: list[float], dice: random.Random
) -> None:
    samples = usual + slow
    dice.shuffle(samples)
    # Five deviations of the usual ones reach at most 5 · 1.4826 · 0.1 above them.
    assert slow_outliers(samples) >= len(slow)
    assert slow_outliers(samples) <= len(slow) + sum(value > 1.05 * np.median(samples) for value in usual)


def test_fast_samples_and_equal_ones_are_no_outliers() -> None:
    assert slow_outliers([10.0] * 20 + [0.1]) == 0
    assert slow_outliers([10.0] * 20) == 0


def test_a_slow_start_is_reported_by_how_much() -> None:
    steady = np.random.default_rng(0).normal(10, 0.1, 30).tolist()
    assert slow_start(steady) is None
    assert slow_start([30.0, 29.0, 31.0, *steady]) == pytest.approx(3.0, rel=0.02)
    assert slow_start([30.0, *steady]) is None, "one outlier is no slow start"
    assert slow_start([30.0, 29.0, 31.0, *steady[:8]]) is None, "too few to tell"


def test_drift_is_reported_with_its_sign() -> None:
    dice = np.random.default_rng(0)
    steady = dice.normal(10, 0.1, 90)
    assert drift(steady.tolist()) is None
    assert drift((steady * np.linspace(1, 1.3, 90)).tolist()) == pytest.approx(0.2, abs=0.03)
    assert drift((steady * np.linspace(1.3, 1, 90)).tolist()) == pytest.approx(-0.167, abs=0.03)
    assert drift((steady * np.linspace(1, 1.03, 90)).tolist()) is None, "too little to matter"
    assert drift(dice.lognormal(sigma=1.0, size=36).tolist()) is None, "too noisy to tell"
    assert drift([1.0] * 14 + [2.0] * 14) is None, "too few to tell"


@pytest.mark.parametrize("interval", [median_interval, bootstrap_interval])
@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_samples_without_a_median_are_refused(
    samples: list[float], interval: Callable[[list[float]], MedianInterval]
) -> None:
    with pytest.raises(InputError, match="finite"):
        interval(samples)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match=r"\b0\b.*\b1\b"):
        median_interval([1.0, 2.0], confidence)


def test_ratio_of_unpaired_samples_and_by_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"\b2\b.*\b1\b"):
        ratios([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match=r"\b0\b"):
        ratios([1.0, 2.0], [1.0, 0.0])
