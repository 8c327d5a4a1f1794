"""Which formulation a layer runs in, from a cost model, never from timing it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from wnexplore.nn.formulations.feature_space import as_matrices, as_one_product
from wnexplore.nn.formulations.fused import DTYPES, fuses, is_available
from wnexplore.nn.formulations.im2col import MAX_COLUMNS
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.single_image import MAX_WINDOWS, SINGLE_NUMBERS, windows_of


def choose(
    layer: LayerShape,
    batch: int,
    height: int,
    width: int,
    training: bool,
    device: str,
    dtype: torch.dtype = torch.float32,
) -> str:
    """The name of the formulation that costs least for images (batch, C_in, height, width).

    `training`: whether a backward pass follows.
    """
    rows, columns = layer.output_size(height, width)
    pixels = rows * columns
    if device != "cpu":
        return _on_gpu(layer, pixels, training, device, dtype)
    known = without_costs(layer, batch, height, width, training)
    if known is not None:
        return known
    costs = costs_of(layer, batch, pixels, training)
    return min(costs, key=lambda name: costs[name])


def without_costs(layer: LayerShape, batch: int, height: int, width: int, training: bool) -> str | None:
    """The formulation that a CPU takes whatever it costs; None where the costs decide."""
    if layer.slices is None:
        return "kernel"
    if as_matrices(layer, batch, height, width, training):
        # As many multiply-adds as the kernel formulation, without making a kernel.
        return "shared"
    rows, columns = layer.output_size(height, width)
    if training and _kept_by_shared(layer, rows * columns) > layer.weights:
        # The published formulation keeps the kernels: never keep more than that.
        return "kernel"
    return "shared" if as_one_product(layer, batch, height, width, "cpu") else None


def choose_compiled(layer: LayerShape) -> str:
    """As `choose` under torch.compile and torch.export, where the batch size must not matter."""
    if layer.slices is None:
        return "kernel"
    return "shared" if layer.slices * layer.inputs_per_group == 1 or layer.groups > 1 else "kernel"


# Not measured on GPUs yet: the choice launches at most as many operators as the published formulation.
_FUSED_READS = 1.0
"""Image elements that cost as much as writing and reading one kernel element. Not measured."""


def _on_gpu(layer: LayerShape, pixels: int, training: bool, device: str, dtype: torch.dtype) -> str:
    if layer.slices is not None and layer.slices * layer.inputs_per_group == 1:
        # One convolution for all images, and a scale.
        return "shared"
    if device == "cuda" and fuses(layer) and dtype in DTYPES and is_available():
        # It saves writing and reading kernels, which pays where these are larger than the images.
        images = (layer.in_channels + layer.out_channels) * pixels
        if layer.weights > _FUSED_READS * images:
            return "fused"
    # A batched product has one gradient operator more than a grouped convolution, and no stride.
    return "kernel" if layer.pointwise and layer.stride == (1, 1) and not training else "published"


@dataclass(frozen=True)
class Costs:
    """What operators cost in milliseconds, of which only the ratios matter."""

    call: float
    """Per operator."""
    product: float
    """Per multiply-add in a large matrix product."""
    convolution: float
    """Per multiply-add in a large convolution."""
    begun: float
    """Per convolution, beyond a call: it prepares its kernels and its images' layout."""
    made: float
    """Per kernel element written and read."""
    term: float
    """Per multiply-add that makes a kernel element."""
    moved: float
    """Per element read and written back."""
    folded: float
    """Per image element where images are folded into groups."""
    stacked: float
    """Per weight reordered, in large buffers that are cleared for each call."""
    channel: float
    """Per channel and image of a convolution in groups."""


INFERENCE = Costs(
    call=0.065,
    product=1.31e-8,
    convolution=9.01e-9,
    begun=0.214,
    made=5.26e-7,
    term=5.12e-10,
    moved=5.14e-7,
    folded=9.73e-7,
    stacked=4.93e-7,
    channel=1.24e-8,
)
"""Fitted to the regret of choices on two cores of an Intel Xeon (tests.benchmarks.cost_model)."""
TRAINING = Costs(
    call=0.166,
    product=5.59e-8,
    convolution=3.41e-8,
    begun=0.913,
    made=1.06e-6,
    term=4.66e-7,
    moved=1.51e-6,
    folded=3.72e-6,
    stacked=1.6e-6,
    channel=1.56e-4,
)
"""Of forward and backward, likewise."""


def costs_of(
    layer: LayerShape, batch: int, pixels: int, training: bool, costs: Costs | None = None
) -> dict[str, float]:
    """The cost of each formulation on a CPU for images that leave `pixels` pixels each."""
    costs = costs or (TRAINING if training else INFERENCE)
    return {
        "kernel": _kernel_ms(layer, batch, pixels, training, costs),
        "shared": _shared_ms(layer, batch, pixels, costs),
    }


def _kernel_ms(layer: LayerShape, batch: int, pixels: int, training: bool, costs: Costs) -> float:
    single = batch == 1 and layer.weights < SINGLE_NUMBERS and not training
    calls = (3 if single else 4) * costs.call
    made = batch * layer.weights * (costs.made + layer.inputs_per_group * costs.term)
    applied = batch * layer.weights * pixels
    if layer.groups == 1 and (layer.pointwise or pixels <= MAX_COLUMNS):
        columns = 0 if layer.pointwise else batch * layer.fan_in * pixels
        return calls + made + applied * costs.product + columns * costs.moved
    if single and layer.depthwise and (windows := _of_windows(layer, pixels)) <= MAX_WINDOWS:
        # Copied row by row, and no convolution.
        return calls + 2 * costs.call + made + applied * costs.product + windows * costs.moved / 4
    applied_ms = costs.begun + applied * costs.convolution
    reordered = _reordered(layer, batch, pixels)
    if single:
        return calls + made + applied_ms + reordered * costs.moved
    # Each image's kernel is also reordered for the convolution.
    made += batch * layer.weights * costs.stacked
    return calls + made + applied_ms + reordered * costs.folded


def _of_windows(layer: LayerShape, pixels: int) -> int:
    """What `windows_of` says of about square images."""
    rows = max(1, math.isqrt(pixels))
    return windows_of(layer, rows, pixels // rows)


def _shared_ms(layer: LayerShape, batch: int, pixels: int, costs: Costs) -> float:
    terms = (layer.slices or 1) * layer.inputs_per_group
    applied = batch * layer.weights * pixels * layer.inputs_per_group
    outputs = batch * layer.out_channels * pixels
    stacked = 0 if terms == 1 else layer.weights * layer.inputs_per_group
    moved = 2 * outputs * terms + _reordered(layer, batch, pixels)
    calls = (1 + 2 * terms) * costs.call + costs.begun
    if layer.groups > 1:
        calls += batch * layer.out_channels * costs.channel
    return calls + applied * costs.convolution + moved * costs.moved + stacked * costs.stacked


def _reordered(layer: LayerShape, batch: int, pixels: int) -> int:
    """Elements that a convolution reorders: most of its time where it has few channels."""
    return batch * (layer.in_channels + layer.out_channels) * pixels


def _kept_by_shared(layer: LayerShape, pixels: int) -> int:
    """Elements per image that backward needs in addition to the layer's input."""
    return (layer.slices or 1) * layer.inputs_per_group * layer.out_channels * pixels
