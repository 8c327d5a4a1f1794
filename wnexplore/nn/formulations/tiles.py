"""Kernels made in tiles, small enough that no number of them is ever far from the processor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wnexplore.nn.formulations.layer_shape import LayerShape

TILE_BYTES = 2**23
"""Of kernels that exist at a time on a CPU."""
MOST_IMAGES = 16
"""Images of a tile: fewer make its products slow, and more of them smaller in what they add up."""
MOST_FILTERS = 512
"""Filters of a tile: with more of them, too, the images' columns are read fewer times."""
_LEAST_NUMBERS = 64
"""Of each filter: a product of fewer spends its time on its result."""
REGISTER = 16
"""Numbers that a register holds: a tile's filters and input channels or numbers are multiples of it."""
EXACT = (torch.float32, torch.float64)
"""The dtypes in which a sum may be written down and gone on with."""


@dataclass(frozen=True)
class Parts:
    """A kernel as parts of its filters, C_out·S of equal length, each of which one group makes.

    A group that makes several parts, such as CondConv's, which makes all filters, is read several times.
    """

    of_filter: int
    """S."""
    length: int
    """F/S, numbers of each."""
    of_group: int
    """Parts that a group makes."""


@dataclass(frozen=True)
class Tile:
    """Some consecutive numbers of one part of every filter."""

    part: int
    """Of each filter."""
    numbers: slice
    """Of the part."""
    columns: slice
    """The same of the filter: which rows of an image's columns (F, H_out·W_out) they multiply."""


def parts_of(layer: LayerShape) -> Parts:
    """The longest parts that are whole in each group and each filter."""
    length = math.gcd(layer.fan_in, layer.outputs_per_group)
    return Parts(layer.fan_in // length, length, layer.outputs_per_group // length)


def images_at_a_time(x: Tensor) -> int:
    """Images (N, ...) to a chunk, all chunks about equally large."""
    return x.shape[0] if x.device.type != "cpu" else chunk_size(x.shape[0], MOST_IMAGES)


def chunk_size(total: int, most: int) -> int:
    """Of `total` in chunks about equally large, none larger than `most`; at least 1."""
    return max(1, math.ceil(total / max(1, math.ceil(total / max(1, most)))))


def tiles_of(x: Tensor, layer: LayerShape, images: int) -> tuple[list[Tile], list[slice]]:
    """The tiles of the kernels of so many images, each to be made and applied for some filters at a time."""
    parts = parts_of(layer)
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    filters, numbers = layer.out_channels, parts.length
    if x.device.type == "cpu":
        filters = min(filters, MOST_FILTERS)
        if x.dtype in EXACT:
            fit = TILE_BYTES // (images * filters * x.element_size())
            numbers = min(numbers, max(_LEAST_NUMBERS, fit))
    # Of whole channels, where parts are.
    step = REGISTER * (taps if parts.length % taps == 0 else 1)
    tiles = [
        Tile(part, of_part, _moved(of_part, part * parts.length))
        for part in range(parts.of_filter)
        for of_part in pieces(parts.length, numbers, step)
    ]
    return tiles, pieces(layer.out_channels, filters, REGISTER)


def by_part(alpha: Tensor, weight: Tensor, layer: LayerShape) -> tuple[Tensor, Tensor]:
    """alpha (N, P·lambda) as (N, C_out, S, lambda), weight (C_out·F, lambda) as (C_out, S, F/S, lambda)."""
    parts, filters = parts_of(layer), layer.out_channels
    vectors = alpha.view(len(alpha), layer.generator_groups, -1)
    if parts.of_group > 1:
        vectors = vectors.unsqueeze(2).expand(-1, -1, parts.of_group, -1).flatten(1, 2)
    return (
        vectors.view(len(alpha), filters, parts.of_filter, -1),
        weight.view(filters, parts.of_filter, parts.length, -1),
    )


def make_tile(vectors: Tensor, weights: Tensor, tile: Tile, filters: slice, scratch: Scratch) -> Tensor:
    """(n, filters, numbers) of what `by_part` gives, in memory (filters, n, numbers)."""
    alpha = vectors[:, filters, tile.part].transpose(0, 1)
    rows = weights[filters, tile.part, tile.numbers].mT
    out = scratch.take(len(rows), alpha.shape[1], rows.shape[2])
    product = torch.mul if weights.shape[3] == 1 else torch.bmm
    return product(alpha, rows, out=out).transpose(0, 1)


def pieces(total: int, most: int, step: int) -> list[slice]:
    """0 to `total` in equal pieces up to the last, of about `most`, multiples of `step`."""
    size = math.ceil(total / math.ceil(total / most))
    size = min(total, math.ceil(size / step) * step)
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


class Scratch:
    """Memory that tile after tile is written to: new memory costs more than what is written to it."""

    def __init__(self, like: Tensor) -> None:
        self._memory = like.new_empty(0)

    def take(self, *shape: int) -> Tensor:
        """A tensor of `shape`, of any contents; what was taken before is overwritten."""
        numbers = math.prod(shape)
        if self._memory.numel() < numbers:
            self._memory = self._memory.new_empty(numbers)
        return self._memory[:numbers].view(shape)


def _moved(by_part: slice, start: int) -> slice:
    return slice(start + by_part.start, start + by_part.stop)
