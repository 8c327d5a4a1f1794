"""Backbones of few blocks, for what takes long by the layer: exports, compilations, counts of operators.

Each kind of block is in them, with and without a shortcut, between the stem and the classifier of its
backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from wnexplore.design.backbones import (
    InvertedResidualSpec,
    MobileNetV2Spec,
    MobileNetV3Spec,
    ShuffleNetV2Spec,
    backbone_spec,
)
from wnexplore.design.point import DesignPoint
from wnexplore.models import ResNet, ShuffleNetV2
from wnexplore.models.method_layers import method_of
from wnexplore.models.mobilenet_v2 import MobileNetV2
from wnexplore.models.mobilenet_v3 import MobileNetV3


def shallow(point: DesignPoint) -> nn.Module:
    """The network of `point` with two blocks in its first stage and one in each later one; of a MobileNet,
    with one block of each kind that has a shortcut."""
    spec, method = backbone_spec(point.backbone), method_of(point)
    if isinstance(spec, ShuffleNetV2Spec):
        few = replace(spec, repeats=(2, 1, 1))
        return ShuffleNetV2(few, method, stem=point.stem, num_classes=point.num_classes)
    if isinstance(spec, MobileNetV2Spec):
        fewer = replace(spec, blocks=_without_repeats(spec.blocks))
        return MobileNetV2(fewer, method, stem=point.stem, num_classes=point.num_classes)
    if isinstance(spec, MobileNetV3Spec):
        less = replace(spec, blocks=_without_repeats(spec.blocks))
        return MobileNetV3(less, method, stem=point.stem, num_classes=point.num_classes)
    residual = replace(spec, repeats=(2, 1, 1, 1))
    return ResNet(residual, method, stem=point.stem, num_classes=point.num_classes)


def _without_repeats(blocks: Sequence[InvertedResidualSpec]) -> tuple[InvertedResidualSpec, ...]:
    kept: list[InvertedResidualSpec] = []
    seen = set()
    for block in blocks:
        kind = (block.kernel_size, block.hard_swish, block.squeezed is None)
        if block.residual and kind in seen:
            continue
        if block.residual:
            seen.add(kind)
        kept.append(block)
    return tuple(kept)
