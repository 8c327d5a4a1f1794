"""The methods: what makes the kernels of a block or scales its end, and which axes each one reads."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

Axis = Literal["M", "G", "stages", "experts", "temperature", "reduction", "activation", "depthwise"]

METHODS: dict[str, tuple[Axis, ...]] = {
    "plain": (),
    "se": ("stages", "reduction"),
    "sk": ("stages", "reduction"),
    "cbam": ("stages", "reduction"),
    "gc": ("stages", "reduction"),
    "eca": ("stages",),
    "condconv": ("stages", "experts"),
    "dynamic": ("stages", "experts", "temperature", "reduction"),
    "weightnet": ("M", "G", "stages", "reduction", "activation", "depthwise"),
}
"""Method -> the axes that change its network; every other axis is left empty in its design points."""

DEFAULTS: dict[str, Any] = {
    "M": Fraction(2),
    "G": Fraction(2),
    "experts": 4,
    "temperature": 30,
    "reduction": 16,
    "activation": "sigmoid",
    "depthwise": "published",
}
"""What an axis is where it is left out."""

ACTIVATIONS = ("sigmoid", "hard_sigmoid", "tanh", "softmax", "identity")
"""What may follow fc1: sigmoid is published; softmax runs over the lambda inputs of one group."""

DEPTHWISE = ("published", "plain", "full")
"""What a depthwise convolution gets: (M/G, 1) as in the published code, no generator, or (M, G) itself."""


def has_selective_kernel(kernel_size: tuple[int, int]) -> bool:
    """Whether `sk` replaces a convolution of this size: larger than 1x1, and odd, so that its paths agree."""
    high, wide = kernel_size
    return high * wide > 1 and high % 2 == wide % 2 == 1


def attention_span(channels: int) -> int:
    """Neighbouring channels that decide on one: the odd number nearest log2(C)/2 + 1/2, 3 at least.

    Source: Wang et al., ECA-Net, CVPR 2020, section 3.2.3, equation 12, with gamma = 2 and b = 1, by which
    it would be 1 below 8 channels.
    """
    # floor((log2(C) + 1) / 2), in whole numbers.
    return max(3, channels.bit_length() // 2 | 1)


FORMULATIONS = ("published", "kernel", "shared", "fused")
"""The ways to compute a layer with generated kernels; one function, other costs."""
