import numpy as np
import pytest

from wnexplore.measure.conditions import Conditions
from wnexplore.measure.rounds import Timing
from wnexplore.measure.timing_warnings import warnings_of

QUIET = Conditions(other_gpu_processes=0, busy_cores=0.05, free_cores=0.0)


def _timing(samples: list[float], ratio: float = 2.0) -> Timing:
    return Timing(samples, [sample / ratio for sample in samples])


def _steady(count: int = 60) -> list[float]:
    return [float(x) for x in np.random.default_rng(0).normal(10, 0.1, count)]


def _kinds(timing: Timing, conditions: Conditions = QUIET, target: float = 0.03) -> list[str]:
    return [warning.kind for warning in warnings_of(timing, target, conditions)]


def test_a_steady_timing_on_a_quiet_machine_has_none() -> None:
    assert _kinds(_timing(_steady())) == []
    assert _kinds(_timing(_steady()), Conditions()) == []


@pytest.mark.parametrize(
    ("samples", "kind", "message"),
    [
        (_steady()[:54] + [50.0] * 6, "outliers", "6 of 60 passes"),
        ([40.0, 41.0, 40.0, *_steady()], "slow_start", "4 times"),
        ([x * (1 + 0.01 * i) for i, x in enumerate(_steady())], "drift", "slower than the first"),
        ([x * (1 - 0.01 * i) for i, x in enumerate(_steady())], "drift", "faster than the first"),
    ],
)
def test_samples_that_can_not_be_trusted_are_reported(samples: list[float], kind: str, message: str) -> None:
    (warning,) = (w for w in warnings_of(_timing(samples), 0.03, QUIET) if w.kind == kind)
    assert message in warning.text
    assert ": " in warning.text, "a finding, and what to do about it"


@pytest.mark.parametrize(
    ("conditions", "kind", "message"),
    [
        (Conditions(throttled_by=("thermal", "power cap")), "throttled", "(thermal, power cap)"),
        (Conditions(other_gpu_processes=2), "gpu_shared", "2 other processes"),
        (Conditions(busy_cores=0.5, free_cores=0.0), "busy_machine", "0.5 cores busy"),
        (Conditions(busy_cores=3.0, free_cores=2.0), "busy_machine", "left 2 free"),
    ],
)
def test_a_machine_that_does_other_things_is_reported(
    conditions: Conditions, kind: str, message: str
) -> None:
    (warning,) = warnings_of(_timing(_steady()), 0.03, conditions)
    assert warning.kind == kind
    assert message in warning.text


def test_load_on_cores_that_the_timing_leaves_free_is_nobodys_trouble() -> None:
    assert _kinds(_timing(_steady()), Conditions(busy_cores=1.9, free_cores=2.0)) == []


def test_an_interval_wider_than_the_target_is_reported_with_both_widths() -> None:
    dice = np.random.default_rng(0)
    noisy = Timing(dice.normal(10, 1, 40).tolist(), dice.normal(5, 0.5, 40).tolist())
    (warning,) = (w for w in warnings_of(noisy, 0.005, QUIET) if w.kind == "wide_interval")
    assert "±0.5%" in warning.text
    assert "wide_interval" not in _kinds(noisy, target=0.2)
    # Of the baseline itself the interval of its times counts.
    assert _kinds(Timing(noisy.samples_ms), target=0.005) == ["wide_interval"]


@pytest.mark.parametrize("spread", [0.2, 3.0])
def test_a_figure_that_says_nothing_is_called_worthless(spread: float) -> None:
    """Times of a busy machine, between once and `1 + spread` times as long."""
    dice = np.random.default_rng(0)
    times = [float(10 * (1 + spread * slow)) for slow in dice.integers(0, 2, 24)]
    kinds = _kinds(Timing(times, [10.0] * len(times)), target=0.01)
    assert ("worthless" in kinds) == (spread == 3.0)
    assert ("wide_interval" in kinds) == (spread == 0.2)
