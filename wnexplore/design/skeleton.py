"""What a network is made of at one resolution, as far as counting needs to know; pure Python.

A walk of the plain network says it once: every convolution that a method may replace, block by block, and
the counts of all the rest. What any method makes of it follows without building anything.
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
        """C_out·F, the numbers in one image's kernel."""
        return self.out_channels * self.fan_in

    @property
    def depthwise(self) -> bool:
        """Whether each channel has a filter of its own."""
        return self.groups == self.in_channels == self.out_channels


@dataclass(frozen=True)
class Block:
    """The sites that share one context."""

    name: str
    stage: int
    """Counted from 1, in the order of the network."""
    context_channels: int
    """Channels that the context pools."""
    gate_channels: int
    """Channels at the end of the main branch, which a gate scales."""
    gate_pixels: int
    """H·W there."""
    sites: tuple[Site, ...]
    samples: int = 1
    """Images to its layers that one image is: more than one where heads or frames are part of the batch."""


@dataclass(frozen=True)
class Skeleton:
    """A plain network for images of one size."""

    params: int
    """Of all but the sites: what no method changes."""
    flops: int
    """Multiply-adds of all but the sites, for one image."""
    blocks: tuple[Block, ...]
    uncounted: tuple[str, ...] = ()
    """Operators that may multiply matrices and are in no count."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that have sites, in order."""
        return tuple(dict.fromkeys(block.stage for block in self.blocks))

    def to_dict(self) -> dict[str, Any]:
        """The walk as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Skeleton:
        """The walk that `to_dict` described. Raises `KeyError` or `TypeError` for anything else."""
        blocks = tuple(_block(block) for block in content["blocks"])
        return cls(content["params"], content["flops"], blocks, tuple(content["uncounted"]))


def _block(content: Mapping[str, Any]) -> Block:
    sites = tuple(Site(**{**site, "kernel_size": tuple(site["kernel_size"])}) for site in content["sites"])
    return Block(**{**content, "sites": sites})
