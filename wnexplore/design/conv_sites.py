"""The convolutions of a network that a method may replace, by name: in a backbone those of its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from wnexplore.design.backbones import (
    MobileNetV2Spec,
    MobileNetV3Spec,
    ResNetSpec,
    ShuffleNetV2Spec,
    backbone_spec,
)
from wnexplore.design.external_names import is_external
from wnexplore.design.part_stages import PART_STAGES


@dataclass(frozen=True)
class ConvShape:
    """One convolution of a block; `name` is its module's dotted name in the built network."""

    name: str
    stage: int
    in_channels: int
    out_channels: int
    kernel_size: int
    groups: int = 1

    @property
    def fan_in(self) -> int:
        """F = C_in/g · k², the length of one filter."""
        return self.in_channels // self.groups * self.kernel_size**2

    @property
    def depthwise(self) -> bool:
        """Whether each channel has its own filter."""
        return self.groups == self.in_channels == self.out_channels


@cache
def block_convs(backbone: str) -> tuple[ConvShape, ...]:
    """Every convolution of every block, in the network's order; the first and last are ordinary."""
    spec = backbone_spec(backbone)
    match spec:
        case ShuffleNetV2Spec():
            return tuple(_shufflenet_v2(spec))
        case ResNetSpec():
            return tuple(_resnet(spec))
        case MobileNetV2Spec() | MobileNetV3Spec():
            return tuple(_mobilenet(spec))


def known_convs(backbone: str, pyramid_channels: int | None) -> tuple[ConvShape, ...]:
    """The convolutions that are known before a network is built: none of an external backbone.

    They are `block_convs` and, with `pyramid_channels`, the 3x3 ones of a detector's pyramid and head. Those
    between the backbone's maps and the pyramid depend on the maps.
    """
    own = () if is_external(backbone) else block_convs(backbone)
    return (*own, *(() if pyramid_channels is None else _pyramid_and_head(pyramid_channels)))


def stages_of(backbone: str) -> tuple[int, ...]:
    """The stages of a backbone, in order, numbered as in its spec."""
    return backbone_spec(backbone).stages


def _pyramid_and_head(channels: int) -> Iterator[ConvShape]:
    levels = [f"layer_blocks.{level}.0" for level in range(3)] + ["extra_blocks.p6", "extra_blocks.p7"]
    towers = [f"{kind}_head.conv.{at}.0" for kind in ("classification", "regression") for at in range(4)]
    for part, module, names in (("pyramid", "backbone.fpn", levels), ("head", "head", towers)):
        for name in names:
            yield ConvShape(f"{module}.{name}", PART_STAGES[part], channels, channels, 3)


def _shufflenet_v2(spec: ShuffleNetV2Spec) -> Iterator[ConvShape]:
    channels = spec.stem_width
    for stage, (width, repeats) in enumerate(zip(spec.widths, spec.repeats, strict=True), start=2):
        half = width // 2
        for index in range(repeats):
            name = f"stage{stage}.{index}"
            into = kept = half
            if index == 0:
                into, kept = channels, spec.projection_width(channels, width)
                yield ConvShape(f"{name}.branch1.0", stage, into, into, 3, groups=into)
                yield ConvShape(f"{name}.branch1.2", stage, into, kept, 1)
            yield ConvShape(f"{name}.branch2.0", stage, into, half, 1)
            yield ConvShape(f"{name}.branch2.3", stage, half, half, 3, groups=half)
            yield ConvShape(f"{name}.branch2.5", stage, half, width - kept, 1)
        channels = width


def _resnet(spec: ResNetSpec) -> Iterator[ConvShape]:
    channels = spec.stem_width
    for stage, (width, repeats) in enumerate(zip(spec.widths, spec.repeats, strict=True), start=1):
        out = width * spec.expansion
        for index in range(repeats):
            name = f"layer{stage}.{index}"
            if spec.bottleneck:
                yield ConvShape(f"{name}.conv1", stage, channels, width, 1)
                yield ConvShape(f"{name}.conv2", stage, width, width, 3)
                yield ConvShape(f"{name}.conv3", stage, width, out, 1)
            else:
                yield ConvShape(f"{name}.conv1", stage, channels, width, 3)
                yield ConvShape(f"{name}.conv2", stage, width, width, 3)
            if index == 0 and (stage > 1 or channels != out):
                yield ConvShape(f"{name}.downsample.0", stage, channels, out, 1)
            channels = out


def _mobilenet(spec: MobileNetV2Spec | MobileNetV3Spec) -> Iterator[ConvShape]:
    v2 = isinstance(spec, MobileNetV2Spec)
    for index, block in enumerate(spec.blocks, start=1):
        name, inside = f"features.{index}.{'conv' if v2 else 'block'}", block.expanded
        place = 0
        if block.expands:
            yield ConvShape(f"{name}.0.0", block.stage, block.in_channels, inside, 1)
            place = 1
        yield ConvShape(f"{name}.{place}.0", block.stage, inside, inside, block.kernel_size, groups=inside)
        place += 1 if block.squeezed is None else 2
        last = f"{name}.{place}" if v2 else f"{name}.{place}.0"
        yield ConvShape(last, block.stage, inside, block.out_channels, 1)
