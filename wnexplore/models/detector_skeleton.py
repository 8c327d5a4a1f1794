"""The skeleton of a plain detector: that of its backbone without what a detector leaves out, and the rest."""

from __future__ import annotations

import torch
from torch import nn

from wnexplore.design.external_names import is_external
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Skeleton
from wnexplore.models.build import build
from wnexplore.models.conv_calls import one_pass
from wnexplore.models.detector_parts import part_counts


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
    products = one_pass(detector, point.resolution, counted=True, channels=(3,)).products
    kept = dict(detector.get_submodule("backbone.body.body").named_modules())
    # What is left out comes last, block by block.
    blocks = tuple(
        block
        for block in backbone.blocks
        if all(isinstance(kept.get(site.name), nn.Conv2d) for site in block.sites)
    )
    pairs = [(site, block.samples) for block in blocks for site in block.sites]
    return Skeleton(
        params=sum(p.numel() for p in detector.parameters()) - sum(site.weights for site, _ in pairs),
        flops=products.total - sum(site.weights * site.pixels * samples for site, samples in pairs),
        blocks=blocks,
        uncounted=tuple(sorted(products.uncounted)),
        parts=part_counts(detector, products),
    )
