from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore import DesignPoint
from wnexplore.design.generator import generator_shape
from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.multiplier import OverChannels
from wnexplore.design.stage_design import StageDesign

_multipliers = st.fractions(min_value=Fraction(1, 16), max_value=16, max_denominator=16)


@given(_multipliers, _multipliers, st.integers(1, 32), st.integers(1, 36))
def test_legal_is_what_the_divisions_say(M: Fraction, G: Fraction, out_channels: int, fan_in: int) -> None:
    """Against the definition in floating-point-free arithmetic, every group laid out one by one."""
    inputs, groups = M * out_channels, G * out_channels
    legal = inputs.denominator == groups.denominator == 1
    legal = legal and int(inputs) % int(groups) == 0 and out_channels * fan_in % int(groups) == 0
    try:
        shape = generator_shape(M, G, out_channels, fan_in)
    except IllegalPointError:
        assert not legal
        return
    assert legal
    assert shape.inputs_per_group == M / G >= 1
    owners = [index // (shape.outputs // shape.groups) for index in range(shape.outputs)]
    assert set(owners) == set(range(shape.groups))


@pytest.mark.parametrize(
    ("M", "G", "fan_in", "message"),
    [
        (1, 2, 8, r"G·C_out = 16\b.*M·C_out = 8\b"),
        (2, 2, 9, r"G·C_out = 16\b.*C_out·F = 8·9 = 72\b"),
        (3, 2, 8, r"M·C_out = 24\b.*M/G = 3/2"),
        ("1/3", 1, 9, r"M·C_out = 1/3·8 = 8/3"),
    ],
)
def test_the_failing_division_is_reported(M: int | str, G: int, fan_in: int, message: str) -> None:
    with pytest.raises(IllegalPointError, match=message):
        generator_shape(Fraction(M), Fraction(G), 8, fan_in)


def test_condconv_is_one_group() -> None:
    shape = generator_shape(Fraction(4, 48), Fraction(1, 48), 48, 27)
    assert (shape.inputs, shape.groups, shape.inputs_per_group) == (4, 1, 4)


@pytest.mark.parametrize(
    ("depthwise", "pair"), [("published", (4, 1)), ("full", (8, 2)), ("plain", None), (None, (8, 2))]
)
def test_a_depthwise_layer_gets_what_its_treatment_says(
    depthwise: str | None, pair: tuple[int, int] | None
) -> None:
    design = StageDesign("weightnet", Fraction(8), Fraction(2), depthwise=depthwise)
    assert design.pair(48, depthwise=True) == pair
    assert design.pair(48, depthwise=False) == (8, 2)


def test_over_channels_is_the_same_number_of_inputs_in_every_layer() -> None:
    design = StageDesign("weightnet", OverChannels(4), OverChannels(1), depthwise="published")
    for channels in (24, 100):
        assert design.pair(channels, depthwise=False) == (Fraction(4, channels), Fraction(1, channels))
        assert design.pair(channels, depthwise=True) == (4, 1)


def test_each_stage_is_held_to_its_own_pair() -> None:
    check_legal(DesignPoint.of("resnet18", "weightnet", {1: 2, 2: 2, 3: 8, 4: 8}, {1: 1, 2: 2, 3: 4, 4: 8}))
    with pytest.raises(IllegalPointError, match=r"layer3\.0\.conv1\b.*G·C_out = 2048\b.*M·C_out = 1024\b"):
        check_legal(DesignPoint.of("resnet18", "weightnet", 4, {1: 1, 2: 2, 3: 8, 4: 8}))


def test_a_network_names_the_layer_that_fails() -> None:
    check_legal(DesignPoint.of("shufflenet_v2_x2_0", "weightnet", 4, 4))
    with pytest.raises(IllegalPointError, match=r"stage2\.0\.branch2\.5\b.*G·C_out = 1792"):
        check_legal(DesignPoint.of("shufflenet_v2_x2_0", "weightnet", 8, 8))
    with pytest.raises(IllegalPointError, match=r"layer1\.0\.conv1\b.*G·C_out = 128\b.*M·C_out = 64\b"):
        check_legal(DesignPoint.of("resnet18", "weightnet", 1, 2))


def test_only_stages_that_get_the_method_are_asked() -> None:
    # 128 groups a filter divide 128 and 256 input channels, not 64.
    first = DesignPoint.of("resnet18", "weightnet", 128, 128)
    with pytest.raises(IllegalPointError, match=r"layer1\.0\.conv1"):
        check_legal(first)
    check_legal(DesignPoint.of("resnet18", "weightnet", 128, 128, stages="3+4"))


def test_other_methods_are_always_legal() -> None:
    for method in ("plain", "se", "condconv"):
        check_legal(DesignPoint.of("resnet50", method))
