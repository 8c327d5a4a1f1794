"""Backbones by name: published widths exact, any other between them."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.design.backbones import (
    BACKBONES,
    FAMILIES,
    MobileNetV2Spec,
    MobileNetV3Spec,
    ShuffleNetV2Spec,
    backbone_spec,
    mobilenet_v2_spec,
    shufflenet_v2_spec,
)
from wnexplore.design.conv_sites import block_convs, stages_of
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


def test_channels_of_a_mobilenet_are_multiples_of_8_and_lose_no_tenth() -> None:
    wide = backbone_spec("mobilenet_v2_x1_4")
    assert isinstance(wide, MobileNetV2Spec)
    # The widths of the paper's network times 1.4: 44.8, 22.4, 33.6, 44.8, 89.6, 134.4, 224, 448, 1792.
    assert (wide.stem_width, wide.last_width) == (48, 1792)
    assert list(dict.fromkeys(block.out_channels for block in wide.blocks)) == [24, 32, 48, 88, 136, 224, 448]
    # 12 becomes 16, and the channels before the classifier never fewer than 1280.
    narrow = mobilenet_v2_spec(Fraction(3, 8))
    assert (narrow.stem_width, narrow.last_width) == (16, 1280)
    small = backbone_spec("mobilenet_v3_small_x0_5")
    assert isinstance(small, MobileNetV3Spec)
    assert (small.stem_width, small.last_width, small.hidden_width) == (8, 288, 512)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(300, 4000))
def test_a_width_has_one_name(family: str, thousandths: int) -> None:
    full, rest = divmod(thousandths, 1000)
    digits = f"{rest:03}".rstrip("0") or "0"
    full_name = family if thousandths == 1000 and family in BACKBONES else f"{family}_x{full}_{digits}"
    assert backbone_spec(full_name) == FAMILIES[family](Fraction(thousandths, 1000))
    for other in {family, f"{family}_x{full}_{digits}", f"{family}_x{full}_{digits}0"} - {
        full_name,
        *BACKBONES,
    }:
        with pytest.raises(InputError, match=f"'{other}'"):
            backbone_spec(other)


@pytest.mark.parametrize("name", [*BACKBONES, "mobilenet_v2_x0_35", "mobilenet_v3_small_x0_1"])
def test_every_stage_has_layers(name: str) -> None:
    assert stages_of(name) == tuple(dict.fromkeys(layer.stage for layer in block_convs(name)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shufflenet_v2_x1_50", "'shufflenet_v2_x1_5'"),
        ("shufflenet_v2_x0_2", r"0\.2 .*0\.3 to 8"),
        ("shufflenet_v2_x9_0", r"\b0\.3 to 8\b"),
        ("shufflenet_v2_x01_5", "'shufflenet_v2_x01_5'"),
        ("resnet18_x0_5", "'resnet18'"),
        ("mobilenet_v2_x1_0", "'mobilenet_v2'"),
        ("mobilenet_v3_small_x1_0", "'mobilenet_v3_small'"),
        ("mobilenet_v3_smal", "'mobilenet_v3_small'"),
        ("mobilenet_v2_x0_09", r"0\.09 .*0\.1 to 4"),
        ("mobilenet_v3_small_x4_1", r"\b0\.1 to 4\b"),
    ],
)
def test_a_name_that_is_none_is_reported(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        backbone_spec(name)
