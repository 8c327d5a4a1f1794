"""The methods, which generate the kernels of a block or scale its output. Each one is declared here, once.

Whatever lists methods reads `METHODS`: the command line and sweep files, counts, builders, conversion, layer
tables and figures. A new method is its layer's file and an entry here. Nothing of torch is loaded: an entry
names its layer, and says in closed form what a block of it costs.

Source of the formulas: Ma et al., WeightNet, ECCV 2020, section 3 and table 1, and the papers named in the
layers' own files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from wnexplore.design.block_parts import Part, generated, linear, ordinary, reduced
from wnexplore.design.generator import layer_generator
from wnexplore.design.skeleton import Block

if TYPE_CHECKING:
    from wnexplore.design.stage_design import StageDesign

FORMULATIONS = ("published", "kernel", "shared", "fused")
"""The ways to compute a layer with generated kernels; one function, other costs."""

Kind = Literal["plain", "generated", "convolution", "gate"]
"""What a method adds to a block: nothing; convolutions with kernels generated from activation vectors, in any
of `FORMULATIONS`; other convolutions; a gate at the end of the main branch."""

LayerKind = Literal["generated convolution", "squeeze-and-excitation"]
"""The kind of a method's layer in figures of a network's layers."""


class Convolution(Protocol):
    """The attributes of a convolution that decide which layer replaces it."""

    @property
    def out_channels(self) -> int: ...
    @property
    def kernel_size(self) -> tuple[int, int]: ...
    @property
    def depthwise(self) -> bool: ...


def design_axes(design: StageDesign, conv: Convolution | None = None) -> dict[str, Any]:
    """The axes that the method of `design` reads, as arguments of its layer."""
    return {axis: getattr(design, axis) for axis in METHODS[design.method].axes if axis != "stages"}


@dataclass(frozen=True)
class MethodSpec:
    """One method, described without torch."""

    name: str
    kind: Kind
    axes: tuple[str, ...]
    """The axes of `wnexplore.design.axes` that it reads; all others are None in its design points."""
    count: Callable[[Block, StageDesign], Iterator[Part]]
    """The parts of a block under the method: its sites and additional layers."""
    summary: str
    """What it does to a block."""
    source: tuple[str, str] = ("", "")
    """Its paper and the URL."""
    layer: str = ""
    """The class of its layer, "module:class"; empty for plain."""
    arguments: Callable[[StageDesign, Convolution], Mapping[str, Any] | None] = design_axes
    """Arguments, besides sizes, of the layer that replaces a convolution; None: it stays ordinary."""
    shares_context: bool = False
    """Whether the layers of a block share one context, computed at the block's start."""
    layer_kind: LayerKind | None = None
    """The kind of its layer in layer tables and rooflines; None: they show the modules inside it."""
    label: str | None = None
    """Its label in figures, if not its name."""
    look: tuple[str, str] | None = None
    """Its colour and marker in figures; None: the next free ones."""

    @property
    def layer_class(self) -> str:
        """The name of its layer's class."""
        return self.layer.rpartition(":")[2]


def has_selective_kernel(kernel_size: tuple[int, int]) -> bool:
    """Whether `sk` replaces a convolution of this size: larger than 1x1, and odd, so that its paths agree."""
    high, wide = kernel_size
    return high * wide > 1 and high % 2 == wide % 2 == 1


