"""The walk of a plain network: built without memory (meta tensors), run once, written down."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wnexplore.design.backbones import backbone_spec
from wnexplore.design.point import DesignPoint
from wnexplore.design.walk import Block, Site, Walk
from wnexplore.models.build import network
from wnexplore.models.methods import Method, plain_conv
from wnexplore.nn import Context


def walk(point: DesignPoint) -> Walk:
    """The walk of the plain network of `point`: its backbone, stem, resolution and classes.

    Raises `RuntimeError` as torch does if the network can't run on such images.
    """
    recorder = _Recorder()
    with torch.device("meta"):
        model = network(backbone_spec(point.backbone), recorder, point.stem, point.num_classes).eval()
        images = torch.empty(1, 3, point.resolution, point.resolution)
    pixels: dict[nn.Module, int] = {}

    def note(conv: nn.Module, _: object, output: Tensor) -> None:
        pixels[conv] = output.shape[2] * output.shape[3]

    for conv in recorder.convs():
        conv.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    names = {module: name for name, module in model.named_modules()}
    blocks = tuple(_block(record, names, pixels) for record in recorder.blocks)
    sites = [site for block in blocks for site in block.sites]
    return Walk(
        params=sum(p.numel() for p in model.parameters()) - sum(site.weights for site in sites),
        # It counts a multiply-add as two.
        flops=counter.get_total_flops() // 2 - sum(site.weights * site.pixels for site in sites),
        blocks=blocks,
    )


class _Record:
    """What one block asked its method for."""

    def __init__(self, context_channels: int) -> None:
        self.context_channels = context_channels
        self.gate_channels = 0
        self.convs: list[nn.Conv2d] = []


class _Recorder(Method):
    """The plain method, which notes what it is asked for: a block's context first."""

    def __init__(self) -> None:
        self.blocks: list[_Record] = []

    def convs(self) -> list[nn.Conv2d]:
        return [conv for block in self.blocks for conv in block.convs]

    def context(self, channels: int) -> Context | None:
        self.blocks.append(_Record(channels))
        return None

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        conv = plain_conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
        self.blocks[-1].convs.append(conv)
        return conv

    def gate(self, channels: int) -> nn.Module | None:
        self.blocks[-1].gate_channels = channels
        return None


def _block(record: _Record, names: dict[nn.Module, str], pixels: dict[nn.Module, int]) -> Block:
    sites = tuple(_site(conv, names[conv], pixels[conv]) for conv in record.convs)
    stage, block, *_ = sites[0].name.split(".")
    number = re.search(r"\d+$", stage)
    assert number is not None
    return Block(f"{stage}.{block}", int(number[0]), record.context_channels, record.gate_channels, sites)


def _site(conv: nn.Conv2d, name: str, pixels: int) -> Site:
    high, wide = conv.kernel_size
    return Site(name, conv.in_channels, conv.out_channels, (high, wide), conv.groups, pixels)
