"""The order of a run's accuracies beside the published one, on runs whose figures are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from tests.results.records import HALVING, SMALL, failure, trained, training
from wnexplore.design.point import DesignPoint
from wnexplore.design.published_accuracy import published_accuracies, published_accuracy
from wnexplore.design.shipped import shipped_sweeps
from wnexplore.design.sweep_file import load_sweep
from wnexplore.errors import InputError
from wnexplore.results.intervals import paired_interval, resampled_interval
from wnexplore.results.published_ranking import PublishedRanking, published_rankings
from wnexplore.results.rank_correlation import tau_b_with
from wnexplore.results.record import Record
from wnexplore.results.sequences import paired_sequence

HALF, ONE = "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"


def design(method: str = "plain", *, backbone: str = HALF, **axes: Any) -> DesignPoint:
    return DesignPoint.of(backbone, method, **{**SMALL, **axes})


PLAIN, SE, SK = (design(method) for method in ("plain", "se", "sk"))
ONCE, EIGHT = design("weightnet", M=2, G=2), design("weightnet", M=8, G=1)
TWO = design("condconv", experts=2)


def seeded(point: DesignPoint, top1: Iterable[float], **protocol: Any) -> list[Record]:
    return [training(point, value, seed=seed, **protocol) for seed, value in enumerate(top1)]


def ranked(*records: Sequence[Record]) -> PublishedRanking:
    (ranking,) = published_rankings(itertools.chain(*records))
    return ranking


def verdicts(ranking: PublishedRanking) -> dict[tuple[DesignPoint, DesignPoint], str]:
    return {(pair.worse.point, pair.better.point): pair.verdict for pair in ranking.overall.pairs}


@pytest.mark.parametrize(
    ("point", "top1", "error"),
    [
        (PLAIN, "60.3", "0.05"),
        (ONCE, "63.3", "0.05"),
        (design("weightnet", M=1, G=1), "63.3", "0.05"),
        (EIGHT, "66.0", "0.05"),
        (design("weightnet", M=16, G=2, resolution=24), "66.0", "0.05"),
        (design("weightnet", backbone=ONE, M=8, G=2), "72.4", "0.05"),
        (SE, "62.5", "0.3"),
        (TWO, "62.7", "0.1"),
        (design("condconv", backbone="shufflenet_v2_x2_0", experts=4), "76.1", "0.3"),
        (design("sk", backbone=ONE), "71.0", "0.1"),
        # 4x was published at 1.0x and above alone, and nothing of other axes, methods and backbones.
        (design("weightnet", M=4, G=1), None, None),
        (design("weightnet", M=8, G=8), None, None),
        (design("weightnet", M=2, G=2, stages="4"), None, None),
        (design("weightnet", M=2, G=2, reduction=8), None, None),
        (design("weightnet", M="4/C", G="1/C"), None, None),
        (design("condconv", experts=8), None, None),
        (design("cbam"), None, None),
        (DesignPoint.of("resnet50"), None, None),
        (DesignPoint.of("shufflenet_v2_x0_75"), None, None),
        (DesignPoint.of("torchvision:shufflenet_v2_x0_5"), None, None),
    ],
    ids=str,
)
def test_the_published_accuracy_of_a_design(point: DesignPoint, top1: str | None, error: str | None) -> None:
    found = published_accuracy(point)
    if top1 is None:
        assert found is None
    else:
        assert found is not None
        assert (found.top1, found.error) == (Decimal(top1), Decimal(str(error)))


def test_every_design_was_published_once() -> None:
    found = published_accuracies()
    assert len(found) == 12 + 16
    assert len({(f.backbone, f.method, f.multiplier, f.experts) for f in found}) == len(found)


def test_the_shipped_sweep_holds_every_published_design_at_two_widths() -> None:
    spec = load_sweep(shipped_sweeps()["published_ranking"])
    points = [listed.point() for listed in spec.points or ()]
    found = [published_accuracy(point) for point in points]
    assert None not in found
    assert {*found} == {one for one in published_accuracies() if one.backbone in (HALF, ONE)}
    assert len(found) == 14
    assert spec.train is not None
    assert all(point.resolution <= 32 for point in points)


def test_pairs_by_hand() -> None:
    ranking = ranked(
        seeded(PLAIN, (50, 51, 52, 53, 54)),
        seeded(ONCE, (49, 50.5, 50.5, 52, 53)),  # below plain in each seed
        seeded(EIGHT, (54, 50.6, 57, 58, 53.5)),
        seeded(TWO, (53, 54, 55, 56, 57)),
    )
    assert verdicts(ranking) == {
        (PLAIN, TWO): "same",
        (PLAIN, ONCE): "reversed",
        (PLAIN, EIGHT): "unresolved",
        (TWO, ONCE): "reversed",
        (TWO, EIGHT): "unresolved",
        (ONCE, EIGHT): "same",
    }
    pair = next(p for p in ranking.overall.pairs if (p.worse.point, p.better.point) == (PLAIN, ONCE))
    assert pair.difference == pytest.approx(-1)
    assert (pair.published_difference, pair.published_error) == (Decimal("3.0"), Decimal("0.10"))
    assert [design.point for design in ranking.designs] == [PLAIN, TWO, ONCE, EIGHT]
    assert ranking.designs[0].value == 52


def test_what_is_within_the_error_of_the_published_figures_is_tied() -> None:
    ranking = ranked(*(seeded(p, (value,) * 4) for p, value in ((SE, 50), (SK, 60), (TWO, 55), (PLAIN, 70))))
    assert verdicts(ranking) == {
        (SE, SK): "tied",  # 62.5 and 62.5
        (SE, TWO): "tied",  # 62.5 ± 0.3 and 62.7 ± 0.1
        (SK, TWO): "tied",
        **{(PLAIN, other): "reversed" for other in (SE, SK, TWO)},
    }
    assert ranking.overall.tau == pytest.approx(-3 / math.sqrt(6 * 3))


def test_two_designs_of_one_published_row_are_tied() -> None:
    other = design("weightnet", M=1, G=1)
    ranking = ranked(*(seeded(p, (value,) * 4) for p, value in ((ONCE, 50), (other, 60), (PLAIN, 40))))
    pair = next(pair for pair in ranking.overall.pairs if PLAIN not in (pair.worse.point, pair.better.point))
    assert (pair.verdict, pair.published_difference, pair.published_error) == ("tied", 0, 0)
    assert ranking.overall.tau == pytest.approx(2 / math.sqrt(3 * 2))


def test_only_common_seeds_are_compared() -> None:
    uneven = [
        training(EIGHT, value, seed=seed) for seed, value in ((1, 61.0), (2, 62.0), (3, 63.0), (9, 0.0))
    ]
    ranking = ranked(seeded(PLAIN, (99, 51, 52, 53)), uneven, [failure("training", EIGHT, seed=0)])
    (pair,) = ranking.overall.pairs
    assert (pair.differences, pair.verdict) == ([10, 10, 10], "same")
    assert ranking.overall.seeds == [1, 2, 3]
    assert ranking.overall.tau == 1


def test_too_few_common_seeds_resolve_nothing() -> None:
    ranking = ranked(seeded(PLAIN, (50, 50)), seeded(EIGHT, (60, 60)))
    (pair,) = ranking.overall.pairs
    assert (pair.interval, pair.verdict, pair.difference) == (None, "unresolved", 10)
    assert (ranking.overall.tau, ranking.overall.tau_interval) == (1, None)
    apart = ranked([training(PLAIN, seed=0)], [training(EIGHT, seed=1)])
    (pair,) = apart.overall.pairs
    assert (pair.difference, pair.verdict, apart.overall.tau) == (None, "unresolved", None)


def test_widths_are_ranked_each_and_together() -> None:
    wider, once_wider = (design(backbone=ONE), design("weightnet", backbone=ONE, M=2, G=2))
    # Each width in its published order, and the narrow network above the wide one, as it is not.
    tops = ((PLAIN, 60), (EIGHT, 70), (wider, 50), (once_wider, 55))
    ranking = ranked(*(seeded(point, (top1,) * 4) for point, top1 in tops))
    assert list(ranking.widths) == [HALF, ONE]
    assert [one.tau for one in ranking.widths.values()] == [1, 1]
    assert ranking.overall.tau == pytest.approx((2 - 4) / 6)
    assert [ranking.overall.count(v) for v in ("same", "reversed", "unresolved", "tied")] == [2, 4, 0, 0]
    assert sum(pair.within_width for pair in ranking.overall.pairs) == 2


def test_a_width_of_one_design_has_no_pairs_of_its_own() -> None:
    ranking = ranked(*(seeded(p, (50, 51, 52)) for p in (PLAIN, EIGHT, design(backbone=ONE))))
    assert list(ranking.widths) == [HALF]
    assert len(ranking.overall.pairs) == 3


def test_only_trainings_that_agree_are_compared() -> None:
    records = [
        record
        for keys in ({"lr": 0.1}, {"lr": 0.2}, {"dataset": "shapes"})
        for point, top1 in ((PLAIN, 50), (EIGHT, 60))
        for record in seeded(point, (top1,) * 3, **keys)
    ]
    coarser = design(resolution=16), design("weightnet", M=8, G=1, resolution=16)
    records += [record for point in coarser for record in seeded(point, (40,) * 3)]
    rankings = published_rankings(records)
    assert [len(ranking.designs) for ranking in rankings] == [2, 2, 2, 2]
    assert [ranking.settings["lr"] for ranking in rankings] == [0.1, 0.2, 0.1, 0.1]
    assert [ranking.settings["resolution"] for ranking in rankings] == [32, 32, 32, 16]


def test_designs_that_halving_dropped_are_compared_among_themselves() -> None:
    full, dropped = (90.0, 91.0, 92.0), (90.0,)
    tops = ((PLAIN, full), (EIGHT, full), (SE, dropped), (SK, dropped), (TWO, dropped))
    records = [
        trained(point, top1, dropped_at=None if top1 is full else 1, seed=seed, **HALVING)
        for point, top1 in tops
        for seed in range(3)
    ]
    found = {ranking.settings["epochs"]: len(ranking.designs) for ranking in published_rankings(records)}
    assert found == {9: 2, 1: 3}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no training of this run has a top-1"),
        ([failure("training", PLAIN), failure("training", EIGHT)], "no training of this run has a top-1"),
        ([training(design("cbam")), training(DesignPoint.of("resnet18"))], "none of the designs"),
        ([training(PLAIN), training(design("cbam"))], "only one of the designs"),
        ([training(PLAIN, lr=0.1), training(EIGHT, lr=0.2)], "only one of the designs"),
    ],
)
def test_a_run_without_an_order_says_so(records: list[Record], message: str) -> None:
    with pytest.raises(InputError, match=message):
        published_rankings(records)


def test_of_test_losses_the_smaller_is_better() -> None:
    losses = ((PLAIN, 2.0, 50), (EIGHT, 1.5, 40), (ONCE, 2.5, 60))
    records = [
        replace(record, value={**record.value, "test_loss": loss + seed / 10})
        for point, loss, top1 in losses
        for seed, record in enumerate(seeded(point, (top1,) * 4))
    ]
    (ranking,) = published_rankings(records, "test_loss")
    assert verdicts(ranking) == {(PLAIN, ONCE): "reversed", (PLAIN, EIGHT): "same", (ONCE, EIGHT): "same"}
    assert ranking.overall.pairs[-1].difference == pytest.approx(-1.0)
    assert ranking.overall.tau == pytest.approx(1 / 3)
    assert ranking.designs[0].value == pytest.approx(2.15)
    # By top-1 the order of each pair is another.
    assert set(verdicts(ranked(records)).values()) == {"reversed", "same"}
    assert ranked(records).overall.tau == pytest.approx(-1 / 3)


def test_only_figures_of_trainings_order_designs() -> None:
    with pytest.raises(InputError, match="no training of this run has a test loss"):
        published_rankings([*seeded(PLAIN, (1, 2)), *seeded(EIGHT, (3, 4))], "test_loss")
    with pytest.raises(InputError, match=r"'top_1'.*'top1'"):
        published_rankings([], "top_1")


def test_intervals_end_where_accuracies_do() -> None:
    ranking = ranked(seeded(PLAIN, (99.9, 100, 99.9)), seeded(EIGHT, (0, 0.2, 0)))
    bounds = [design.interval or (0, 0) for design in ranking.designs]
    assert (bounds[0][1], bounds[1][0]) == (100, 0)


def test_designs_without_a_published_accuracy_are_left_out() -> None:
    other = design("cbam")
    ranking = ranked(*(seeded(p, (50, 51, 52)) for p in (PLAIN, other, EIGHT)))
    assert ranking.unpublished == (other,)
    assert [design.point for design in ranking.designs] == [PLAIN, EIGHT]


_few = st.integers(1, 5)


@settings(deadline=None)
@given(st.lists(st.tuples(_few, _few), min_size=2, max_size=12))
def test_tau_of_an_order_is_scipys_where_ties_are_exact(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array([pair[index] for pair in pairs], dtype=float) for index in (0, 1))
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    order = np.sign(a[None] - a[:, None])
    expected = kendalltau(a, b, variant="b").statistic
    assert tau_b_with(order, b) == pytest.approx(expected)
    assert tau_b_with(order, np.stack([b, -b])).tolist() == pytest.approx([expected, -expected])


def test_tau_of_values_that_are_all_tied_is_0() -> None:
    order = np.array([[0, 1], [-1, 0]])
    assert tau_b_with(order, np.ones(2)) == 0
    assert tau_b_with(0 * order, np.arange(2.0)) == 0


def test_the_interval_of_tau_is_over_seeds() -> None:
    certain = ranked(seeded(PLAIN, (50, 51, 52, 53)), seeded(EIGHT, (60, 61, 62, 63)))
    assert certain.overall.tau_interval == (1, 1)
    unsure = ranked(seeded(PLAIN, (50, 51, 52, 53)), seeded(EIGHT, (60, 41, 62, 63)))
    assert unsure.overall.tau_interval == (-1, 1)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-50, 50).map(lambda x: round(x, 2)), min_size=3, max_size=9))
def test_the_interval_of_one_mean_is_the_paired_one(values: list[float]) -> None:
    found = resampled_interval([[value] for value in values], lambda means: means[..., 0])
    assert found == pytest.approx(paired_interval(values))


def test_a_run_with_a_target_has_intervals_that_hold_after_every_seed() -> None:
    limits = {"seed_target": 1.0, "first_seeds": 3, "max_seeds": 30}
    better = [64.0 + seed % 3 for seed in range(9)]
    records = [*seeded(PLAIN, [60.0] * 9), *seeded(ONCE, better)]
    added = [replace(record, value={**record.value, **limits}) for record in records]
    (fixed,), (looked,) = ranked(records).overall.pairs, ranked(added).overall.pairs
    assert fixed.interval == paired_interval(fixed.differences)
    assert looked.interval == paired_sequence(looked.differences, step=1.0)
    # Seven seeds don't tell such a sequence anything.
    few = [record for record in added if record.protocol["seed"] < 7]
    assert [pair.verdict for pair in ranked(few).overall.pairs] == ["unresolved"]
