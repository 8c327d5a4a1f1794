"""The skeleton of a plain detector: that of its backbone without what a detector leaves out, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from wnexplore.design.external_names import is_external
from wnexplore.design.part_stages import PART_STAGES
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Block, Skeleton
from wnexplore.models.build import build
from wnexplore.models.conv_calls import Call, conv_site, one_pass
from wnexplore.models.detector_parts import method_convs, part_counts


def detector_skeleton(point: DesignPoint, backbone: Skeleton) -> Skeleton:
    """The skeleton of the plain detector of `point`, whose classification network has that of `backbone`.

    Raises `InputError` if the network lacks a feature map, and as `one_pass` does.
    """
    # It must not change the random numbers drawn afterwards.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        # A network from elsewhere may need values.
        with torch.device("cpu" if is_external(point.backbone) else "meta"):
            detector = build(point.baseline())
    seen = one_pass(detector, point.resolution, counted=True, channels=(3,))
    kept = dict(detector.get_submodule("backbone.body.body").named_modules())
    # What is left out comes last, block by block.
    blocks = [
        block
        for block in backbone.blocks
        if all(isinstance(kept.get(site.name), nn.Conv2d) for site in block.sites)
    ]
    for part, stage in PART_STAGES.items():
        for name, conv in method_convs(detector, part):
            blocks += _blocks(name, conv, stage, seen.calls[name])
    return Skeleton(
        params=sum(p.numel() for p in detector.parameters()) - sum(block.weights for block in blocks),
        flops=seen.products.total - sum(block.flops for block in blocks),
        blocks=tuple(blocks),
        uncounted=tuple(sorted(seen.products.uncounted)),
        parts=part_counts(detector, seen.products),
    )


def _blocks(name: str, conv: nn.Conv2d, stage: int, calls: Sequence[Call]) -> Iterator[Block]:
    """A convolution of the pyramid or the head: a block for each call."""
    for number, call in enumerate(calls):
        pixels = call.output[2] * call.output[3]
        site = conv_site(name, conv, pixels)
        again = number > 0
        yield Block(name, stage, conv.in_channels, conv.out_channels, pixels, (site,), again=again)
