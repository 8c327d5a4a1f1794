import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore import DesignPoint
from wnexplore.design.backbones import BACKBONES
from wnexplore.errors import InputError
from wnexplore.results.record import record_key

EARLIER_KEY = "729bbfb64ae5a497e9e55ddf11b8a9c49e5b63e639bfca99ff2418740d802059"
"""Of the counts of ShuffleNetV2 0.5x with M = G = 2, before there were further axes."""

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


def test_a_point_that_classifies_is_stored_as_before_there_was_detection() -> None:
    axes = "backbone method M G stages experts temperature stem resolution num_classes reduction activation"
    before = {*axes.split(), "depthwise"}
    assert DesignPoint.of("resnet18", "weightnet").stored().keys() == before
    detector = DesignPoint.of("resnet18", "weightnet", task="detection")
    assert detector.stored().keys() == before | {"task", "pyramid_channels"}
    assert DesignPoint.from_dict(detector.stored()) == detector


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


@pytest.mark.parametrize(
    ("written", "stages"),
    [
        ("all+head", "all+head"),
        (["head", "all"], "all+head"),
        ("1+2+3+4+pyramid", "all+pyramid"),
        ("head+pyramid", "pyramid+head"),
        ([4, "pyramid"], "4+pyramid"),
        ("all", None),
    ],
)
def test_the_stages_of_a_detector_have_one_spelling(written: object, stages: str | None) -> None:
    for backbone in ("resnet18", "torchvision:resnet18"):
        named = stages and stages.replace("all", "1+2+3+4") if written == "1+2+3+4+pyramid" else stages
        point = DesignPoint.of(backbone, "se", stages=written, task="detection")  # type: ignore[arg-type]
        assert point.stages == (stages if backbone == "resnet18" else named)
        assert DesignPoint.from_dict(point.to_dict()) == point


def test_all_stages_are_none_left_out() -> None:
    assert DesignPoint.of("resnet18", "se", stages=[1, 2, 3, 4]) == DesignPoint.of("resnet18", "se")
    assert DesignPoint.of("shufflenet_v2_x1_0", "se", stages=3).stages == "3"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"backbone": "resnet19"}, "'resnet19'.*'resnet18'"),
        ({"method": "weihtnet"}, "'weihtnet'.*'weightnet'"),
        ({"method": "plain", "M": 2}, r"'plain'.*\bM\b"),
        ({"method": "se", "experts": 2}, "'se'.*experts"),
        ({"method": "weightnet", "M": 0}, "M is '0'"),
        ({"method": "weightnet", "activation": "relu"}, "activation 'relu'"),
        ({"stem": "tiny"}, "stem 'tiny'"),
        ({"resolution": 0}, "resolution is '0'"),
        ({"num_classes": True}, "num_classes is 'True'"),
        ({"method": "condconv", "experts": -1}, "experts is '-1'"),
        ({"method": "plain", "stages": "3"}, "'plain'.*stages"),
        (
            {"method": "se", "stages": "3+5"},
            r"stages is '3\+5'.*resnet18.*1, 2, 3, 4",
        ),
        ({"method": "se", "stages": []}, r"stages is '\[\]'"),
        ({"method": "se", "stages": "3,4"}, "stages is '3,4'"),
        ({"method": "se", "stages": True}, "stages is 'True'"),
        ({"method": "se", "stages": 101}, "stages is '101'.*resnet18.*1, 2, 3, 4"),
        ({"method": "se", "stages": "102"}, "stages is '102'.*resnet18.*1, 2, 3, 4"),
        ({"method": "se", "stages": "3+haed"}, r"a detector also has pyramid and head, as in all\+head"),
        ({"method": "weightnet", "M": {"haed": 2}}, "M has a value for stage 'haed'.*pyramid or head"),
        ({"method": "weightnet", "M": "102:2"}, "M is '102:2'"),
    ],
)
def test_a_wrong_axis_is_named(axes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DesignPoint.of(**{"backbone": "resnet18", **axes})  # type: ignore[arg-type]


def test_one_network_has_one_point_however_its_stages_are_written() -> None:
    single = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, 1)
    assert DesignPoint.of("shufflenet_v2_x0_5", "weightnet", {2: 2, 3: 2, 4: 2}, "2:1+3:1+4:1") == single
    some = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", {3: 2, 4: 4}, 1, stages=[3, 4])
    assert str(some) == "shufflenet_v2_x0_5 weightnet M=3:2+4:4 G=1 stages=3+4"
    assert DesignPoint.from_dict(json.loads(json.dumps(some.to_dict()))) == some


@pytest.mark.parametrize("M", ["4:2", "head:2", "4:2+pyramid:2", "4:2+head:2+pyramid:2"])
def test_the_values_for_the_parts_of_a_detector_are_known_of_any_backbone(M: str) -> None:
    for backbone in ("resnet18", "torchvision:resnet18"):
        with pytest.raises(InputError, match=r"M is '.*': expected a value"):
            DesignPoint.of(backbone, "weightnet", M, 1, stages="4+head", task="detection")
    with pytest.raises(InputError, match=r"M is '.*': expected a value"):
        DesignPoint.of("torchvision:resnet18", "weightnet", "4:2+head:2", 1)


@pytest.mark.parametrize("M", [{2: 1, 3: 1}, {2: 1, 3: 1, 4: 1, 5: 1}, "3:1"])
def test_a_value_for_each_stage_is_one_for_each_that_gets_the_method(M: object) -> None:
    with pytest.raises(InputError, match=r"\bM\b.*2, 3, 4"):
        DesignPoint.of("shufflenet_v2_x0_5", "weightnet", M)  # type: ignore[arg-type]


def test_axes_that_came_later_leave_the_keys_of_earlier_records_as_they_were() -> None:
    plain = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, 2)
    # Written by an earlier version for this point.
    assert record_key("complexity", plain, {}) == EARLIER_KEY
    for axes in ({"depthwise": "full"}, {"stages": [3]}, {"activation": "tanh"}):
        other = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, 2, **axes)
        assert record_key("complexity", other, {}) != EARLIER_KEY
