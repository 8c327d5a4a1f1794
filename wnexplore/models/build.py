"""From a design point to its network."""

from __future__ import annotations

from typing import Any, overload

from wnexplore.design.backbones import BackboneSpec, ShuffleNetV2Spec, backbone_spec
from wnexplore.design.legality import check_legal
from wnexplore.design.multiplier import Multiplier
from wnexplore.design.point import DesignPoint
from wnexplore.design.stages import Stages
from wnexplore.errors import InputError
from wnexplore.models.methods import Method, method_of
from wnexplore.models.resnet import ResNet
from wnexplore.models.shufflenet_v2 import ShuffleNetV2


@overload
def build(point: DesignPoint, /) -> ShuffleNetV2 | ResNet: ...


@overload
def build(
    backbone: str,
    method: str = "plain",
    M: Multiplier | None = None,
    G: Multiplier | None = None,
    *,
    stages: Stages | None = None,
    experts: int | None = None,
    stem: str = "imagenet",
    resolution: int | None = None,
    num_classes: int = 1000,
    reduction: int | None = None,
    activation: str | None = None,
) -> ShuffleNetV2 | ResNet: ...


def build(backbone: DesignPoint | str, *args: Any, **axes: Any) -> ShuffleNetV2 | ResNet:
    """The network of a design point, or of the axes of one as `DesignPoint.of` takes them.

    Maps images (N, 3, H, W) to logits (N, num_classes), in training mode, on PyTorch's default device;
    its parameters follow from `torch.manual_seed`. Raises `InputError` for an axis that is wrong and
    `IllegalPointError`, naming the layer, for an (M, G) that some layer can't have, before anything is
    built.
    """
    if isinstance(backbone, str):
        point = DesignPoint.of(backbone, *args, **axes)
    elif args or axes:
        raise InputError("a design point has all its axes: give the point alone, or the axes without it")
    else:
        point = backbone
    check_legal(point)
    return network(backbone_spec(point.backbone), method_of(point), point.stem, point.num_classes)


def network(spec: BackboneSpec, method: Method, stem: str, num_classes: int) -> ShuffleNetV2 | ResNet:
    """The network that `spec` describes, its blocks' convolutions made by `method`."""
    if isinstance(spec, ShuffleNetV2Spec):
        return ShuffleNetV2(spec, method, stem=stem, num_classes=num_classes)
    return ResNet(spec, method, stem=stem, num_classes=num_classes)
