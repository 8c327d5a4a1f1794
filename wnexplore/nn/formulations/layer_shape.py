"""The shape of a layer with generated kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Size2d = int | tuple[int, int]
"""Height and width; one number stands for both."""


def pair(size: Size2d) -> tuple[int, int]:
    """`size` as (height, width)."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, eq=False)
class LayerShape:
    """A convolution and the grouped fully-connected layer that makes its kernels.

    Compared by identity, so that it is a fast key of caches.

    Source of the letters: Ma et al., ECCV 2020, section 3. F = C_in/g · kh · kw is the length of a
    filter, P the number of groups of the generator, lambda its inputs per group.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    """g, of the convolution."""
    generator_groups: int
    """P; divides C_out·F."""
    inputs_per_group: int
    """lambda."""

    kernel_shape: tuple[int, int, int, int] = field(init=False)
    """Shape of one image's kernel, (C_out, C_in/g, kh, kw)."""
    fan_in: int = field(init=False)
    """F."""
    weights: int = field(init=False)
    """C_out·F, the elements of one image's kernel."""
    outputs_per_group: int = field(init=False)
    """L = C_out·F/P, the kernel elements that one group of the generator makes."""
    slices: int | None = field(init=False)
    """Slices of a filter with one group each, if these are complete input channels; None otherwise.

    G where the paper's G is whole and divides C_in/g; 1 also where a group makes several filters.
    """
    pointwise: bool = field(init=False)
    """Whether each output pixel is a matrix times one input pixel."""
    depthwise: bool = field(init=False)
    """Whether each channel is convolved separately."""

    def __post_init__(self) -> None:
        # Attributes rather than properties: small layers at batch 1 are bound by Python.
        per_group, (high, wide) = self.in_channels // self.groups, self.kernel_size
        found = {
            "kernel_shape": (self.out_channels, per_group, high, wide),
            "fan_in": per_group * high * wide,
            "weights": self.out_channels * per_group * high * wide,
            "outputs_per_group": self.out_channels * per_group * high * wide // self.generator_groups,
            "slices": _slices(self.generator_groups, self.out_channels, per_group),
            "pointwise": self.kernel_size == (1, 1) and self.padding == (0, 0) and self.groups == 1,
            "depthwise": self.groups == self.in_channels == self.out_channels,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(H_out, W_out) for images of (height, width)."""
        return _output(height, self, 0), _output(width, self, 1)


Formulation = Callable[[Tensor, Tensor, Tensor, LayerShape, Tensor | None], Tensor]
"""x (N, C_in, H, W), alpha (N, P·lambda), weight (C_out·F, lambda), the layer -> (N, C_out, H_out, W_out).

The last argument, if not None, is a shift (C_out,) added to the output.
"""


def _output(size: int, layer: LayerShape, axis: int) -> int:
    reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
    return (size + 2 * layer.padding[axis] - reach - 1) // layer.stride[axis] + 1


def _slices(generator_groups: int, out_channels: int, channels: int) -> int | None:
    if out_channels % generator_groups == 0:
        return 1
    parts, rest = divmod(generator_groups, out_channels)
    return parts if rest == 0 and channels % parts == 0 else None