def attention_span(channels: int) -> int:
    """The kernel size over channels: the odd number nearest log2(C)/2 + 1/2, at least 3.

    Source: Wang et al., ECA-Net, CVPR 2020, section 3.2.3, equation 12, with gamma = 2 and b = 1, by which
    it would be 1 below 8 channels.
    """
    # floor((log2(C) + 1) / 2), in whole numbers.
    return max(3, channels.bit_length() // 2 | 1)


def methods_with(axis: str) -> tuple[str, ...]:
    """The methods that read `axis`."""
    return tuple(name for name, method in METHODS.items() if axis in method.axes)


def _plain(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from map(ordinary, block.sites)


def _squeeze_excite(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from map(ordinary, block.sites)
    channels, hidden = block.gate_channels, reduced(block.gate_channels, design.reduction)
    yield linear("se", channels, hidden)
    yield linear("se", hidden, channels)


def _selective_kernel(block: Block, design: StageDesign) -> Iterator[Part]:
    for site in block.sites:
        if not has_selective_kernel(site.kernel_size):
            yield ordinary(site)
            continue
        hidden = reduced(site.out_channels, design.reduction)
        paths = Part(("sk",), 2 * site.weights + 4 * site.out_channels, 2 * site.weights * site.pixels)
        products = 3 * site.out_channels * hidden
        yield paths
        yield Part(("sk", hidden), products + 2 * hidden, products)


def _selective_arguments(design: StageDesign, conv: Convolution) -> Mapping[str, Any] | None:
    return design_axes(design) if has_selective_kernel(conv.kernel_size) else None


def _convolutional_block_attention(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from map(ordinary, block.sites)
    channels, hidden = block.gate_channels, reduced(block.gate_channels, design.reduction)
    # The same two products for the mean and for the maximum; a 7x7 convolution and its normalisation.
    yield Part(("cbam", hidden), 2 * channels * hidden, 4 * channels * hidden)
    yield Part(("cbam",), 2 * 49 + 2, 2 * 49 * block.gate_pixels)


def _global_context(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from map(ordinary, block.sites)
    channels, hidden = block.gate_channels, reduced(block.gate_channels, design.reduction)
    # The attention over the pixels, and the weighted sum.
    yield Part(("gc",), channels + 1, 2 * channels * block.gate_pixels)
    yield linear("gc", channels, hidden)
    yield Part(("gc norm", hidden), 2 * hidden, 0)
    yield linear("gc", hidden, channels)


def _efficient_channel_attention(block: Block, design: StageDesign) -> Iterator[Part]:
    yield from map(ordinary, block.sites)
    size = attention_span(block.gate_channels)
    yield Part(("eca", size), size, size * block.gate_channels)


def _condconv(block: Block, design: StageDesign) -> Iterator[Part]:
    experts = _given(design.experts)
    for site in block.sites:
        yield linear("routing", site.in_channels, experts)
        yield generated(site, experts * site.weights, ("condconv", experts))


def _dynamic(block: Block, design: StageDesign) -> Iterator[Part]:
    experts = _given(design.experts)
    for site in block.sites:
        hidden = reduced(site.in_channels, design.reduction)
        yield linear("attention", site.in_channels, hidden)
        yield linear("attention", hidden, experts)
        yield generated(site, experts * site.weights, ("dynamic", experts, design.temperature))


def _odconv(block: Block, design: StageDesign) -> Iterator[Part]:
    experts = _given(design.experts)
    for site in block.sites:
        hidden = reduced(site.in_channels, design.reduction)
        # Channels, filters, positions and experts; the last three only where there is more than one.
        attended = site.in_channels + (0 if site.depthwise else site.out_channels)
        taps = site.kernel_size[0] * site.kernel_size[1]
        attended += sum(size for size in (taps, experts) if size > 1)
        yield linear("odconv", site.in_channels, hidden)
        yield linear("odconv", hidden, attended)
        kernel = ("odconv", experts, design.temperature)
        # A single expert is not mixed.
        if experts > 1:
            yield generated(site, experts * site.weights, kernel)
        else:
            yield ordinary(site)._replace(what=kernel)


def _weightnet(block: Block, design: StageDesign) -> Iterator[Part]:
    generators = [layer_generator(site, design) for site in block.sites]
    features = reduced(block.context_channels, design.reduction)
    if any(generators):
        yield linear("context", block.context_channels, features)
    for site, generator in zip(block.sites, generators, strict=True):
        if generator is None:
            yield ordinary(site)
        else:
            yield linear("fc1", features, generator.inputs)
            made = ("weightnet", generator.inputs, generator.groups, design.activation)
            yield generated(site, generator.inputs_per_group * site.weights, made)


def _weightnet_arguments(design: StageDesign, conv: Convolution) -> Mapping[str, Any] | None:
    pair = design.pair(conv.out_channels, depthwise=conv.depthwise)
    if pair is None:
        return None
    return {"M": pair[0], "G": pair[1], "reduction": design.reduction, "activation": design.activation}


def _given(value: int | None) -> int:
    assert value is not None
    return value


_EVERY = (
    MethodSpec(
        "plain",
        "plain",
        (),
        _plain,
        summary="leaves the convolutions as they are",
        label="Plain",
        look=("#000000", "s"),
    ),
    MethodSpec(
        "se",
        "gate",
        ("stages", "reduction"),
        _squeeze_excite,
        summary="scales the channels at the end of each block",
        source=("Hu et al. 2018", "https://arxiv.org/abs/1709.01507"),
        layer="wnexplore.nn.squeeze_excite:SqueezeExcite",
        layer_kind="squeeze-and-excitation",
        label="SE",
        look=("#F2D74E", "D"),
    ),
    MethodSpec(
        "sk",
        "convolution",
        ("stages", "reduction"),
        _selective_kernel,
        summary="mixes two paths of different dilation in place of every k x k convolution",
        source=("Li et al. 2019", "https://arxiv.org/abs/1903.06586"),
        layer="wnexplore.nn.selective_kernel:SelectiveKernelConv2d",
        arguments=_selective_arguments,
    ),
    MethodSpec(
        "cbam",
        "gate",
        ("stages", "reduction"),
        _convolutional_block_attention,
        summary="scales channels, then pixels, at the end of each block",
        source=("Woo et al. 2018", "https://arxiv.org/abs/1807.06521"),
        layer="wnexplore.nn.cbam:ConvBlockAttention",
    ),
    MethodSpec(
        "gc",
        "gate",
        ("stages", "reduction"),
        _global_context,
        summary="adds a context gathered by attention over the pixels at the end of each block",
        source=("Cao et al. 2019", "https://arxiv.org/abs/1904.11492"),
        layer="wnexplore.nn.global_context:GlobalContext",
    ),
    MethodSpec(
        "eca",
        "gate",
        ("stages",),
        _efficient_channel_attention,
        summary="scales the channels by a 1-d convolution over them at the end of each block",
        source=("Wang et al. 2020", "https://arxiv.org/abs/1910.03151"),
        layer="wnexplore.nn.channel_attention:EfficientChannelAttention",
    ),
    MethodSpec(
        "condconv",
        "generated",
        ("stages", "experts"),
        _condconv,
        summary="mixes `experts` kernels by routing weights",
        source=("Yang et al. 2019", "https://arxiv.org/abs/1904.04971"),
        layer="wnexplore.nn.condconv:CondConv2d",
        layer_kind="generated convolution",
        label="CondConv",
        look=("#E8862E", "^"),
    ),
    MethodSpec(
        "dynamic",
        "generated",
        ("stages", "experts", "temperature", "reduction"),
        _dynamic,
        summary="mixes `experts` kernels by a softmax at `temperature`",
        source=("Chen et al. 2020", "https://arxiv.org/abs/1912.03458"),
        layer="wnexplore.nn.dynamic:DynamicConv2d",
        layer_kind="generated convolution",
    ),
    MethodSpec(
        "odconv",
        "convolution",
        ("stages", "experts", "temperature", "reduction"),
        _odconv,
        summary="mixes `experts` kernels and weighs their positions, input channels and filters",
        source=("Li et al. 2022", "https://openreview.net/forum?id=DmpCfq6Mg39"),
        layer="wnexplore.nn.odconv:ODConv2d",
        layer_kind="generated convolution",
        label="ODConv",
        look=("#CC79A7", "P"),
    ),
    MethodSpec(
        "weightnet",
        "generated",
        ("M", "G", "stages", "reduction", "activation", "depthwise"),
        _weightnet,
        summary="generates every kernel from the block's context",
        source=("Ma et al. 2020", "https://arxiv.org/abs/2007.11823"),
        layer="wnexplore.nn.weightnet:WeightNetConv2d",
        arguments=_weightnet_arguments,
        shares_context=True,
        layer_kind="generated convolution",
        label="WeightNet",
        look=("#0060A8", "o"),
    ),
)

METHODS: dict[str, MethodSpec] = {method.name: method for method in _EVERY}
"""Every method by its name, in the order in which they are listed."""
