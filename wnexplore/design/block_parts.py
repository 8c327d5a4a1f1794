"""The parts of a block and their counts."""

from __future__ import annotations

from typing import NamedTuple

from wnexplore.design.skeleton import Site


class Part(NamedTuple):
    """A layer, or a few related layers."""

    what: tuple[object, ...]
    """Its identity: parts at the same place of a network with equal ones are the same function."""
    params: int
    flops: int
    """Multiply-adds for one sample."""
    again: bool = False
    """Whether an earlier part has the same parameters, which count once."""


def ordinary(site: Site) -> Part:
    """A convolution without bias."""
    return Part(("plain",), site.weights, site.weights * site.pixels)


def generated(site: Site, weights: int, what: tuple[object, ...]) -> Part:
    """A generator without bias of `weights` weights, and the convolution with its kernels."""
    return Part(what, weights, weights + site.weights * site.pixels)


def linear(name: str, inputs: int, outputs: int) -> Part:
    """A linear layer with bias."""
    return Part((name, inputs, outputs), inputs * outputs + outputs, inputs * outputs)


def reduced(channels: int, reduction: int | None) -> int:
    """Features left of `channels`: max(16, channels // reduction)."""
    assert reduction is not None
    return max(16, channels // reduction)
