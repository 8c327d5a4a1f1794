"""From a design point to its network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack, overload

import torch
from torch import nn

from wnexplore.design.axis_types import GivenAxes
from wnexplore.design.backbones import (
    BackboneSpec,
    MobileNetV2Spec,
    MobileNetV3Spec,
    ResNetSpec,
    ShuffleNetV2Spec,
    backbone_spec,
)
from wnexplore.design.external_names import is_external
from wnexplore.design.legality import check_legal
from wnexplore.design.multiplier import Written
from wnexplore.design.point import DesignPoint
from wnexplore.design.size_limits import check_fits
from wnexplore.design.stages import of_backbone, settled, without_parts
from wnexplore.design.start import Init, check_init
from wnexplore.errors import InputError
from wnexplore.models.method_layers import Method, method_of
from wnexplore.models.mobilenet_v2 import MobileNetV2
from wnexplore.models.mobilenet_v3 import MobileNetV3
from wnexplore.models.published_start import start_as_published
from wnexplore.models.resnet import ResNet
from wnexplore.models.shufflenet_v2 import ShuffleNetV2


@overload
def build(point: DesignPoint, /, *, init: Init = "default") -> nn.Module: ...


@overload
def build(
    backbone: str,
    method: str = "plain",
    M: Written | None = None,
    G: Written | None = None,
    *,
    init: Init = "default",
    **axes: Unpack[GivenAxes],
) -> nn.Module: ...


def build(backbone: DesignPoint | str, *args: Any, init: Init = "default", **axes: Any) -> nn.Module:
    """The network of a design point, or of the axes of one as `DesignPoint.of` takes them.

    Maps images (N, 3, H, W) to logits (N, num_classes), in training mode, on PyTorch's default device;
    its parameters follow from `torch.manual_seed`. For task "detection" it is a
    `wnexplore.models.detector.Detector`. `init` "published" starts it as the WeightNet authors do
    (see `wnexplore.models.published_start`). A backbone "timm:NAME", "torchvision:NAME" or
    "path/to/file.py:function" is that network, all its convolutions but the first replaced by the
    method's (see `wnexplore.convert`); with several heads in training, only the main head's logits are
    returned; it has only its own start. Raises `InputError` for a wrong axis or `init` and
    `IllegalPointError`, naming the layer, for an (M, G) illegal in some layer, before anything is built; also
    `InputError` if the weights exceed the machine's memory.
    """
    if isinstance(backbone, str):
        point = DesignPoint.of(backbone, *args, **axes)
    elif args or axes:
        raise InputError("a design point has all its axes: give either the point or the axes")
    else:
        point = backbone
    check_init(init, point.backbone)
    if point.task == "detection":
        return _detector(point, init)
    if torch.get_default_device().type == "cpu":
        check_fits(point)
    if is_external(point.backbone):
        from wnexplore.models.external import external_network

        return external_network(point.backbone, method_of(point), point.num_classes, point.resolution)
    check_legal(point)
    made = network(backbone_spec(point.backbone), method_of(point), point.stem, point.num_classes)
    if init == "published":
        start_as_published(made)
    return made


def _detector(point: DesignPoint, init: Init) -> nn.Module:
    # torchvision's detection takes a while to import.
    from wnexplore.models.detector import Detector
    from wnexplore.models.detector_method import put_method
    from wnexplore.models.feature_maps import FeatureMaps

    if torch.get_default_device().type == "cpu":
        check_fits(point)
    assert point.pyramid_channels is not None
    maps = FeatureMaps(build(backbone_of(point), init=init), point.backbone)
    detector = Detector(maps, point.num_classes, point.pyramid_channels, point.resolution)
    put_method(detector, point)
    return detector


def backbone_of(point: DesignPoint) -> DesignPoint:
    """The classification network of which a detector has all but the classifier."""
    stages = without_parts(point.stages)
    if stages == "":
        return replace(point.baseline(), task="classification", pyramid_channels=None)
    known = None if is_external(point.backbone) else point.backbone
    M, G = (
        setting and settled(of_backbone(setting), known, stages, name)
        for name, setting in (("M", point.M), ("G", point.G))
    )
    return replace(point, task="classification", pyramid_channels=None, stages=stages, M=M, G=G)


def network(
    spec: BackboneSpec, method: Method, stem: str, num_classes: int
) -> ShuffleNetV2 | ResNet | MobileNetV2 | MobileNetV3:
    """The network that `spec` describes, its blocks' convolutions made by `method`."""
    match spec:
        case ShuffleNetV2Spec():
            return ShuffleNetV2(spec, method, stem=stem, num_classes=num_classes)
        case ResNetSpec():
            return ResNet(spec, method, stem=stem, num_classes=num_classes)
        case MobileNetV2Spec():
            return MobileNetV2(spec, method, stem=stem, num_classes=num_classes)
        case MobileNetV3Spec():
            return MobileNetV3(spec, method, stem=stem, num_classes=num_classes)
