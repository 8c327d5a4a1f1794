import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore import DesignPoint
from wnexplore.design.backbones import BACKBONES
from wnexplore.errors import InputError

_multipliers = st.fractions(min_value=Fraction(1, 64), max_value=64)


def test_defaults_are_the_published_ones() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet")
    assert (point.M, point.G, point.reduction, point.activation) == (2, 2, 16, "sigmoid")
    assert (point.stem, point.resolution, point.num_classes) == ("imagenet", 224, 1000)
    assert DesignPoint.of("resnet18", stem="small").resolution == 32


def test_axes_that_a_method_does_not_read_are_empty() -> None:
    plain = DesignPoint.of("resnet18")
    assert (plain.M, plain.G, plain.experts, plain.reduction, plain.activation) == (None,) * 5
    assert DesignPoint.of("resnet18", "condconv").experts == 4
    assert DesignPoint.of("resnet18", "se").reduction == 16


@given(_multipliers, _multipliers, st.sampled_from(sorted(BACKBONES)), st.integers(1, 512))
def test_a_point_survives_json_and_is_hashable(M: Fraction, G: Fraction, backbone: str, size: int) -> None:
    point = DesignPoint.of(backbone, "weightnet", M, G, resolution=size)
    again = DesignPoint.from_dict(json.loads(json.dumps(point.to_dict())))
    assert again == point
    assert hash(again) == hash(point)


def test_the_baseline_is_the_plain_network_of_the_same_images() -> None:
    point = DesignPoint.of("resnet50", "weightnet", 4, 2, stem="small", num_classes=10)
    assert point.baseline() == DesignPoint.of("resnet50", stem="small", num_classes=10)
    assert point.baseline().baseline() == point.baseline()


@pytest.mark.parametrize("written", ["3+4", "4+3", " 3 + 4", [3, 4], (4, 3, 3)])
def test_stages_have_one_spelling(written: object) -> None:
    point = DesignPoint.of("resnet18", "se", stages=written)  # type: ignore[arg-type]
    assert point.stages == "3+4"
    assert DesignPoint.from_dict(point.to_dict()) == point
    assert str(point) == "resnet18 se stages=3+4"


def test_all_stages_are_none_left_out() -> None:
    assert DesignPoint.of("resnet18", "se", stages=[1, 2, 3, 4]) == DesignPoint.of("resnet18", "se")
    assert DesignPoint.of("shufflenet_v2_x1_0", "se", stages=3).stages == "3"


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"backbone": "resnet19"}, "did you mean 'resnet18'"),
        ({"method": "weihtnet"}, "did you mean 'weightnet'"),
        ({"method": "plain", "M": 2}, "method 'plain' has no M"),
        ({"method": "se", "experts": 2}, "method 'se' has no experts"),
        ({"method": "weightnet", "M": 0}, "M is '0'"),
        ({"method": "weightnet", "activation": "relu"}, "unknown activation 'relu'"),
        ({"stem": "tiny"}, "unknown stem 'tiny'"),
        ({"resolution": 0}, "resolution is '0'"),
        ({"num_classes": True}, "num_classes is 'True'"),
        ({"method": "condconv", "experts": -1}, "experts is '-1'"),
        ({"method": "plain", "stages": "3"}, "method 'plain' has no stages"),
        (
            {"method": "se", "stages": "3+5"},
            r"stages is '3\+5': resnet18 has 1, 2, 3, 4: name some, such as 3\+4",
        ),
        ({"method": "se", "stages": []}, r"stages is '\[\]'"),
        ({"method": "se", "stages": "3,4"}, "stages is '3,4'"),
        ({"method": "se", "stages": True}, "stages is 'True'"),
    ],
)
def test_a_wrong_axis_is_named(axes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        DesignPoint.of(**{"backbone": "resnet18", **axes})  # type: ignore[arg-type]
