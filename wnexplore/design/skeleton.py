"""The skeleton of a plain network at one resolution: what counting needs; pure Python.

It has every conv site that a method may replace, block by block, and the counts of everything else. The
counts under any method follow without building anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Site:
    """A convolution without bias that a method may replace; `name` is its module's dotted name."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    groups: int
    pixels: int
    """H_out·W_out of one sample."""

    @property
    def fan_in(self) -> int:
        """F = C_in/g · kh · kw, the length of one filter."""
        return self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]

    @property
    def weights(self) -> int:
        """C_out·F, the elements of one image's kernel."""
        return self.out_channels * self.fan_in

    @property
    def depthwise(self) -> bool:
        """Whether each channel has its own filter."""
        return self.groups == self.in_channels == self.out_channels


@dataclass(frozen=True)
class Block:
    """The sites that share one context."""

    name: str
    stage: int
    """Counted from 1, in the order of the network."""
    context_channels: int
    """Channels of the pooled context input."""
    gate_channels: int
    """Channels at the end of the main branch, where a gate is."""
    gate_pixels: int
    """H·W there."""
    sites: tuple[Site, ...]
    samples: int = 1
    """Samples per image in its layers: more than one where heads or frames are folded into the batch."""
    again: bool = False
    """Whether it is a repeated call of an earlier block, with the same weights: a detector's head runs once a
    level."""

    @property
    def weights(self) -> int:
        """The elements of its sites' kernels, without those of an earlier block."""
        return 0 if self.again else sum(site.weights for site in self.sites)

    @property
    def flops(self) -> int:
        """Multiply-adds per image of its sites, as ordinary convolutions."""
        return self.samples * sum(site.weights * site.pixels for site in self.sites)


@dataclass(frozen=True)
class SkeletonPart:
    """A part of a plain network beside its backbone, such as a detector's head."""

    name: str
    params: int
    flops: int
    """Multiply-adds per image."""


@dataclass(frozen=True)
class Skeleton:
    """A plain network for images of one size."""

    params: int
    """Parameters of everything except the sites."""
    flops: int
    """Multiply-adds per image of everything except the sites."""
    blocks: tuple[Block, ...]
    uncounted: tuple[str, ...] = ()
    """Operators that may multiply matrices but aren't counted."""
    parts: tuple[SkeletonPart, ...] = ()
    """Of a detector: its pyramid and its head, with the sites that are in `blocks`."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that have sites, in order."""
        return tuple(dict.fromkeys(block.stage for block in self.blocks))

    def to_dict(self) -> dict[str, Any]:
        """The skeleton as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Skeleton:
        """The skeleton from `to_dict`. Raises `KeyError` or `TypeError` for anything else."""
        blocks = tuple(_block(block) for block in content["blocks"])
        parts = tuple(SkeletonPart(**part) for part in content["parts"])
        return cls(content["params"], content["flops"], blocks, tuple(content["uncounted"]), parts)


def _block(content: Mapping[str, Any]) -> Block:
    sites = tuple(Site(**{**site, "kernel_size": tuple(site["kernel_size"])}) for site in content["sites"])
    return Block(**{**content, "sites": sites})
