"""What a block consists of, part by part, and what each part costs."""

from __future__ import annotations

from typing import NamedTuple

from wnexplore.design.skeleton import Site


class Part(NamedTuple):
    """A layer, or a few that belong together."""

    what: tuple[object, ...]
    """What it is made with: in the same place of a network, parts with equal ones are the same function."""
    params: int
    flops: int
    """Multiply-adds for one sample."""


def ordinary(site: Site) -> Part:
    """A convolution without bias."""
    return Part(("plain",), site.weights, site.weights * site.pixels)


def generated(site: Site, weights: int, what: tuple[object, ...]) -> Part:
    """A generator without bias of `weights` weights, and the convolution with what it makes."""
    return Part(what, weights, weights + site.weights * site.pixels)


def linear(name: str, inputs: int, outputs: int) -> Part:
    """A linear layer with bias."""
    return Part((name, inputs, outputs), inputs * outputs + outputs, inputs * outputs)


def reduced(channels: int, reduction: int | None) -> int:
    """Features left of `channels`: max(16, channels // reduction)."""
    assert reduction is not None
    return max(16, channels // reduction)
