"""A method in a detector's pyramid and head: where it is asked for, and by level."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TypedDict

import pytest
import torch
from torch import Tensor, nn

from wnexplore.design.axis_types import GivenAxes
from wnexplore.design.legality import check_legal
from wnexplore.design.methods import METHODS
from wnexplore.design.multiplier import Multiplier
from wnexplore.design.point import DesignPoint
from wnexplore.design.size_limits import check_fits
from wnexplore.errors import InputError
from wnexplore.measure.distinct_layers import distinct_layers
from wnexplore.models import build
from wnexplore.models.deploy import deploy
from wnexplore.models.detector import Detector, build_detector
from wnexplore.nn import GeneratedConv2d


class Sizes(TypedDict):
    num_classes: int
    resolution: int
    pyramid_channels: int


SMALL: Sizes = {"num_classes": 2, "resolution": 128, "pyramid_channels": 8}
PARTS = {"backbone": "backbone.body", "pyramid": "backbone.fpn", "head": "head"}


def _with_method(stages: str | None) -> set[str]:
    """The parts that have generated kernels."""
    detector = build_detector("shufflenet_v2_x0_5", "weightnet", stages=stages, **SMALL)
    return {
        part
        for part, module in PARTS.items()
        if any(isinstance(layer, GeneratedConv2d) for layer in detector.get_submodule(module).modules())
    }


@pytest.mark.parametrize(
    ("stages", "parts"),
    [
        (None, {"backbone"}),
        ("head", {"head"}),
        ("pyramid", {"pyramid"}),
        ("2+pyramid", {"backbone", "pyramid"}),
        ("all+head", {"backbone", "head"}),
        ("pyramid+all+head", {"backbone", "pyramid", "head"}),
    ],
)
def test_the_method_is_where_it_is_asked_for(stages: str | None, parts: set[str]) -> None:
    assert _with_method(stages) == parts


def test_all_convolutions_but_the_last_ones_have_it() -> None:
    detector = build_detector("shufflenet_v2_x0_5", "weightnet", stages="pyramid+head", **SMALL)
    left = [name for name, module in detector.named_modules() if isinstance(module, nn.Conv2d)]
    assert [name for name in left if not name.startswith("backbone.body")] == [
        "head.classification_head.cls_logits",
        "head.regression_head.bbox_reg",
    ]


def test_kernels_are_kept_where_that_is_exact() -> None:
    images = torch.randn(1, 3, 128, 128)
    outputs = []
    for method, stages in (("plain", None), ("weightnet", "pyramid+head")):
        torch.manual_seed(0)
        outputs.append(_shaken(build_detector("shufflenet_v2_x0_5", method, stages=stages, **SMALL))(images))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-6, rtol=1e-5)


def _shaken(detector: Detector) -> Detector:
    torch.manual_seed(1)
    nn.init.normal_(detector.head.classification_head.cls_logits.weight, std=0.05)
    detector.eval()
    return detector


@pytest.mark.parametrize("method", [name for name in METHODS if name != "plain"])
def test_each_level_is_as_if_it_were_alone(method: str) -> None:
    torch.manual_seed(0)
    head = _shaken(build_detector("shufflenet_v2_x0_5", method, stages="head", **SMALL)).head
    levels = [torch.randn(2, 8, side, side) for side in (16, 8, 4, 2, 1)]
    with torch.inference_mode():
        together = head(levels)
        alone = [head([level]) for level in levels]
    for name, output in together.items():
        torch.testing.assert_close(output, torch.cat([one[name] for one in alone], 1), atol=1e-5, rtol=1e-5)


def test_m_and_g_by_stage_have_values_for_the_parts() -> None:
    axes: GivenAxes = {"task": "detection", "stages": "4+head", "resolution": 128, "pyramid_channels": 8}
    G: dict[int | str, Multiplier] = {4: 1, "head": 2}
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", "4:2+head:4", G, **axes)
    assert str(point) == "shufflenet_v2_x0_5 weightnet M=4:2+head:4 G=4:1+head:2 stages=4+head"
    assert DesignPoint.from_dict(point.to_dict()) == point
    found = {
        name.partition(".")[0]: (layer.M, layer.G)
        for name, layer in build(point).named_modules()
        if isinstance(layer, GeneratedConv2d) and layer.groups == 1
    }
    assert found == {"backbone": (2, 1), "head": (4, 2)}
    with pytest.raises(InputError, match=r"M is '4:2': expected a value for each of the stages 4, head"):
        DesignPoint.of("shufflenet_v2_x0_5", "weightnet", "4:2", 1, **axes)


def test_a_classifier_has_no_head_and_an_illegal_layer_is_named() -> None:
    with pytest.raises(InputError, match=r"stages is '3\+head': task 'classification' has no head"):
        DesignPoint.of("shufflenet_v2_x0_5", "se", stages="3+head")
    for backbone in ("shufflenet_v2_x0_5", "torchvision:resnet18"):
        point = DesignPoint.of(
            backbone, "weightnet", "1/3", "1/3", task="detection", stages="head", pyramid_channels=8
        )
        for refuse in (check_legal, build):
            with pytest.raises(InputError, match=r"layer head\.classification_head\.conv\.0\.0: M"):
                refuse(point)
        large = replace(point, M=Fraction(10**9), G=Fraction(1))
        with pytest.raises(InputError, match=r"weights of .* GB at least"):
            check_fits(large)


def test_a_layer_that_runs_once_a_level_is_timed_at_each_size() -> None:
    detector = build_detector("shufflenet_v2_x0_5", "weightnet", stages="head", **SMALL)
    found = {(layer.height, layer.width): layer.count for layer in distinct_layers(detector, 128)}
    assert found == {(side, side): 8 for side in (16, 8, 4, 2, 1)}


def test_a_deployed_one_has_the_same_outputs() -> None:
    torch.manual_seed(0)
    detector = _shaken(build_detector("resnet18", "weightnet", 2, 1, stages="all+pyramid+head", **SMALL))
    images = torch.randn(2, 3, 128, 128)
    expected = _outputs(detector, images)
    deploy(detector, images)
    torch.testing.assert_close(_outputs(detector, images), expected, atol=1e-4, rtol=1e-4)


def _outputs(detector: Detector, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = detector(images)
    return found
