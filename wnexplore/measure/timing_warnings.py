"""Warnings about a timing's reliability, each with advice. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wnexplore.measure.conditions import Conditions
from wnexplore.measure.rounds import Timing
from wnexplore.measure.statistics import bootstrap_interval, drift, slow_outliers, slow_start
from wnexplore.results.columns import WORTHLESS

MANY_OUTLIERS = 0.05
"""The share of outliers among the samples from which they are reported."""


@dataclass(frozen=True)
class Warning:
    """One reason to doubt a figure, with advice."""

    kind: str
    text: str


def warnings_of(timing: Timing, target: float, conditions: Conditions) -> list[Warning]:
    """Every reason to doubt `timing`, measured to a relative half-width `target` of its ratio."""
    return [*_of_samples(timing), *_of_machine(conditions), *_of_interval(timing, target)]


def _of_samples(timing: Timing) -> Iterator[Warning]:
    samples = timing.samples_ms
    outliers = slow_outliers(samples)
    if outliers > MANY_OUTLIERS * len(samples):
        yield Warning(
            "outliers",
            f"{outliers} of {len(samples)} passes took far longer than the median: close other programs,"
            " or give more time (--seconds)",
        )
    slower = slow_start(samples)
    if slower is not None:
        yield Warning(
            "slow_start",
            f"the first passes took {slower:.2g} times the median even after the warm-up: measure again, and"
            " if it persists look for caches or clocks that need a longer warm-up",
        )
    change = drift(samples)
    if change is not None:
        yield Warning(
            "drift",
            f"the last rounds were {abs(change):.0%} {'slower' if change > 0 else 'faster'} than the first:"
            " trust latency_ratio, in which drift cancels, rather than latency_ms",
        )


def _of_machine(conditions: Conditions) -> Iterator[Warning]:
    if conditions.throttled_by:
        yield Warning(
            "throttled",
            f"the GPU held its clocks down ({', '.join(conditions.throttled_by)}): let it cool, or report"
            " that it ran throttled",
        )
    if conditions.other_gpu_processes:
        yield Warning(
            "gpu_shared",
            f"{conditions.other_gpu_processes} other processes had the GPU open: measure when it is free",
        )
    busy, free = conditions.busy_cores, conditions.free_cores
    if busy is not None and free is not None and busy > free + _SPARE_CORES:
        yield Warning(
            "busy_machine",
            f"other programs kept {busy:.1f} cores busy, and the timing left {free:g} free: close them, or"
            " use fewer --threads",
        )


def _of_interval(timing: Timing, target: float) -> Iterator[Warning]:
    half_width = bootstrap_interval(timing.deciding).half_width
    widest = max(half_width, bootstrap_interval(timing.samples_ms).half_width)
    if widest > WORTHLESS:
        yield Warning(
            "worthless",
            f"the 95 % interval is ±{widest:.0%} wide: the figure says nothing of the network; end what keeps"
            " the cores busy, or use fewer --threads, and give more time (--seconds)",
        )
    elif half_width >= target:
        yield Warning(
            "wide_interval",
            f"the 95 % interval is ±{half_width:.1%} wide where ±{target:.1%} was the target:"
            " give more time (--seconds), or a wider --target",
        )


_SPARE_CORES = 0.1
"""Load below this is the operating system's own."""
