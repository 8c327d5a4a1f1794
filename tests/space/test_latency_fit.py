"""The fit of latencies against made-up truths: what it foretells, and what its intervals cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wnexplore.design.legality import IllegalPointError
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.space.latency_fit import MIN_NETWORKS, Timed, fit
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.space.stage_features import FEATURES, StageFeatures, plain_features, stage_features

FEW = ("1", "2", "4", "8"), ("1", "2")
MANY = ("1/8", "1/4", "1/2", "1", "2", "4", "8", "16"), ("1/8", "1/4", "1/2", "1", "2", "4", "8")


def designs(Ms: Sequence[str], Gs: Sequence[str]) -> list[list[StageFeatures]]:
    """The legal ones of each stage of ShuffleNetV2 1.0x, each function once."""
    skeleton = skeleton_of(DesignPoint.of("shufflenet_v2_x1_0"))
    found = []
    for stage in skeleton.stages:
        of_stage: dict[object, StageFeatures] = {}
        for M, G in ((M, G) for M in Ms for G in Gs):
            try:
                point = DesignPoint.of("shufflenet_v2_x1_0", "weightnet", M, G)
                design = stage_design(point, stage)
                features = stage_features(skeleton, stage, design)
            except IllegalPointError:
                continue
            of_stage.setdefault(features.function, features)
        found.append(list(of_stage.values()))
    return found


class Machine:
    """A made-up one: stages add up but for a mild interaction, and each design has its own deviation."""

    def __init__(self, choices: list[list[StageFeatures]], seed: int, interaction: float) -> None:
        self.choices = choices
        self.dice = np.random.default_rng(seed)
        self._interaction = interaction
        self._terms = {}
        for of_stage in choices:
            overhead, memory, work = self.dice.uniform((0.01, 0, 0), (0.08, 0.04, 0.15))
            for design in of_stage:
                # As with formulations: whichever way is the cheaper.
                cost = min(overhead + work * design.costs[4], 1.6 * overhead + memory * design.costs[0])
                self._terms[design] = cost * np.exp(self.dice.normal(0, 0.15)) + 0.01 * self.dice.normal()

    def networks(self, count: int) -> list[list[StageFeatures]]:
        """Random ones: each stage's designs in as many as those of every other."""
        orders = []
        for of_stage in self.choices:
            shuffled = [self.dice.permutation(len(of_stage)) for _ in range(count // len(of_stage) + 1)]
            orders.append(self.dice.permutation(np.concatenate(shuffled)[:count]))
        return [
            [of_stage[order[at]] for of_stage, order in zip(self.choices, orders, strict=True)]
            for at in range(count)
        ]

    def timed(self, networks: Sequence[Sequence[StageFeatures]], group: int, shared: float) -> list[Timed]:
        """Networks in groups, each of which shares an error with this relative deviation."""
        found = []
        for at, network in enumerate(networks):
            if at % group == 0:
                shift = 1 + shared * self.dice.normal()
            one = self.measured(network)
            found.append(replace(one, ratio=one.ratio * shift, group=at // group))
        return found

    def measured(self, network: Sequence[StageFeatures]) -> Timed:
        terms = [float(self._terms[design]) for design in network]
        ratio = 1 + sum(terms) + self._interaction * terms[0] * sum(terms[1:]) / 0.05
        error = self.dice.uniform(0.005, 0.015)
        return Timed(network, ratio * (1 + error * self.dice.normal()), ratio * error)


def covered(
    machine: Machine, count: int, group: int = 1, shared: float = 0.0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of 40 networks that were not measured: within the interval, error and half width over the ratio, and
    which have a design that was not measured."""
    found = fit(machine.timed(machine.networks(count), group, shared))
    new = machine.networks(40)
    terms = [found.term(stage[0].stage, stage, anywhere=True) for stage in zip(*new, strict=True)]
    ratio, deviation, unseen = found.ratios(terms, per_stage=False)
    off = np.abs([one.ratio for one in machine.timed(new, group, shared)] - ratio)
    half = found.half_width(ratio, deviation)
    return off <= half, off / ratio, half / ratio, unseen


@pytest.mark.parametrize(
    ("choices", "count", "runs", "error", "width", "group", "shared"),
    [
        (FEW, 24, 8, 0.02, 0.08, 1, 0.0),
        pytest.param(FEW, MIN_NETWORKS, 20, 0.025, 0.1, 1, 0.0, marks=pytest.mark.slow),
        pytest.param(FEW, 60, 12, 0.015, 0.05, 1, 0.0, marks=pytest.mark.slow),
        pytest.param(MANY, 60, 12, 0.03, 0.1, 1, 0.0, marks=pytest.mark.slow),
        # What befalls the plain network of a group befalls all of its ratios.
        pytest.param(FEW, 60, 20, 0.025, 0.08, 6, 0.02, marks=pytest.mark.slow),
        # All in one group: what another run shares is in none of its residuals.
        pytest.param(FEW, 60, 20, 0.025, 0.08, 60, 0.015, marks=pytest.mark.slow),
    ],
)
def test_intervals_cover_networks_that_were_not_measured(
    choices: tuple[Sequence[str], Sequence[str]],
    count: int,
    runs: int,
    error: float,
    width: float,
    group: int,
    shared: float,
) -> None:
    results = [covered(Machine(designs(*choices), seed, 0.1), count, group, shared) for seed in range(runs)]
    within, off, half, _ = (np.concatenate(parts) for parts in zip(*results, strict=True))
    # Of 320 or more, in groups that share a fit.
    assert within.mean() >= 0.92
    assert np.median(off) < error
    assert np.median(half) < width


@pytest.mark.slow
def test_intervals_cover_designs_that_no_measured_network_has() -> None:
    results = [covered(Machine(designs(*MANY), seed, 0.1), 24) for seed in range(16)]
    within, _, _, unseen = (np.concatenate(parts) for parts in zip(*results, strict=True))
    assert 150 < unseen.sum() < len(unseen)
    assert within[unseen].mean() >= 0.92
    # Where less is known the interval is wider.
    wider = [np.median(half[new]) / np.median(half[~new]) for _, _, half, new in results if new.any()]
    assert np.median(wider) > 1.02


def test_terms_that_add_up_without_noise_are_found() -> None:
    machine = Machine(designs(*FEW), 0, 0.0)
    exact = [
        replace(machine.measured(network), ratio=1 + sum(machine._terms[d] for d in network), error=1e-4)
        for network in machine.networks(40)
    ]
    found = fit(exact)
    new = machine.networks(20)
    terms = [found.term(stage[0].stage, stage) for stage in zip(*new, strict=True)]
    ratio, deviation, _ = found.ratios(terms, per_stage=False)
    true = [1 + sum(machine._terms[design] for design in network) for network in new]
    np.testing.assert_allclose(ratio, true, rtol=0.003)
    assert found.quantile * np.median(deviation) < 0.01
    # All ways to choose one design a stage, the last stage's changing fastest.
    tables = [found.term(of_stage[0].stage, of_stage) for of_stage in machine.choices]
    every, spread, _ = found.ratios(tables, per_stage=True)
    at = [[of.index(d) for of, d in zip(machine.choices, network, strict=True)] for network in new]
    index = np.ravel_multi_index(np.array(at).T, [len(of) for of in machine.choices])
    np.testing.assert_allclose(every[index], ratio, rtol=1e-9)
    np.testing.assert_allclose(spread[index], deviation, rtol=1e-6)


def test_the_plain_network_is_exact_and_what_lies_beyond_is_not_foretold() -> None:
    machine = Machine(designs(*FEW), 0, 0.0)
    found = fit([machine.measured(network) for network in machine.networks(24)])
    plain = [found.term(stage, [plain_features(stage)]) for stage in (2, 3, 4)]
    assert [values.tolist() for values in found.ratios(plain, per_stage=False)] == [[1.0], [0.0], [False]]
    largest = max(machine.choices[0], key=lambda design: design.costs[0])
    larger = replace(largest, function="larger", costs=tuple(2 * cost for cost in largest.costs))
    other = replace(largest, function="other", method="se", costs=(0.0,) * len(FEATURES))
    ratio, _, unseen = found.ratios([found.term(2, [largest, larger, other])], per_stage=False)
    assert np.isnan(ratio).tolist() == [False, True, True]
    assert unseen.tolist() == [False, True, True]


def test_fewer_networks_than_an_interval_needs_are_refused() -> None:
    machine = Machine(designs(*FEW), 0, 0.0)
    with pytest.raises(ValueError, match=str(MIN_NETWORKS)):
        fit([machine.measured(network) for network in machine.networks(MIN_NETWORKS - 1)])
