"""Kernels as matrices times columns, tile by tile, so that no kernel is ever far from the processor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wnexplore.nn.formulations.columns import columns_of, image_of
from wnexplore.nn.formulations.generate import generate_by_group, generate_kernels
from wnexplore.nn.formulations.shape import LayerShape

CHUNK_BYTES = 2**24
"""Of kernels that exist at a time on a CPU: still in a cache when they are applied."""
SINGLE_BYTES = 2**21
"""The same for one image: memory of this size is used again and again, larger pieces are cleared anew."""
FEW_IMAGES = 8
"""Fewer images to a group's product than this make it slow."""


class Product(torch.autograd.Function):
    """x (N, C_in, H, W), alpha, weight -> (N, C_out, H_out, W_out), of convolutions without groups.

    Backward makes kernels and columns anew: what is kept for it is what came in, and not the kernels,
    which are many times as large.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, weight)
        ctx.layer = layer
        images, tiles = _tiles(x, layer)
        scratch = _Scratch(x)
        channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        parts = [
            _forward(own, own_alpha, weight, shift, tiles, layer, channels_last, scratch)
            for own, own_alpha in zip(x.split(images), alpha.split(images), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, weight = ctx.saved_tensors
        layer: LayerShape = ctx.layer
        needs_x, needs_alpha, needs_weight, _, needs_shift = ctx.needs_input_grad
        images, tiles = _tiles(x, layer)
        made, sent, turned = _Scratch(x), _Scratch(x), _Scratch(x)
        grad_x, grad_alpha = [], torch.empty_like(alpha) if needs_alpha else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        for start in range(0, x.shape[0], images):
            part = slice(start, start + images)
            grad = grads[0][part].flatten(2)
            if needs_x:
                columns = _send_to_columns(grad, alpha[part], weight, tiles, made)
                grad_x.append(image_of(columns, x[part], layer))
            if needs_alpha or needs_weight:
                columns = columns_of(x[part], layer)
                for tile in tiles:
                    # (P, n, L): each group's numbers of every image's kernel.
                    room = sent.take(len(grad), _filters(tile), layer.fan_in)
                    of_kernels = torch.bmm(grad[:, tile.filters], columns.mT, out=room)
                    of_groups = of_kernels.view(len(grad), tile.count, -1).transpose(0, 1)
                    if grad_alpha is not None:
                        by_group = weight[tile.rows].unflatten(0, (tile.count, -1))
                        grad_alpha[part, tile.inputs] = (
                            torch.bmm(of_groups, by_group).transpose(0, 1).flatten(1)
                        )
                    if grad_weight is not None:
                        inputs = alpha[part, tile.inputs].unflatten(1, (tile.count, -1)).permute(1, 2, 0)
                        own = grad_weight[tile.rows].unflatten(0, (tile.count, -1))
                        if len(x) == 1:
                            torch.mul(of_groups.mT, inputs.mT, out=own)
                            continue
                        products = turned.take(tile.count, layer.inputs_per_group, layer.outputs_per_group)
                        torch.bmm(inputs, of_groups, out=products)
                        if start == 0:
                            own.copy_(products.mT)
                        else:
                            own.add_(products.mT)
        return (
            torch.cat(grad_x) if needs_x else None,
            grad_alpha,
            grad_weight,
            None,
            grads[0].sum((0, 2, 3)) if needs_shift else None,
        )


def multiply(a: Tensor, b: Tensor, shift: Tensor | None) -> Tensor:
    """Batched matrices a (N, I, K) times b (N, K, J), plus a shift (I, 1) or (J,)."""
    return torch.bmm(a, b) if shift is None else torch.baddbmm(shift, a, b)


@dataclass(frozen=True)
class _Tile:
    """Some filters, and what makes them."""

    filters: slice
    groups: slice
    """Of the generator."""
    inputs: slice
    """Of alpha."""
    rows: slice
    """Of weight."""
    count: int
    """Groups."""
    slices: int
    """Groups to a filter; 0 where a group makes several filters or parts that end anywhere."""


def _tiles(x: Tensor, layer: LayerShape) -> tuple[int, list[_Tile]]:
    """Images to a chunk, and the tiles of a kernel, such that what is made at a time fits a cache."""
    slices, rest = divmod(layer.generator_groups, layer.out_channels)
    of_filter = layer.fan_in * x.element_size()
    if x.device.type == "cpu":
        most = CHUNK_BYTES if x.shape[0] > 1 else min(CHUNK_BYTES, SINGLE_BYTES)
    else:
        most = x.shape[0] * layer.weights * x.element_size()
    images = max(1, min(x.shape[0], FEW_IMAGES), most // (of_filter * layer.out_channels))
    filters = layer.out_channels
    if slices > 0 and rest == 0 and layer.slices is not None:
        filters = min(filters, max(16, most // (of_filter * images) // 16 * 16))
    else:
        slices, images = 0, max(1, most // (of_filter * layer.out_channels))
    return images, [_tile(start, filters, slices, layer) for start in range(0, layer.out_channels, filters)]


def _tile(start: int, filters: int, slices: int, layer: LayerShape) -> _Tile:
    stop = min(start + filters, layer.out_channels)
    groups = slice(start * slices, stop * slices) if slices else slice(0, layer.generator_groups)
    terms = layer.inputs_per_group
    return _Tile(
        filters=slice(start, stop),
        groups=groups,
        inputs=slice(groups.start * terms, groups.stop * terms),
        rows=slice(start * layer.fan_in, stop * layer.fan_in),
        count=groups.stop - groups.start,
        slices=slices,
    )


def _forward(
    x: Tensor,
    alpha: Tensor,
    weight: Tensor,
    shift: Tensor | None,
    tiles: list[_Tile],
    layer: LayerShape,
    channels_last: bool,
    scratch: _Scratch,
) -> Tensor:
    columns = columns_of(x, layer)
    height, width = layer.output_size(*x.shape[2:])
    shifts = [None if shift is None else shift[tile.filters] for tile in tiles]
    if channels_last:
        parts = [
            multiply(columns.mT, _matrices(alpha, weight, tile, scratch).mT, own)
            for tile, own in zip(tiles, shifts, strict=True)
        ]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        return y.view(-1, height, width, layer.out_channels).permute(0, 3, 1, 2)
    parts = [
        _multiply(alpha, weight, None if own is None else own.view(-1, 1), tile, columns, scratch)
        for tile, own in zip(tiles, shifts, strict=True)
    ]
    y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return y.view(-1, layer.out_channels, height, width)


def _multiply(
    alpha: Tensor, weight: Tensor, shift: Tensor | None, tile: _Tile, columns: Tensor, scratch: _Scratch
) -> Tensor:
    """(n, filters, H_out·W_out)."""
    if not _by_slice(alpha, weight, tile):
        return multiply(_matrices(alpha, weight, tile, scratch), columns, shift)
    matrices = _by_slices(alpha, weight, tile, scratch)
    own = columns.chunk(tile.slices, 1)
    y = multiply(matrices[0], own[0], shift)
    for matrix, part in zip(matrices[1:], own[1:], strict=True):
        y.baddbmm_(matrix, part)
    return y


def _send_to_columns(
    grad: Tensor, alpha: Tensor, weight: Tensor, tiles: list[_Tile], scratch: _Scratch
) -> Tensor:
    """The gradient of the columns: each tile's matrices, transposed, times its filters' gradient."""
    columns: list[Tensor] = []
    # The last tile may be smaller: what is added up must be in the same pieces.
    by_slice = _by_slice(alpha, weight, tiles[0])
    for tile in tiles:
        matrices = (
            _by_slices(alpha, weight, tile, scratch)
            if by_slice
            else [_matrices(alpha, weight, tile, scratch)]
        )
        own = grad[:, tile.filters]
        if not columns:
            columns = [torch.bmm(matrix.mT, own) for matrix in matrices]
        else:
            for column, matrix in zip(columns, matrices, strict=True):
                column.baddbmm_(matrix.mT, own)
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def _by_slice(alpha: Tensor, weight: Tensor, tile: _Tile) -> bool:
    """Whether a kernel is better left in its slices than put together by a copy."""
    several = tile.slices > 1 and weight.shape[1] > 1
    return several and alpha.shape[0] * (tile.rows.stop - tile.rows.start) >= _WORTH_SLICING


_WORTH_SLICING = 2**18
"""Numbers of kernels from which one product a slice costs less than a copy and one product."""


def _matrices(alpha: Tensor, weight: Tensor, tile: _Tile, scratch: _Scratch) -> Tensor:
    """(n, filters, F)."""
    own, rows, terms = alpha[:, tile.inputs], weight[tile.rows], weight.shape[1]
    shape = (tile.count, len(rows) // tile.count)
    if tile.slices == 1 and terms > 1:
        out = scratch.take(shape[0], len(alpha), shape[1])
        return generate_by_group(own, rows, tile.count, out).transpose(0, 1)
    room = scratch.take(len(alpha), *shape) if terms == 1 else None
    return generate_kernels(own, rows, tile.count, room).reshape(len(alpha), _filters(tile), -1)


def _by_slices(alpha: Tensor, weight: Tensor, tile: _Tile, scratch: _Scratch) -> list[Tensor]:
    """One (n, filters, F/G) for each slice of the input channels."""
    rows = weight[tile.rows]
    out = scratch.take(tile.count, len(alpha), len(rows) // tile.count)
    made = generate_by_group(alpha[:, tile.inputs], rows, tile.count, out)
    by_slice = made.unflatten(0, (-1, tile.slices)).unbind(1)
    return [matrices.transpose(0, 1) for matrices in by_slice]


def _filters(tile: _Tile) -> int:
    count: int = tile.filters.stop - tile.filters.start
    return count


class _Scratch:
    """Memory that tile after tile is written to: new memory costs more than what is written to it."""

    def __init__(self, like: Tensor) -> None:
        self._memory = like.new_empty(0)

    def take(self, *shape: int) -> Tensor:
        """A tensor of `shape`, of any contents; what was taken before is overwritten."""
        numbers = math.prod(shape)
        if self._memory.numel() < numbers:
            self._memory = self._memory.new_empty(numbers)
        return self._memory[:numbers].view(shape)
