"""The parts of a detector beside its backbone: what they are called, and their counts."""

from __future__ import annotations

from torch import nn

from wnexplore.design.skeleton import SkeletonPart
from wnexplore.models.multiply_adds import Products

PARTS = {"pyramid": "backbone.fpn", "head": "head"}
"""Part -> its module in a `wnexplore.models.detector.Detector`."""


def has_parts(network: nn.Module) -> bool:
    """Whether `network` is a detector."""
    return getattr(network, "is_detector", False) is True


def part_counts(detector: nn.Module, products: Products, batch_size: int = 1) -> tuple[SkeletonPart, ...]:
    """The counts of the pyramid and the head of `detector`, whose pass of a batch had `products`."""
    return tuple(
        SkeletonPart(
            name,
            sum(p.numel() for p in detector.get_submodule(module).parameters()),
            sum(count for place, count in products.flops.items() if module in place) // batch_size,
        )
        for name, module in PARTS.items()
    )
