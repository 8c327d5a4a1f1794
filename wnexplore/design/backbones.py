"""The specifications of the backbones, read by builders and legality checks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from wnexplore.errors import InputError, unknown


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

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages in order, numbered as torchvision's modules."""
        return tuple(range(2, 2 + len(self.repeats)))


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

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages in order, numbered as torchvision's modules."""
        return tuple(range(1, 1 + len(self.repeats)))


@dataclass(frozen=True)
class InvertedResidualSpec:
    """A block of a MobileNet: a 1x1 convolution that expands, a depthwise one, a 1x1 that projects."""

    stage: int
    in_channels: int
    expanded: int
    out_channels: int
    kernel_size: int = 3
    stride: int = 1
    squeezed: int | None = None
    """Channels inside the block's own squeeze-and-excitation; None: it has none."""
    hard_swish: bool = False

    @property
    def expands(self) -> bool:
        """Whether it has the expanding convolution."""
        return self.expanded != self.in_channels

    @property
    def residual(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class MobileNetV2Spec:
    """Sandler et al., CVPR 2018, table 2: a row of it is a stage."""

    stem_width: int
    blocks: tuple[InvertedResidualSpec, ...]
    last_width: int

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages in order, counted from 1."""
        return _stages(self.blocks)


@dataclass(frozen=True)
class MobileNetV3Spec:
    """Howard et al., ICCV 2019, table 2: a stage begins with each block of stride 2."""

    stem_width: int
    blocks: tuple[InvertedResidualSpec, ...]
    last_width: int
    hidden_width: int
    """Features between the two last linear layers."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages in order, counted from 1."""
        return _stages(self.blocks)


BackboneSpec = ShuffleNetV2Spec | ResNetSpec | MobileNetV2Spec | MobileNetV3Spec

_PUBLISHED_WIDTHS = {Fraction(1, 2): 48, Fraction(1): 112, Fraction(3, 2): 176, Fraction(2): 248}
"""Width multiplier -> width of the first stage; each later one is twice as wide."""


def shufflenet_v2_spec(multiplier: Fraction) -> ShuffleNetV2Spec:
    """ShuffleNetV2 at any width from 0.3 to 8: as published at 0.5, 1, 1.5 and 2.

    Between and beyond these the first stage's width is linearly interpolated and rounded to a multiple of 8
    (half up). Raises `InputError` for a multiplier out of that range.
    """
    _check_width("ShuffleNetV2", multiplier, Fraction(3, 10), 8)
    known = sorted(_PUBLISHED_WIDTHS)
    low, high = next(
        ((a, b) for a, b in zip((Fraction(0), *known), known, strict=False) if multiplier <= b), known[-2:]
    )
    start, end = _PUBLISHED_WIDTHS.get(low, 0), _PUBLISHED_WIDTHS[high]
    width = start + (end - start) * (multiplier - low) / (high - low)
    first = 8 * math.floor(width / 8 + Fraction(1, 2))
    return ShuffleNetV2Spec((first, 2 * first, 4 * first))


_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Of each stage: expansion, channels, blocks, stride of the first one."""

_MOBILENET_V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
"""Of each block: kernel size, expanded channels, channels, whether it squeezes, its activation, stride."""


def mobilenet_v2_spec(multiplier: Fraction) -> MobileNetV2Spec:
    """MobileNetV2 at any width from 0.1 to 4, its channels torchvision's.

    Raises `InputError` for a multiplier out of that range.
    """
    _check_width("MobileNetV2", multiplier, Fraction(1, 10), 4)
    stem = channels = _scaled(32, multiplier)
    blocks = []
    for stage, (expansion, width, repeats, stride) in enumerate(_MOBILENET_V2, start=1):
        out = _scaled(width, multiplier)
        for index in range(repeats):
            step = stride if index == 0 else 1
            blocks.append(InvertedResidualSpec(stage, channels, channels * expansion, out, stride=step))
            channels = out
    return MobileNetV2Spec(stem, tuple(blocks), _scaled(1280, max(multiplier, Fraction(1))))


def mobilenet_v3_small_spec(multiplier: Fraction) -> MobileNetV3Spec:
    """MobileNetV3-small at any width from 0.1 to 4, its channels torchvision's.

    Raises `InputError` for a multiplier out of that range.
    """
    _check_width("MobileNetV3", multiplier, Fraction(1, 10), 4)
    stem = channels = _scaled(16, multiplier)
    blocks: list[InvertedResidualSpec] = []
    stage = 0
    for kernel_size, inside, width, squeezes, hard_swish, stride in _MOBILENET_V3_SMALL:
        stage += stride == 2
        expanded, out = _scaled(inside, multiplier), _scaled(width, multiplier)
        squeezed = _divisible_by_8(expanded // 4) if squeezes else None
        blocks.append(
            InvertedResidualSpec(stage, channels, expanded, out, kernel_size, stride, squeezed, hard_swish)
        )
        channels = out
    return MobileNetV3Spec(stem, tuple(blocks), 6 * channels, _scaled(1024, multiplier))


def _check_width(network: str, multiplier: Fraction, least: Fraction, greatest: int) -> None:
    if not least <= multiplier <= greatest:
        raise InputError(
            f"{network} at {float(multiplier):g} times the width: expected {float(least):g} to {greatest}"
        )


def _scaled(channels: int, multiplier: Fraction) -> int:
    # In floating point as in torchvision, which matters half-way between two multiples of 8.
    return _divisible_by_8(channels * float(multiplier))


def _divisible_by_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8; the next larger one if that removes more than a tenth of
    `channels`.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _stages(blocks: tuple[InvertedResidualSpec, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(block.stage for block in blocks))


FAMILIES: dict[str, Callable[[Fraction], BackboneSpec]] = {
    "shufflenet_v2": shufflenet_v2_spec,
    "mobilenet_v2": mobilenet_v2_spec,
    "mobilenet_v3_small": mobilenet_v3_small_spec,
}
"""Backbones of any width -> the spec at a multiple of their channels."""

PORT = {
    "shufflenet_v2_port_x1_0": ShuffleNetV2Spec((116, 232, 464)),
    "shufflenet_v2_port_x2_0": ShuffleNetV2Spec((244, 488, 976), last_width=2048),
}
"""The networks of the public PyTorch port (https://github.com/DequanWang/weightnet.pytorch), which has the
widths of the ShuffleNetV2 paper where the authors' code has others; at 0.5 and 1.5 they agree."""

BACKBONES: dict[str, BackboneSpec] = {
    **{
        f"shufflenet_v2_x{float(multiplier)}".replace(".", "_"): shufflenet_v2_spec(multiplier)
        for multiplier in _PUBLISHED_WIDTHS
    },
    **PORT,
    "resnet18": ResNetSpec((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetSpec((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetSpec((3, 4, 6, 3), bottleneck=True),
    "mobilenet_v2": mobilenet_v2_spec(Fraction(1)),
    "mobilenet_v3_small": mobilenet_v3_small_spec(Fraction(1)),
}


@cache
def backbone_spec(name: str) -> BackboneSpec:
    """The spec of the backbone called `name`: one of `BACKBONES`, or shufflenet_v2_x1_25, mobilenet_v2_x0_75
    or mobilenet_v3_small_x0_75 for any width.

    Raises `InputError` with the nearest name if none is called that, or for a width out of range.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    # One name per network: no redundant zeros, no width where the family's name implies it.
    if found := re.fullmatch(r"(\w+)_x(\d|[1-9]\d+)_(\d|\d{1,5}[1-9])", name, re.ASCII):
        family, width = found[1], Fraction(f"{found[2]}.{found[3]}")
        if family in FAMILIES and not (width == 1 and family in BACKBONES):
            return FAMILIES[family](width)
    if found := re.fullmatch(r"shufflenet_v2_port_x(0_5|1_5)", name):
        raise InputError(
            f"backbone is '{name}': at this width the port's network is shufflenet_v2_x{found[1]}"
        )
    widths = ("shufflenet_v2_x1_25", "mobilenet_v2_x0_75", "mobilenet_v3_small_x0_75")
    raise unknown("backbone", name, [*BACKBONES, *(f"{example} (any width)" for example in widths)])
