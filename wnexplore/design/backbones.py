"""What each backbone is made of: the numbers that both its builder and its legality check read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from wnexplore.errors import InputError, unknown

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

_PUBLISHED_WIDTHS = {Fraction(1, 2): 48, Fraction(1): 112, Fraction(3, 2): 176, Fraction(2): 248}
"""Width multiplier -> width of the first stage; each later one is twice as wide."""


def shufflenet_v2_spec(multiplier: Fraction) -> ShuffleNetV2Spec:
    """ShuffleNetV2 at any width from 0.3 to 8: as published at 0.5, 1, 1.5 and 2.

    Between and beyond these the first stage's width goes along straight lines, to a multiple of 8 (a half
    upwards). Raises `InputError` for a multiplier out of that range.
    """
    if not Fraction(3, 10) <= multiplier <= 8:
        raise InputError(f"ShuffleNetV2 at {float(multiplier):g} times the width: expected 0.3 to 8")
    known = sorted(_PUBLISHED_WIDTHS)
    low, high = next(
        ((a, b) for a, b in zip((Fraction(0), *known), known, strict=False) if multiplier <= b), known[-2:]
    )
    start, end = _PUBLISHED_WIDTHS.get(low, 0), _PUBLISHED_WIDTHS[high]
    width = start + (end - start) * (multiplier - low) / (high - low)
    first = 8 * math.floor(width / 8 + Fraction(1, 2))
    return ShuffleNetV2Spec((first, 2 * first, 4 * first))


BACKBONES: dict[str, BackboneSpec] = {
    **{
        f"shufflenet_v2_x{float(multiplier)}".replace(".", "_"): shufflenet_v2_spec(multiplier)
        for multiplier in _PUBLISHED_WIDTHS
    },
    "resnet18": ResNetSpec((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetSpec((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetSpec((3, 4, 6, 3), bottleneck=True),
}


def backbone_spec(name: str) -> BackboneSpec:
    """The spec of the backbone called `name`: one of `BACKBONES`, or shufflenet_v2_x1_25 for any width.

    Raises `InputError` with the nearest name if none is called that, or for a width out of range.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    # One name for one network: no zeros that change nothing.
    if found := re.fullmatch(r"shufflenet_v2_x(\d|[1-9]\d+)_(\d|\d{1,5}[1-9])", name):
        return shufflenet_v2_spec(Fraction(f"{found[1]}.{found[2]}"))
    raise unknown("backbone", name, [*BACKBONES, "shufflenet_v2_x1_25 (any width)"])
