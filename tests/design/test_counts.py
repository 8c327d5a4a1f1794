"""Closed-form counts against networks that are built and run, on meta tensors."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch

import wnexplore
from tests.built import counts_of
from tests.examples import rest_slow
from wnexplore.design.axes import ACTIVATIONS, DEPTHWISE, STEMS
from wnexplore.design.backbones import BACKBONES
from wnexplore.design.conv_sites import stages_of
from wnexplore.design.counts import Counts, count, parts, total
from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.design.skeleton import Block, Site, Skeleton
from wnexplore.models.trace_skeleton import skeleton

MULTIPLIERS = [1, 2, 4, 6, 8, "1/2", "1/8", "1/C", "4/C"]


NETWORKS = [*BACKBONES, "shufflenet_v2_x0_75", "mobilenet_v2_x0_35"]


def _random_point(dice: random.Random, backbone: str, method: str) -> DesignPoint:
    """Any legal point of the backbone and the method, for small images and of at most 60 M parameters."""
    stem, resolution, classes = dice.choice(list(STEMS)), dice.randint(32, 72), dice.randint(1, 1000)
    every = stages_of(backbone)
    for _ in range(1000):
        stages = dice.choice([None, dice.sample(every, dice.randint(1, len(every)))])
        numbers = {stage: (dice.choice(MULTIPLIERS), dice.choice(MULTIPLIERS)) for stage in stages or every}
        M, G = dice.choice(list(numbers.values()))
        axes: dict[str, Any] = {
            "stages": stages,
            "M": dice.choice([M, {stage: pair[0] for stage, pair in numbers.items()}]),
            "G": dice.choice([G, {stage: pair[1] for stage, pair in numbers.items()}]),
            "experts": dice.randint(1, 9),
            "temperature": dice.randint(1, 30),
            "reduction": dice.randint(1, 40),
            "activation": dice.choice(ACTIVATIONS),
            "depthwise": dice.choice(DEPTHWISE),
        }
        chosen = {axis: axes[axis] for axis in METHODS[method].axes}
        point = DesignPoint.of(
            backbone, method, stem=stem, resolution=resolution, num_classes=classes, **chosen
        )
        try:
            check_legal(point)
        except IllegalPointError:
            continue
        if count(point, _walk(point.baseline())).params <= 60_000_000:
            return point
    raise AssertionError(f"no such point of {backbone} and {method} in 1000")


@cache
def _walk(baseline: DesignPoint) -> Skeleton:
    return skeleton(baseline)


def _equals_what_building_and_running_gives(point: DesignPoint) -> None:
    counted = count(point, _walk(point.baseline()))
    with torch.device("meta"):
        model = wnexplore.build(point)
    assert counted == counts_of(model, point.resolution)


@pytest.mark.parametrize("method", rest_slow(METHODS, "sk", "odconv", "weightnet"))
def test_counts_equal_those_of_the_network_built_and_run(method: str) -> None:
    _equals_what_building_and_running_gives(
        _random_point(random.Random(method), "mobilenet_v3_small", method)
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", NETWORKS)
def test_counts_equal_those_of_many_networks_built_and_run(backbone: str, method: str) -> None:
    """More than 200 points in all; those with M and G have the more axes."""
    dice = random.Random(f"{backbone} {method}")
    for _ in range(4 if method == "weightnet" else 2):
        _equals_what_building_and_running_gives(_random_point(dice, backbone, method))


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


def test_a_skeleton_is_what_it_was_after_a_trip_through_json() -> None:
    found = _walk(DesignPoint.of("resnet18", stem="small", num_classes=10))
    assert Skeleton.from_dict(found.to_dict()) == found
    assert found.stages == (1, 2, 3, 4)


def test_a_point_that_can_not_be_had_is_not_counted() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 1, 2)
    with pytest.raises(IllegalPointError):
        count(point, _walk(point.baseline()))
