"""The parts of a detector beside its backbone: what they are called, their convolutions and their counts."""

from __future__ import annotations

from torch import nn

from wnexplore.design.skeleton import SkeletonPart
from wnexplore.models.multiply_adds import Products

PARTS = {"pyramid": "backbone.fpn", "head": "head"}
"""Part -> its module in a `wnexplore.models.detector.Detector`."""


def has_parts(network: nn.Module) -> bool:
    """Whether `network` is a detector."""
    return getattr(network, "is_detector", False) is True


def method_convs(detector: nn.Module, part: str) -> list[tuple[str, nn.Conv2d]]:
    """The convolutions of a part of a plain `detector` that a method may replace, with their names.

    These are all of the pyramid, and those of the head but the last ones, which give classes and boxes.
    """
    return [
        (f"{PARTS[part]}.{name}", module)
        for name, module in detector.get_submodule(PARTS[part]).named_modules()
        if isinstance(module, nn.Conv2d) and not name.endswith(_LAST)
    ]


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


_LAST = ("cls_logits", "bbox_reg")
