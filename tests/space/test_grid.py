"""A whole space in arrays against its points one by one."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.examples import examples
from wnexplore.design.axes import ACTIVATIONS, DEPTHWISE
from wnexplore.design.counts import count
from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.methods import METHODS
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.results import filters
from wnexplore.space.expansion import FIELDS, expand, frame_of, space_of, to_csv
from wnexplore.space.grid import Space
from wnexplore.space.selection import front, open_points, sample, truth
from wnexplore.space.skeleton_cache import skeleton_of

MULTIPLIERS = (1, 2, 3, 4, 8, "1/2", "1/8", "4/C", "1/C")
SMALL = {"stem": ["small"], "resolution": [8], "num_classes": [10]}


def some(values: Any, at_most: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=at_most, unique=True)


@st.composite
def specs(draw: st.DrawFn) -> SweepSpec:
    """A sweep of one or two backbones over any of the axes."""
    return SweepSpec.model_validate(
        {
            **SMALL,
            "backbones": draw(some(["shufflenet_v2_x0_5", "resnet18", "mobilenet_v3_small"], 2)),
            "methods": draw(some(list(METHODS))),
            "M": draw(some(MULTIPLIERS)),
            "G": draw(some(MULTIPLIERS)),
            "per_stage": draw(st.booleans()),
            "stages": draw(some([None, "2+3", "3"], 2)),
            "experts": draw(some([1, 4], 2)),
            "reduction": draw(some([1, 4, 16, 32], 2)),
            "activation": draw(some(ACTIVATIONS, 2)),
            "depthwise": draw(some(DEPTHWISE, 2)),
            "latency": False,
        }
    )


@given(specs(), st.data())
@examples(30, suppress_health_check=[HealthCheck.too_slow])
def test_every_entry_is_what_its_point_counts_to(spec: SweepSpec, data: st.DataObject) -> None:
    space = space_of(spec)
    for index in data.draw(st.lists(st.integers(0, len(space) - 1), min_size=1, max_size=12)):
        point = space.point(index)
        if not space.legal[index]:
            with pytest.raises(IllegalPointError) as caught:
                check_legal(point)
            assert space.reason(index) == str(caught.value)
            continue
        check_legal(point)
        assert (space.params[index], space.flops[index]) == count(point, skeleton_of(point))


@given(specs())
@examples(15, suppress_health_check=[HealthCheck.too_slow])
def test_illegal_points_are_counted_by_rule_without_looking_at_each(spec: SweepSpec) -> None:
    space = space_of(spec)
    illegal = space.illegal()
    assert sum(rule.points for rule in illegal) == int((~space.legal).sum())
    for rule in illegal:
        with pytest.raises(IllegalPointError) as caught:
            check_legal(rule.example)
        assert (caught.value.rule, str(caught.value)) == (rule.rule, rule.reason)


def _space(**axes: Any) -> Space:
    return space_of(SweepSpec.model_validate({**SMALL, "latency": False, **axes}))


def test_points_that_are_one_function_are_those_whose_networks_read_the_same() -> None:
    space = _space(
        methods=["plain", "se", "weightnet", "condconv"],
        M=[1, 2, "1/2", {2: 1, 3: 2, 4: 2}],
        G=[1, 2],
        reduction=[16, 32],
        depthwise=["published", "full", "plain"],
    )
    # A network says all that its layers are made with; its own sizes come before, in the plain network.
    first: dict[str, int] = {}
    for index in np.flatnonzero(space.legal).tolist():
        assert space.first_like[index] == first.setdefault(repr(build(space.point(index))), index)
    assert len(first) < int(space.legal.sum())
    assert (space.first_like[~space.legal] == -1).all()


def test_a_detectors_pyramid_and_head_are_stages_where_they_are_named() -> None:
    space = _space(
        methods=["weightnet"],
        stem=["imagenet"],
        task=["detection"],
        resolution=[128],
        num_classes=[2],
        pyramid_channels=[8],
        M=[1, 2],
        G=[1],
        stages=[None, "4+head", "all+pyramid"],
        per_stage=True,
    )
    assert len(space) == 2**3 + 2**2 + 2**4
    points = [space.point(index) for index in range(len(space))]
    assert len(set(map(str, points))) == len(space)
    for index, point in enumerate(points):
        assert (space.params[index], space.flops[index]) == count(point, skeleton_of(point))
    assert "M=4:1+head:2 G=1 stages=4+head" in str(points[9])


def test_each_stage_is_crossed_independently() -> None:
    space = _space(methods=["weightnet"], M=[1, 2], G=[1], per_stage=True)
    assert [str(space.point(index)) for index in range(len(space))] == [
        "shufflenet_v2_x0_5 weightnet M=1 G=1",
        *(
            f"shufflenet_v2_x0_5 weightnet M=2:{a}+3:{b}+4:{c} G=1"
            for a, b, c in [(1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 1, 1), (2, 1, 2), (2, 2, 1)]
        ),
        "shufflenet_v2_x0_5 weightnet M=2 G=1",
    ]


CONDITIONS = (
    "params < 400k and flops < 1.3M",
    "params <= 2500000.5 and M <= 2",
    "not (M < 2) or G == 1",
    "method in [weightnet, se] and reduction != 16",
    "M == G",
    "1 < M <= 4 and activation == sigmoid",
    "M == '4/C' or stages == '3'",
    "latency_ratio < 1.2",
    "top1 > 90 or params > 300k",
    "params > flops or num_classes == 10",
)


@given(specs(), st.sampled_from(CONDITIONS))
@examples(30, suppress_health_check=[HealthCheck.too_slow])
def test_a_condition_keeps_what_it_keeps_of_the_rows_of_a_table(spec: SweepSpec, text: str) -> None:
    space = space_of(spec)
    legal = np.flatnonzero(space.legal)[:60]
    condition = filters.condition(text)
    rows = filters.truth(frame_of(space, legal), condition)
    found = truth(space, condition)
    assert found.holds[legal].tolist() == rows.holds.tolist()
    assert found.fails[legal].tolist() == rows.fails.tolist()


def test_open_points_are_legal_single_and_not_excluded() -> None:
    space = _space(methods=["plain", "weightnet"], M=[1, 2], G=[1, 2], reduction=[16, 32])
    kept = open_points(space, filters.condition("M <= 1 and latency_ratio < 2"))
    # Of the plain network M is not known to fail.
    assert [str(space.point(index)) for index in kept] == [
        "shufflenet_v2_x0_5 plain",
        "shufflenet_v2_x0_5 weightnet M=1 G=1",
    ]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
    st.sampled_from([("params", "flops"), ("flops", "params"), ("params",)]),
)
def test_the_front_is_what_comparing_all_pairs_leaves(
    costs: list[tuple[int, int]], objectives: tuple[str, ...]
) -> None:
    class Fake:
        params = np.array([a for a, _ in costs])
        flops = np.array([b for _, b in costs])

    chosen = [[getattr(Fake, name)[i] for name in objectives] for i in range(len(costs))]

    def dominates(a: list[int], b: list[int]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    best = [i for i, row in enumerate(chosen) if not any(dominates(other, row) for other in chosen)]
    found = front(Fake, np.arange(len(costs)), objectives)  # type: ignore[arg-type]
    assert found.tolist() == best


def test_a_sample_is_part_of_the_points_and_follows_its_seed() -> None:
    points = np.arange(10, 1010)
    first, again, other = sample(points, 50, 0), sample(points, 50, 0), sample(points, 50, 1)
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == 50
    assert set(first.tolist()) <= set(points.tolist())
    assert sample(points, 5000, 0).tolist() == points.tolist()


def test_csv_has_every_axis_and_reports_doubles() -> None:
    space = _space(methods=["weightnet"], M=["4/C", 2], G=["1/C", 2], reduction=[16, 32])
    lines = to_csv(space, np.flatnonzero(space.legal)).splitlines()
    assert lines[0] == ",".join(FIELDS)
    rows = [dict(zip(FIELDS, line.split(","), strict=True)) for line in lines[1:]]
    assert [(row["M"], row["G"], row["reduction"], row["same_as"]) for row in rows] == [
        ("4/C", "1/C", "16", ""),
        ("2", "1/C", "16", ""),
        ("2", "2", "16", ""),
        ("4/C", "1/C", "32", rows[0]["number"]),
        ("2", "1/C", "32", rows[1]["number"]),
        ("2", "2", "32", rows[2]["number"]),
    ]
    assert rows[2]["params"] == str(
        count(space.point(int(rows[2]["number"])), skeleton_of(space.point(0))).params
    )


def test_a_sweep_measures_each_function_once_and_says_what_it_leaves_out() -> None:
    spec = SweepSpec.model_validate(
        {**SMALL, "methods": ["weightnet"], "M": [1, 2], "G": [1, 2], "reduction": [16, 32], "where": "M < 2"}
    )
    found = expand(spec)
    assert [str(point) for point in found.points] == ["shufflenet_v2_x0_5 weightnet M=1 G=1"]
    assert found.excluded == 2
    assert found.illegal == len(found.skipped) == 2
    assert [str(first) for _, first in found.repeated] == [
        "shufflenet_v2_x0_5 weightnet M=1 G=1",
        "shufflenet_v2_x0_5 weightnet M=2 G=1",
        "shufflenet_v2_x0_5 weightnet M=2 G=2",
    ]


def test_a_space_too_large_to_list_can_still_be_sized() -> None:
    space = _space(
        backbones=["resnet18"], methods=["weightnet"], M=list(range(1, 51)), G=[1, 2], per_stage=True
    )
    assert len(space) == 100**4
    # One of 50 M is odd or even for G = 2; all are legal for G = 1.
    assert sum(rule.points for rule in space.illegal()) == 100**4 - 75**4
    with pytest.raises(InputError, match=r"\b100,000,000\b.*\b20,000,000\b"):
        _ = space.params


@pytest.mark.parametrize(
    ("backbone", "choices", "stages"), [("resnet18", 200, 4), ("mobilenet_v2", 400, 7), ("resnet18", 500, 4)]
)
def test_a_space_of_any_size_is_sized_and_not_made(backbone: str, choices: int, stages: int) -> None:
    spec = SweepSpec(
        backbones=(backbone,),
        methods=("weightnet",),
        M=tuple(Fraction(m) for m in range(1, choices + 1)),
        G=(Fraction(1),),
        per_stage=True,
    )
    space = space_of(spec)
    assert space.size == choices**stages > 10**9
    assert space.illegal() == []
    for arrays in ("legal", "first_like", "params", "flops"):
        with pytest.raises(InputError, match=rf"\b{choices**stages:,}\b"):
            getattr(space, arrays)
    with pytest.raises(InputError, match=rf"\b{choices**stages:,}\b"):
        expand(spec)


def test_axes_that_cross_to_too_much_are_refused_before_anything_is_made() -> None:
    many = tuple(range(1, 5001))
    with pytest.raises(InputError, match=r"\b25,000,000,000\b.*\b1,000,000\b"):
        expand(
            SweepSpec(methods=("dynamic",), experts=many, temperature=many, resolution=tuple(range(1, 1001)))
        )


def test_a_layer_that_no_machine_holds_is_refused_before_it_is_made() -> None:
    with pytest.raises(InputError, match=r"\d GB"):
        build("resnet18", "weightnet", 10**6, 1)
    with pytest.raises(InputError, match=r"\d GB"):
        build("resnet50", "condconv", experts=10_000)
