"""Confidence sequences against another formula and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from tests.benchmarks.seeds import differences, missed, sequence
from wnexplore.results.sequences import ALPHA, PRIOR_SEEDS, paired_sequence, resolution, seeds_needed


def _likelihood_ratio(values: list[float], mean: float) -> float:
    """The mixture over effect sizes, integrated numerically.

    The t statistic's density at an effect d, over that at 0, is an integral over the scale: here both are.
    """
    x = np.asarray(values) - mean
    x = x / np.sqrt((x**2).mean())
    n = len(x)

    def given_effect(effect: float) -> float:
        def over_scale(log: float) -> float:
            scale = math.exp(log)
            return math.exp(-n * log - ((x / scale - effect) ** 2).sum() / 2)

        return float(quad(over_scale, -3, 5, limit=200)[0])

    prior = math.sqrt(PRIOR_SEEDS / (2 * math.pi))
    total = quad(lambda d: prior * math.exp(-PRIOR_SEEDS * d * d / 2) * given_effect(d), -4, 4, limit=200)[0]
    return float(total / given_effect(0.0))


@pytest.mark.parametrize("count", [9, 15])
def test_bounds_are_where_the_mixture_of_likelihood_ratios_is_20(count: int) -> None:
    values = np.random.default_rng(count).normal(3.0, 2.0, count).tolist()
    interval = paired_sequence(values)
    assert interval is not None
    for bound in interval:
        assert _likelihood_ratio(values, bound) == pytest.approx(1 / ALPHA, rel=1e-4)


_values = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=9, max_size=30)


@given(_values, st.floats(-50, 50), st.floats(0.1, 10))
def test_it_moves_and_scales_with_the_differences(values: list[float], shift: float, scale: float) -> None:
    interval = paired_sequence(values, step=0.5)
    assert interval is not None
    moved = paired_sequence([scale * value + shift for value in values], step=scale * 0.5)
    assert moved == pytest.approx([scale * bound + shift for bound in interval], rel=1e-6, abs=1e-6)


@given(st.floats(-100, 100), st.integers(2, 40))
def test_equal_differences_are_not_certain(value: float, count: int) -> None:
    assert paired_sequence([value] * count) is None
    interval = paired_sequence([value] * count, step=1.0)
    if interval is not None:
        # Unseen changes of one step are possible with a probability of 3 / n (the rule of three).
        assert interval[0] < value - 3 / count
        assert interval[1] > value + 3 / count


@pytest.mark.parametrize("count", range(8, 200))
def test_equal_differences_hold_at_every_look_if_others_are_a_step(count: int) -> None:
    # A share p of seeds that are a step off, all in one direction, is never excluded before (1 - p)^n is 5 %:
    # these n come first in that share of sweeps, and all earlier looks are at beginnings of the same n.
    interval = paired_sequence([0.0] * count, step=1.0)
    assert interval is not None
    assert interval[1] >= 1 - 0.05 ** (1 / count)


@given(st.integers(1, 50_000), st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_the_step_of_accuracies_is_never_too_small(images: int, shares: list[float]) -> None:
    found = resolution([100 * round(share * images) / images for share in shares])
    assert images * found / 100 == pytest.approx(round(images * found / 100))
    assert found >= 100 / images * (1 - 1e-9)


def test_the_seeds_needed_reach_the_half_width() -> None:
    values = [0.0, 1.0] * 5
    count = seeds_needed(values, 0.5)
    interval = paired_sequence((values * count)[: count - count % 2])
    assert interval is not None
    assert (interval[1] - interval[0]) / 2 == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_at_most_5_percent_miss_the_true_mean_at_any_look(seed: int) -> None:
    for name, (values, step) in differences(2000, seed).items():
        assert missed(values, step, sequence()) <= 0.05, name
