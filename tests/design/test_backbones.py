"""Backbones by name: published widths exact, any other between them."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.design.backbones import ShuffleNetV2Spec, backbone_spec, shufflenet_v2_spec
from wnexplore.design.legality import check_legal
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError

_widths = st.fractions(min_value=Fraction(3, 10), max_value=8)


@pytest.mark.parametrize(("name", "first"), [("x0_5", 48), ("x1_0", 112), ("x1_5", 176), ("x2_0", 248)])
def test_published_widths(name: str, first: int) -> None:
    assert backbone_spec(f"shufflenet_v2_{name}") == ShuffleNetV2Spec((first, 2 * first, 4 * first))


@given(st.lists(_widths, min_size=2, unique=True))
def test_a_wider_network_is_never_narrower(multipliers: list[Fraction]) -> None:
    firsts = [shufflenet_v2_spec(multiplier).widths[0] for multiplier in sorted(multipliers)]
    assert all(a <= b for a, b in pairwise(firsts))
    # Wider than the 24 channels that the first block keeps.
    assert all(first % 8 == 0 and first >= 32 for first in firsts)


def test_any_width_by_name() -> None:
    # Half-way from 112 to 176.
    assert backbone_spec("shufflenet_v2_x1_25") == ShuffleNetV2Spec((144, 288, 576))
    check_legal(DesignPoint.of("shufflenet_v2_x0_75", "weightnet", 2, 2))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shufflenet_v2_x1_50", "did you mean 'shufflenet_v2_x1_5'"),
        ("shufflenet_v2_x0_2", "at 0.2 times the width: expected 0.3 to 8"),
        ("shufflenet_v2_x9_0", "expected 0.3 to 8"),
        ("shufflenet_v2_x01_5", "unknown backbone"),
    ],
)
def test_a_name_that_is_none_is_told(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        backbone_spec(name)
