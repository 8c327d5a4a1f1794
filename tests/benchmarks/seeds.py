"""How seeds until a difference is known behave, simulated: python -m tests.benchmarks.seeds [--runs 2000]

For differences of several distributions with a standard deviation of 1: how often an interval of the
confidence sequence misses the true mean at any look, from 3 to 30 seeds; the same for a t interval that is
looked at as often; and the mean number of seeds until the half width is a target, beside those that a t
interval needs whose number of seeds was fixed before.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from scipy.special import stdtrit

from wnexplore.results.sequences import multiplier

FIRST, MOST = 3, 30
STEP = 0.5
TARGETS = (0.5, 0.75, 1.0, 2.0)
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def differences(runs: int, seed: int = 0) -> dict[str, tuple[FloatArray, float]]:
    """Name -> differences of shape (runs, 30) with mean 0, and their step."""
    draw, shape = np.random.default_rng(seed), (runs, MOST)
    normal = draw.normal(size=shape)
    return {
        "normal": (normal, 0.0),
        "skewed (exponential)": (draw.exponential(size=shape) - 1, 0.0),
        "skewed to the left": (1 - draw.exponential(size=shape), 0.0),
        "rounded to half a deviation": (np.round(normal / STEP) * STEP, STEP),
        "4 of 5 equal": (draw.choice([-STEP, 0.0, STEP], p=[0.1, 0.8, 0.1], size=shape), STEP),
        "9 of 10 equal, others one side": (STEP * ((draw.random(shape) < 0.1) - 0.1), STEP),
        "all equal": (np.zeros(shape), STEP),
    }


def half_widths(values: FloatArray, step: float, multipliers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean and the half width after each of the values along the last axis."""
    count = np.arange(1, MOST + 1)
    means = np.cumsum(values, axis=-1) / count
    squares = np.cumsum(values**2, axis=-1) - count * means**2
    spread = np.maximum(squares / np.maximum(count - 1, 1), step**2 / count)
    widths = multipliers * np.sqrt(np.where(spread > 0, spread, np.inf) / count)
    return means, widths


def sequence() -> FloatArray:
    """The multiplier of the standard error after each seed, infinite before the first look."""
    return np.array([multiplier(n) if n >= FIRST else math.inf for n in range(1, MOST + 1)])


def student() -> FloatArray:
    """That of a t interval."""
    return np.array([stdtrit(n - 1, 0.975) if n >= FIRST else math.inf for n in range(1, MOST + 1)])


def missed(values: FloatArray, step: float, multipliers: FloatArray) -> float:
    """The share of runs in which an interval misses the true mean, 0, at any look."""
    means, half = half_widths(values, step, multipliers)
    return float((np.abs(means) > half * (1 + 1e-9)).any(axis=-1).mean())


def needed(values: FloatArray, step: float, multipliers: FloatArray, target: float) -> float:
    """Mean seeds until the half width is at most `target`; 30 for runs that don't reach it."""
    _, half = half_widths(values, step, multipliers)
    reached = half <= target
    return float(np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1, MOST).mean())


def fixed(target: float) -> int:
    """The seeds after which a t interval of normal differences is expected to have this half width."""
    widths = student() / np.sqrt(np.arange(1, MOST + 1))
    return next((n for n in range(FIRST, MOST + 1) if widths[n - 1] <= target), MOST)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    print(f"{runs} runs: an interval misses the true mean at a look from {FIRST} to {MOST} seeds, in %")
    print(f"{'differences':32} {'sequence':>9} {'t, as often':>12}")
    drawn = differences(runs)
    for name, (values, step) in drawn.items():
        shares = (100 * missed(values, step, k) for k in (sequence(), student()))
        print("{:32} {:9.1f} {:12.1f}".format(name, *shares))
    print("\nmean seeds of normal differences until the half width is a target, in standard deviations")
    print(f"{'target':32} {'sequence':>9} {'t, fixed':>12}")
    for target in TARGETS:
        print(f"{target:<32} {needed(*drawn['normal'], sequence(), target):9.1f} {fixed(target):12}")
    print("\nmean seeds until a difference of so many standard deviations is certainly not 0")
    print(f"{'difference':32} {'sequence':>9} {'t, fixed':>12}")
    values, step = drawn["normal"]
    for shift in TARGETS:
        means, half = half_widths(values + shift, step, sequence())
        found = np.abs(means) > half
        seeds = np.where(found.any(axis=-1), found.argmax(axis=-1) + 1, MOST).mean()
        print(f"{shift:<32} {seeds:9.1f} {fixed(shift):12}")


if __name__ == "__main__":
    main()
