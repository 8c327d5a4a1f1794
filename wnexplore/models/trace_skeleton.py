"""The skeleton of a plain network: built on the meta device, run once, recorded."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from wnexplore.design.backbones import backbone_spec
from wnexplore.design.external_names import is_external
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Block, Skeleton
from wnexplore.models.build import backbone_of, network
from wnexplore.models.conv_calls import conv_site
from wnexplore.models.method_layers import ConvSizes, Method, plain_conv
from wnexplore.models.multiply_adds import counted
from wnexplore.nn import Context, Gate


def skeleton(point: DesignPoint) -> Skeleton:
    """The skeleton of the plain network of `point`: its backbone, stem, resolution and classes.

    Raises `RuntimeError` as torch does if the network can't run on such images.
    """
    if point.task == "detection":
        from wnexplore.models.detector_skeleton import detector_skeleton

        return detector_skeleton(point, skeleton(backbone_of(point)))
    if is_external(point.backbone):
        from wnexplore.models.external import external_skeleton

        return external_skeleton(point.backbone, point.resolution, point.num_classes)
    recorder = _Recorder()
    with torch.device("meta"):
        model = network(backbone_spec(point.backbone), recorder, point.stem, point.num_classes).eval()
        images = torch.empty(1, 3, point.resolution, point.resolution)
    pixels: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        pixels[module] = output.shape[2] * output.shape[3]

    for noted in (*recorder.convs(), *(block.gate for block in recorder.blocks)):
        noted.register_forward_hook(note)
    with torch.no_grad(), counted(model) as products:
        model(images)
    names = {module: name for name, module in model.named_modules()}
    blocks = tuple(_block(record, names, pixels) for record in recorder.blocks)
    return Skeleton(
        params=sum(p.numel() for p in model.parameters()) - sum(block.weights for block in blocks),
        flops=products.total - sum(block.flops for block in blocks),
        blocks=blocks,
    )


class _Record:
    """What one block requested from its method."""

    def __init__(self, stage: int, context_channels: int) -> None:
        self.stage = stage
        self.context_channels = context_channels
        self.gate: Gate
        self.convs: list[nn.Conv2d] = []


class _SeenGate(Gate):
    """An identity gate, which marks the position of a gate."""

    initial_scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Recorder(Method):
    """The plain method, which records the requests: a block's context first."""

    def __init__(self, stage: int = 0, blocks: list[_Record] | None = None) -> None:
        self.stage = stage
        self.blocks: list[_Record] = [] if blocks is None else blocks

    def convs(self) -> list[nn.Conv2d]:
        return [conv for block in self.blocks for conv in block.convs]

    def at(self, stage: int) -> Method:
        return _Recorder(stage, self.blocks)

    def context(self, channels: int) -> Context | None:
        self.blocks.append(_Record(self.stage, channels))
        return None

    def make(self, sizes: ConvSizes, context_features: int | None) -> nn.Module:
        conv = plain_conv(**vars(sizes))
        self.blocks[-1].convs.append(conv)
        return conv

    def gate(self, channels: int) -> Gate:
        self.blocks[-1].gate = _SeenGate(channels)
        return self.blocks[-1].gate


def _block(record: _Record, names: dict[nn.Module, str], pixels: dict[nn.Module, int]) -> Block:
    sites = tuple(conv_site(names[conv], conv, pixels[conv]) for conv in record.convs)
    return Block(
        _common([site.name for site in sites]),
        record.stage,
        record.context_channels,
        record.gate.channels,
        pixels[record.gate],
        sites,
    )


def _common(names: list[str]) -> str:
    """The longest dotted prefix of all `names`."""
    parts = [name.split(".")[:-1] for name in names]
    return ".".join(
        levels[0] for levels in itertools.takewhile(lambda at: len(set(at)) == 1, zip(*parts, strict=False))
    )
