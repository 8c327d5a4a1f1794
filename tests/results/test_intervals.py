from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr, stdtrit

from tests.examples import examples, rest_slow
from wnexplore.results.intervals import (
    _resampled,
    _resamples,
    best_coverage,
    paired_interval,
    t_interval,
)

_points = st.floats(-30, 30).map(lambda value: round(value, 3))


def naive(values: list[float]) -> tuple[float, float]:
    """The innermost means beyond which, themselves included, lie no more resamples than the level allows."""
    n = len(values)
    times = Counter(round(sum(drawn) / n, 9) for drawn in itertools.product(values, repeat=n))
    largest = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)) * n**n
    low = [v for v in times if sum(count for mean, count in times.items() if mean <= v) <= largest]
    high = [v for v in times if sum(count for mean, count in times.items() if mean >= v) <= largest]
    return max(low, default=min(times)), min(high, default=max(times))


@examples(25)
@given(st.lists(st.integers(-9, 9).map(lambda value: value / 3.6), min_size=3, max_size=4))
def test_few_are_enumerated_against_every_resample(values: list[float]) -> None:
    assert paired_interval(values) == pytest.approx(naive(values), abs=1e-9)


def test_six_against_every_resample() -> None:
    for values in ([0.3, -1.2, 2.75, 0.9, 4.0, -0.1], [1 / 3.6, 0.0, 0.0, 2 / 3.6, -1 / 3.6, 0.0]):
        found = paired_interval(values)
        assert found == pytest.approx(naive(values), abs=1e-8)
        assert found is not None
        assert min(values) < found[0] < found[1] < max(values)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_up_to_five_it_is_from_the_smallest_to_the_largest(count: int) -> None:
    values = [1.5, -0.5, 3.25, 0.0, 9.0][:count]
    assert paired_interval(values) == (min(values), max(values))


@examples(100)
@given(st.lists(st.one_of(_points, st.integers(-2, 2).map(lambda n: n * 4e-10)), min_size=3, max_size=5))
def test_up_to_five_it_is_that_of_all_resamples_to_the_last_digit(values: list[float]) -> None:
    low, high = _resampled(np.array(values))
    assert paired_interval(values) == (min(low, fmean(values)), max(high, fmean(values)))


def test_many_are_drawn_about_as_wide_as_student_t() -> None:
    noise = random.Random(5)
    for count in (10, 40):
        values = [noise.gauss(1, 2) for _ in range(count)]
        found, student = paired_interval(values), t_interval(values)
        assert found == paired_interval(values)
        assert found is not None
        assert found[1] - found[0] == pytest.approx(student[1] - student[0], rel=0.1)


@settings(deadline=None)
@given(st.lists(_points, min_size=3, max_size=8))
def test_mirrored_differences_have_the_mirrored_interval_round_their_mean(values: list[float]) -> None:
    found, mirrored = paired_interval(values), paired_interval([-value for value in values])
    assert found is not None
    assert mirrored is not None
    assert mirrored == pytest.approx((-found[1], -found[0]))
    assert found[0] <= fmean(values) <= found[1]


def test_equal_differences_are_certain_and_fewer_than_three_are_not() -> None:
    assert paired_interval([0.1] * 7) == pytest.approx((0.1, 0.1))
    assert paired_interval([0.0] * 3) == (0, 0)
    assert paired_interval([1.0, 1.0]) is paired_interval([1.0]) is paired_interval([]) is None


def _coverage(count: int, draw: Callable[[], float], truth: float, times: int) -> float:
    held = 0
    for _ in range(times):
        interval = paired_interval([draw() for _ in range(count)])
        held += interval is not None and interval[0] <= truth <= interval[1]
    return held / times


# 3 standard errors of 500 simulations are 2.9 to 6.2 points; what the docstring states lies within.
@pytest.mark.parametrize(
    ("count", "normal", "skewed"),
    rest_slow([(3, 0.76, 0.69), (5, 0.94, 0.89), (10, 0.95, 0.91), (20, 0.95, 0.92)], (5, 0.94, 0.89)),
)
def test_coverage_is_what_is_stated(count: int, normal: float, skewed: float) -> None:
    noise = random.Random(count)
    assert abs(_coverage(count, lambda: noise.gauss(0, 1), 0, 500) - normal) < (0.06 if count == 3 else 0.03)
    assert abs(_coverage(count, lambda: noise.expovariate(1), 1, 500) - skewed) < 0.06


def test_no_more_is_promised_than_the_extremes_can_cover() -> None:
    noise = random.Random(1)
    for count, largest in ((3, 0.75), (4, 0.875), (5, 0.9375)):
        assert best_coverage(count) == largest
        samples = [[noise.uniform(-1, 1) for _ in range(count)] for _ in range(4000)]
        assert fmean(min(s) <= 0 <= max(s) for s in samples) == pytest.approx(largest, abs=0.02)


def test_student_t_against_scipy() -> None:
    values = [90.0, 91.5, 89.25, 92.0]
    assert t_interval(values) == pytest.approx(stats.t.interval(0.95, 3, fmean(values), stats.sem(values)))


def by_sorting(values: list[float]) -> tuple[float, float]:
    """The interval from resamples and numpy.unique alone, digit for digit."""
    n = len(values)
    resamples, weights = _resamples(n)
    weights = np.ones(len(resamples)) if weights is None else weights
    means = resamples @ np.asarray(values) / n
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, 0.975))))

    def upper(means: np.ndarray[Any, Any]) -> float:
        _, first, group = np.unique(-means.round(9), return_index=True, return_inverse=True)
        at_least = np.cumsum(np.bincount(group, weights))
        return float(means[first[max(0, int(np.searchsorted(at_least, tail * at_least[-1], "right")) - 1)]])

    return min(-upper(-means), fmean(values)), max(upper(means), fmean(values))


@settings(deadline=None)
@given(st.lists(_points | st.integers(-9, 9).map(lambda value: value / 3.6), min_size=3, max_size=12))
def test_without_sorting_every_digit_is_the_same(values: list[float]) -> None:
    assert paired_interval(values) == by_sorting(values)
