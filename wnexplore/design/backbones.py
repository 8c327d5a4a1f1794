"""What each backbone is made of: the numbers that both its builder and its legality check read."""

from __future__ import annotations

from dataclasses import dataclass

from wnexplore.errors import unknown

STEMS = {"imagenet": 224, "small": 32}
"""Stem -> the resolution it is made for, in pixels."""


@dataclass(frozen=True)
class ShuffleNetV2Spec:
    """Ma et al., ECCV 2018; stage widths as in the WeightNet authors' public code."""

    widths: tuple[int, int, int]
    repeats: tuple[int, int, int] = (4, 8, 4)
    stem_width: int = 24
    last_width: int = 1024
    even_branches: bool = False
    """Whether both branches of a stage's first block give half its channels, as in torchvision;
    in the published networks the projection keeps its input's channels and the other gives the rest."""

    def projection_width(self, in_channels: int, width: int) -> int:
        """Output channels of the projection branch of a stage's first block."""
        return width // 2 if self.even_branches else in_channels


@dataclass(frozen=True)
class ResNetSpec:
    """He et al., CVPR 2016, with the stride of a bottleneck on its 3x3 convolution."""

    repeats: tuple[int, int, int, int]
    bottleneck: bool
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    stem_width: int = 64

    @property
    def expansion(self) -> int:
        """Output channels of a block over its width."""
        return 4 if self.bottleneck else 1


BackboneSpec = ShuffleNetV2Spec | ResNetSpec

BACKBONES: dict[str, BackboneSpec] = {
    "shufflenet_v2_x0_5": ShuffleNetV2Spec((48, 96, 192)),
    "shufflenet_v2_x1_0": ShuffleNetV2Spec((112, 224, 448)),
    "shufflenet_v2_x1_5": ShuffleNetV2Spec((176, 352, 704)),
    "shufflenet_v2_x2_0": ShuffleNetV2Spec((248, 496, 992)),
    "resnet18": ResNetSpec((2, 2, 2, 2), bottleneck=False),
    "resnet50": ResNetSpec((3, 4, 6, 3), bottleneck=True),
}


def backbone_spec(name: str) -> BackboneSpec:
    """The spec of the backbone called `name`; `InputError` with the nearest name if none is."""
    try:
        return BACKBONES[name]
    except KeyError:
        raise unknown("backbone", name, BACKBONES) from None
