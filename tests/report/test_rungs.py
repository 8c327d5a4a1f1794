from __future__ import annotations

import math
import re
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.results.records import HALVING, curves, failure, halved, points, sweep, trained
from wnexplore.report.rungs import RankCorrelation, lines, rank_correlations, rungs, spent
from wnexplore.results.record import Record
from wnexplore.results.trainings import rungs_of, trainings

PLAIN, SE, CONDCONV, WEIGHTNET, LAST = points()[:5]


def three_rungs() -> list[Record]:
    """5 variants of 2 seeds, 3 dropped after 1 epoch and 1 after 3."""
    found = []
    for seed, luck in ((0, -1.0), (1, 1.0)):
        for point, at, top1 in (
            (PLAIN, 1, [50.0]),
            (SE, 1, [52.0]),
            (CONDCONV, 1, [51.0]),
            (WEIGHTNET, 3, [60.0, 70.0]),
            (LAST, None, [61.0, 75.0, 90.0]),
        ):
            shifted = [value + luck for value in top1]
            found.append(trained(point, shifted, dropped_at=at, seed=seed, **HALVING))
    return found


def test_rungs_are_reported_with_what_they_dropped_and_cost() -> None:
    first, second = rungs(trainings(three_rungs()))
    assert (first.epochs, first.entered) == (1, 5)
    assert first.dropped == ((SE, 52), (CONDCONV, 51), (PLAIN, 50))
    assert (second.epochs, second.entered, second.dropped) == (3, 2, ((WEIGHTNET, 70),))
    assert spent(trainings(three_rungs())) == (2 * (3 * 1 + 3 + 9), 2 * 5 * 9)
    for line, facts in zip(
        lines(three_rungs()),
        (
            r"\b1 of 9\b.*\b5\b.*\b3\b.*: se 52\.0 %, condconv experts=4 51\.0 %, plain 50\.0 %$",
            r"\b3 of 9\b.*\b2\b.*\b1\b.*: weightnet M=1 G=1 70\.0 %$",
            r"\b1\b.*: weightnet M=2 G=1 90\.0 %$",
            r"\b30\b.*\b90\b.*\b33\.3 %",
        ),
        strict=True,
    ):
        assert re.search(facts, line), line


def test_what_failed_is_counted_apart() -> None:
    failures = [failure("training", points()[6], epochs=9, seed=seed, **HALVING) for seed in range(2)]
    lost = [failure("training", PLAIN, epochs=9, seed=2, **HALVING)]
    assert rungs(trainings([*three_rungs(), *failures, *lost])) == rungs(trainings(three_rungs()))
    cost = lines([*three_rungs(), *failures, *lost])[-1]
    assert re.search(r"\b90\b.*\b33\.3 %.*\b3\b", cost)


@pytest.mark.parametrize(
    ("least", "largest", "eta", "found"),
    [(1, 9, 3, [1, 3, 9]), (1, 27, 3, [1, 3, 9, 27]), (2, 10, 2, [2, 4, 8, 10]), (3, 3, 3, [3])],
)
def test_rungs_grow_by_eta(least: int, largest: int, eta: int, found: list[int]) -> None:
    protocol = {"schedule": "halving", "min_epochs": least, "max_epochs": largest, "eta": eta}
    assert rungs_of(protocol) == found
    assert rungs_of({"epochs": 9}) == []


@examples(20)
@given(st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=3, max_size=8))
def test_early_ranks_against_counting_pairs(tops: list[tuple[int, int, int]]) -> None:
    records = [
        trained(point, [float(value + luck) for value in top1], seed=seed)
        for point, top1 in zip(points(), tops, strict=False)
        for seed, luck in ((0, -1), (1, 1))
    ]
    first, second = rank_correlations(trainings(records))
    for found, epoch, index in ((first, 1, 0), (second, 3, 1)):
        assert (found.epochs, found.later, found.variants) == (epoch, 9, len(tops))
        signs = [
            ((a[index] > b[index]) - (a[index] < b[index]), (a[2] > b[2]) - (a[2] < b[2]))
            for place, a in enumerate(tops)
            for b in tops[:place]
        ]
        untied = math.sqrt(sum(bool(x) for x, _ in signs) * sum(bool(y) for _, y in signs))
        if untied:
            assert found.tau == pytest.approx(sum(x * y for x, y in signs) / untied)
        else:
            assert math.isnan(found.tau)


def test_a_run_in_full_says_how_far_early_ranks_held() -> None:
    top1 = ([50.0, 70.0, 90.0], [51.0, 71.0, 89.0], [52.0, 72.0, 88.0])
    records = [trained(point, values) for point, values in zip(points(), top1, strict=False)]
    for line, epochs in zip(lines(records), (1, 3), strict=True):
        assert re.search(rf"\b{epochs} of 9\b.*-1\.00 .*\b3\b", line), line
    alike = [trained(point, [50.0, 70.0 + i, 90.0 + i]) for i, point in enumerate(points()[:3])]
    assert "-1.00" not in lines(alike)[0]
    assert lines(records[:2]) == []
    assert lines(sweep()) == lines([]) == []


def test_halving_is_judged_by_those_it_kept_long_enough() -> None:
    full = curves()
    found = rank_correlations(trainings(halved(full)))
    assert [(correlation.epochs, correlation.later, correlation.variants) for correlation in found] == [
        (1, 3, 4)
    ]
    assert re.search(r"\b1 of 9\b.*\b3\b.*\b4 of 12\b", lines(halved(full))[-1])
    assert all(
        isinstance(correlation, RankCorrelation) and correlation.variants == 12
        for correlation in rank_correlations(trainings(full))
    )


def test_means_are_over_seeds_and_several_protocols_are_named() -> None:
    for training in trainings(curves()):
        records = [r for r in training.records if r.point == training.point]
        assert training.tested_means[3] == pytest.approx(fmean(r.samples["tested_top1"][1] for r in records))
    other = [replace(r, protocol={**r.protocol, "lr": 0.5}) for r in curves()]
    assert [line.partition(": ")[0] for line in lines([*curves(), *other])] == [
        *("lr 0.1", "lr 0.1", "lr 0.5", "lr 0.5"),
    ]


def test_backbones_are_named_where_there_are_several() -> None:
    both = [trained(p, [50.0], dropped_at=1, **HALVING) for p in (points()[0], points("resnet18")[0])]
    (line, *_) = lines(both)
    assert "shufflenet_v2_x0_5 plain 50.0 %, resnet18 plain 50.0 %" in line
