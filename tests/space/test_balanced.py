"""Networks for a calibration: legal, distinct, and each stage's settings in equally many."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from wnexplore.design.legality import check_legal
from wnexplore.design.point import stage_design
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.results.filters import condition
from wnexplore.space.balanced import balance, balanced
from wnexplore.space.expansion import space_of
from wnexplore.space.selection import open_points

SMALL = {"stem": ["small"], "resolution": [8], "num_classes": [10], "latency": False}


def chosen(count: int, seed: int = 0, where: str | None = None, **axes: Any) -> dict[str, list[Any]]:
    """Backbone -> the points chosen of a space."""
    space = space_of(SweepSpec.model_validate({**SMALL, **axes}))
    points = open_points(space, None if where is None else condition(where))
    found = balanced(space, points, count, seed)
    assert all(set(indices.tolist()) <= set(points.tolist()) for indices in found.values())
    return {plain.backbone: [space.point(i) for i in at.tolist()] for plain, at in found.items()}


PER_STAGE: dict[str, Any] = {
    "methods": ["plain", "weightnet"],
    "M": [1, 2, 4, 8],
    "G": [1, 2],
    "per_stage": True,
}


@pytest.mark.parametrize("count", [28, 30, 49])
def test_each_setting_of_a_stage_is_in_as_many_networks_as_any_other(count: int) -> None:
    (points,) = chosen(count, **PER_STAGE).values()
    assert len(set(points)) == count
    for stage in (2, 3, 4):
        often = Counter(str(stage_design(point, stage)) for point in points)
        assert len(often) == 7
        assert max(often.values()) - min(often.values()) <= 1
    for point in points:
        check_legal(point)
    found = balance(points)
    assert (found.networks, found.settings) == (count, 21)
    # Of 21 terms all sums over three stages are determined once 21 - 2 of them are.
    assert found.rank == 19
    assert found.fewest >= count // 7


def test_the_same_seed_chooses_the_same_and_another_one_others() -> None:
    first, again, other = (chosen(24, seed, **PER_STAGE) for seed in (0, 0, 1))
    assert first == again != other


def test_conditions_backbones_and_methods_are_kept_to() -> None:
    axes = {
        **PER_STAGE,
        "backbones": ["shufflenet_v2_x0_5", "resnet18"],
        "methods": ["plain", "se", "weightnet"],
    }
    found = chosen(24, where="params < 1.2M or backbone == resnet18", **axes)
    assert {backbone: len(points) for backbone, points in found.items()} == {
        "shufflenet_v2_x0_5": 24,
        "resnet18": 24,
    }
    for points in found.values():
        assert Counter(point.method for point in points)["se"] == 1
        assert "plain" not in {point.method for point in points}


def test_settings_that_all_stages_share_are_each_taken_once() -> None:
    axes: dict[str, Any] = {
        "methods": ["weightnet"],
        "M": [1, 2, 4, 8, 16],
        "G": [1],
        "reduction": [16, 4, 2, 1],
    }
    (points,) = chosen(12, **axes).values()
    assert len(set(points)) == 12
    assert len({point.reduction for point in points}) >= 3
    (every,) = chosen(100, **axes).values()
    space = space_of(SweepSpec.model_validate({**SMALL, **axes}))
    assert len(every) == int(np.sum(space.legal & ~space.repeated))
