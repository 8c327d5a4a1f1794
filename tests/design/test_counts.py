"""Closed-form counts against networks that are built and traced by fvcore."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wnexplore
from wnexplore.design.backbones import BACKBONES, STEMS
from wnexplore.design.counts import Counts, count, parts, total
from wnexplore.design.layers import stages_of
from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.methods import ACTIVATIONS, DEPTHWISE, METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.design.stage_design import stage_design
from wnexplore.design.walk import Block, Site, Walk
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models.walk import walk

MULTIPLIERS = [1, 2, 4, 6, 8, "1/2", "1/8", "1/C", "4/C"]


@st.composite
def points(draw: st.DrawFn) -> DesignPoint:
    """Any legal point of the space, for small images."""
    method = draw(st.sampled_from(list(METHODS)))
    backbone = draw(st.sampled_from([*BACKBONES, "shufflenet_v2_x0_75", "mobilenet_v2_x0_35"]))
    stages = draw(st.none() | st.lists(st.sampled_from(stages_of(backbone)), min_size=1))
    one = st.sampled_from(MULTIPLIERS)
    each = st.fixed_dictionaries(dict.fromkeys(stages or stages_of(backbone), one))
    axes: dict[str, st.SearchStrategy[Any]] = {
        "stages": st.just(stages),
        "M": one | each,
        "G": one | each,
        "experts": st.integers(1, 9),
        "temperature": st.integers(1, 30),
        "reduction": st.integers(1, 40),
        "activation": st.sampled_from(ACTIVATIONS),
        "depthwise": st.sampled_from(DEPTHWISE),
    }
    for _ in range(20):
        # Most pairs drawn for every stage are illegal in one: a few tries leave more of the others.
        point = DesignPoint.of(
            backbone,
            method,
            stem=draw(st.sampled_from(list(STEMS))),
            resolution=draw(st.integers(32, 72)),
            num_classes=draw(st.integers(1, 1000)),
            **{axis: draw(axes[axis]) for axis in METHODS[method]},
        )
        try:
            check_legal(point)
        except IllegalPointError:
            continue
        return point
    return point.baseline()


@cache
def _walk(baseline: DesignPoint) -> Walk:
    return walk(baseline)


def _equals_what_building_and_tracing_gives(point: DesignPoint) -> None:
    counted = count(point, _walk(point.baseline()))
    traced = measure_complexity(wnexplore.build(point), point.resolution)
    assert (counted.params, counted.flops) == (traced.params, traced.flops)


@given(points())
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_counts_equal_those_of_the_network_built_and_traced(point: DesignPoint) -> None:
    _equals_what_building_and_tracing_gives(point)


@pytest.mark.slow
@given(points())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_counts_equal_those_of_many_networks_built_and_traced(point: DesignPoint) -> None:
    _equals_what_building_and_tracing_gives(point)


def test_one_block_by_hand() -> None:
    block = Block(
        "stage2.0", 2, 24, 12, 49, (Site("a", 24, 12, (1, 1), 1, 49), Site("b", 12, 12, (3, 3), 12, 49))
    )

    def counted(point: DesignPoint) -> Counts:
        return total(list(parts(block, stage_design(point, 2))))

    plain = counted(DesignPoint.of("shufflenet_v2_x0_5"))
    assert (plain.params, plain.flops) == (24 * 12 + 12 * 9, 49 * (24 * 12 + 12 * 9))
    made = counted(DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 4, 2))
    # A context of 16 features; fc1 to 4·12 and, depthwise, 2·12 inputs; lambda = 2.
    context, fc1 = 24 * 16, 16 * (48 + 24)
    generators = 2 * (24 * 12 + 12 * 9)
    assert made.params == context + 16 + fc1 + 48 + 24 + generators
    assert made.flops == context + fc1 + generators + 49 * (24 * 12 + 12 * 9)


def test_a_walk_is_what_it_was_after_a_trip_through_json() -> None:
    found = _walk(DesignPoint.of("resnet18", stem="small", num_classes=10))
    assert Walk.from_dict(found.to_dict()) == found
    assert found.stages == (1, 2, 3, 4)


def test_a_point_that_can_not_be_had_is_not_counted() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 1, 2)
    with pytest.raises(IllegalPointError):
        count(point, _walk(point.baseline()))
