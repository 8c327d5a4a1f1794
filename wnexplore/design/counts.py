"""Parameters and FLOPs of a design point in closed form; nothing is built.

Source of the formulas: Ma et al., WeightNet, ECCV 2020, section 3 and table 1, and the papers named in the
layers' own files; the conventions are those of the `flops` column: multiply-adds of convolutions, linear
layers and matrix products for one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from wnexplore.design.legality import layer_generator
from wnexplore.design.methods import attention_span, has_selective_kernel
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Block, Site, Walk
from wnexplore.design.stage_design import PLAIN, StageDesign, stage_design


class Counts(NamedTuple):
    """What a part of a network, or a whole one, costs."""

    params: int
    flops: int
    """Multiply-adds for one image."""


class Part(NamedTuple):
    """A layer, or a few that belong together."""

    what: tuple[object, ...]
    """What it is made with: in the same place of a network, parts with equal ones are the same function."""
    params: int
    flops: int


def count(point: DesignPoint, walk: Walk) -> Counts:
    """The counts of `point`, of whose plain network `walk` is the walk at the point's resolution.

    Raises `IllegalPointError` for an (M, G) that some layer can't have.
    """
    return total(
        [
            Part((), walk.params, walk.flops),
            *(part for block in walk.blocks for part in parts(block, stage_design(point, block.stage))),
        ]
    )


def function_of(point: DesignPoint, walk: Walk) -> tuple[object, ...]:
    """What the network of `point` is made of, block by block: points of one plain network with equal ones
    are one function. Raises `IllegalPointError` as `count` does.
    """
    return tuple(
        part.what for block in walk.blocks for part in parts(block, stage_design(point, block.stage))
    )


def parts(block: Block, design: StageDesign) -> Iterator[Part]:
    """The sites of a block as `design` makes them, and what it puts beside them."""
    for part in _METHODS[design.method](block, design):
        yield part._replace(flops=part.flops * block.samples)


def total(parts: list[Part]) -> Counts:
    """The counts of `parts` together."""
    return Counts(sum(part.params for part in parts), sum(part.flops for part in parts))


def _plain(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from map(_ordinary, block.sites)


def _squeeze_excite(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from _plain(block, design)
    channels, hidden = block.gate_channels, _reduced(block.gate_channels, design)
    yield _linear("se", channels, hidden)
    yield _linear("se", hidden, channels)


def _efficient_channel_attention(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from _plain(block, design)
    size = attention_span(block.gate_channels)
    yield Part(("eca", size), size, size * block.gate_channels)


def _convolutional_block_attention(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from _plain(block, design)
    channels, hidden = block.gate_channels, _reduced(block.gate_channels, design)
    # The same two products for the mean and for the maximum; a 7x7 convolution and its normalisation.
    yield Part(("cbam", hidden), 2 * channels * hidden, 4 * channels * hidden)
    yield Part(("cbam",), 2 * 49 + 2, 2 * 49 * block.gate_pixels)


def _global_context(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from _plain(block, design)
    channels, hidden = block.gate_channels, _reduced(block.gate_channels, design)
    # The attention over the pixels, and the sum that it weighs.
    yield Part(("gc",), channels + 1, 2 * channels * block.gate_pixels)
    yield _linear("gc", channels, hidden)
    yield Part(("gc norm", hidden), 2 * hidden, 0)
    yield _linear("gc", hidden, channels)


def _selective_kernel(block: Block, design: StageDesign) -> Iterator[Part]:
    for site in block.sites:
        if not has_selective_kernel(site.kernel_size):
            yield _ordinary(site)
            continue
        hidden = _reduced(site.out_channels, design)
        paths = Part(("sk",), 2 * site.weights + 4 * site.out_channels, 2 * site.weights * site.pixels)
        products = 3 * site.out_channels * hidden
        yield paths
        yield Part(("sk", hidden), products + 2 * hidden, products)


def _condconv(block: Block, design: StageDesign) -> Iterator[Part]:
    experts = _given(design.experts)
    for site in block.sites:
        yield _linear("routing", site.in_channels, experts)
        yield _generated(site, experts * site.weights, ("condconv", experts))


def _dynamic(block: Block, design: StageDesign) -> Iterator[Part]:
    experts = _given(design.experts)
    for site in block.sites:
        hidden = _reduced(site.in_channels, design)
        yield _linear("attention", site.in_channels, hidden)
        yield _linear("attention", hidden, experts)
        yield _generated(site, experts * site.weights, ("dynamic", experts, design.temperature))


def _weightnet(block: Block, design: StageDesign) -> Iterator[Part]:
    generators = [layer_generator(site, design) for site in block.sites]
    features = _reduced(block.context_channels, design)
    if any(generators):
        yield _linear("context", block.context_channels, features)
    for site, generator in zip(block.sites, generators, strict=True):
        if generator is None:
            yield _ordinary(site)
        else:
            yield _linear("fc1", features, generator.inputs)
            made = ("weightnet", generator.inputs, generator.groups, design.activation)
            yield _generated(site, generator.inputs_per_group * site.weights, made)


_METHODS: dict[str, Callable[[Block, StageDesign], Iterator[Part]]] = {
    "plain": _plain,
    "se": _squeeze_excite,
    "sk": _selective_kernel,
    "cbam": _convolutional_block_attention,
    "gc": _global_context,
    "eca": _efficient_channel_attention,
    "condconv": _condconv,
    "dynamic": _dynamic,
    "weightnet": _weightnet,
}


def _ordinary(site: Site) -> Part:
    return Part((PLAIN.method,), site.weights, site.weights * site.pixels)


def _generated(site: Site, weights: int, what: tuple[object, ...]) -> Part:
    """A generator without bias of `weights` weights, and the convolution with what it makes."""
    return Part(what, weights, weights + site.weights * site.pixels)


def _linear(name: str, inputs: int, outputs: int) -> Part:
    return Part((name, inputs, outputs), inputs * outputs + outputs, inputs * outputs)


def _reduced(channels: int, design: StageDesign) -> int:
    reduction: int = _given(design.reduction)
    return max(16, channels // reduction)


def _given(value: Any) -> Any:
    assert value is not None
    return value
