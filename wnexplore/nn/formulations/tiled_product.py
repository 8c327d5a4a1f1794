"""Kernels as matrices times columns, tile by tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wnexplore.nn.formulations.im2col import ImageGradients, columns_of_tile
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.tiles import (
    Scratch,
    Tile,
    by_part,
    images_at_a_time,
    make_tile,
    parts_of,
    tiles_of,
)

_SHORT = 4
"""Elements of a product's row below which all products are about equally slow."""

_SMALL_PRODUCT = 2**18
"""Multiply-adds of an image's product up to which a CPU takes the products of all images in one call."""


class Product(torch.autograd.Function):
    """x (N, C_in, H, W), alpha, weight -> (N, C_out, H_out, W_out), of convolutions without groups.

    Backward recomputes kernels and columns: only the inputs are saved, not the kernels, which are many times
    as large.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, weight)
        ctx.layer = layer
        height, width = layer.output_size(*x.shape[2:])
        channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        # No view: the next layer may work in place.
        result = torch.empty(
            (len(x), layer.out_channels, height, width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        # (N, C_out, H_out·W_out), in memory as the image is.
        y = result.permute(0, 2, 3, 1).flatten(1, 2).mT if channels_last else result.flatten(2)
        images, scratch = images_at_a_time(x, layer), Scratch(x)
        tiles, blocks = tiles_of(x, layer, images)
        vectors, weights = by_part(alpha, weight, layer)
        for start in range(0, len(x), images):
            part = slice(start, start + images)
            for tile in tiles:
                columns = columns_of_tile(x[part], tile, layer)
                for filters in blocks:
                    kernels = make_tile(vectors[part], weights, tile, filters, scratch)
                    begin = None if shift is None else shift[filters].view(-1, 1)
                    _multiply(kernels, columns, y[part, filters], begin, anew=tile.columns.start == 0)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, weight = ctx.saved_tensors
        layer: LayerShape = ctx.layer
        needs_x, needs_alpha, needs_weight, _, needs_shift = ctx.needs_input_grad
        images, scratch = images_at_a_time(x, layer), Scratch(x)
        tiles, blocks = tiles_of(x, layer, images)
        vectors, weights = by_part(alpha, weight, layer)
        generator = _GeneratorGradients(vectors, weights, needs_alpha, needs_weight)
        grad_x = torch.empty_like(x) if needs_x else None
        gradients = ImageGradients(x, layer)
        for start in range(0, len(x), images):
            part = slice(start, start + images)
            grad = grads[0][part].flatten(2)
            if grad_x is not None:
                gradients.begin(grad_x[part])
            for tile in tiles:
                if needs_alpha or needs_weight:
                    columns = columns_of_tile(x[part], tile, layer)
                    for filters in blocks:
                        generator.add(part, tile, filters, grad[:, filters], columns)
                if grad_x is None:
                    continue
                sent = gradients.room(tile)
                for filters in blocks:
                    kernels = make_tile(vectors[part], weights, tile, filters, scratch)
                    _send(kernels, grad[:, filters], sent, anew=filters.start == 0)
                gradients.add(tile)
            if grad_x is not None:
                gradients.finish()
        return (
            grad_x,
            None if generator.alpha is None else _of_groups(generator.alpha, layer),
            None if generator.weight is None else generator.weight.view(weight.shape),
            None,
            grads[0].sum((0, 2, 3)) if needs_shift else None,
        )


def _multiply(a: Tensor, b: Tensor, to: Tensor, begin: Tensor | None = None, anew: bool = True) -> None:
    """Write a (n, I, K) times b (n, K, J), plus `begin` (I, 1), to `to` (n, I, J), or add it to it.

    On a CPU large products one image at a time: each thread then keeps the filters whose kernels it has
    generated. A batched product would assign images to threads and move the data between cores, far slower
    where these share no cache. Small products take less time than the calls would.
    """
    small = a.shape[1] * a.shape[2] * b.shape[2] <= _SMALL_PRODUCT
    chunk = len(a) if small or a.device.type != "cpu" else 1
    images = zip(a.split(chunk), b.split(chunk), to.split(chunk), strict=True)
    for own_a, own_b, own_to in images:
        if not anew:
            own_to.baddbmm_(own_a, own_b)
        elif begin is None:
            torch.bmm(own_a, own_b, out=own_to)
        else:
            torch.baddbmm(begin, own_a, own_b, out=own_to)


def _send(kernels: Tensor, grad: Tensor, to: Tensor, anew: bool) -> None:
    """Write kernels (n, filters, numbers) turned, times `grad` (n, filters, J), to `to`, or add it to it."""
    a, b = kernels.mT, grad
    if to.stride(1) == 1:
        a, b, to = b.mT, a.mT, to.mT
    if anew:
        torch.bmm(a, b, out=to)
    else:
        to.baddbmm_(a, b)


def _of_groups(by_filter: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_out, S, lambda) -> (N, P·lambda): a group sums the gradients of all parts that it generates."""
    parts = parts_of(layer)
    of_parts = by_filter.view(len(by_filter), layer.generator_groups, parts.of_group, -1)
    return (of_parts[:, :, 0] if parts.of_group == 1 else of_parts.sum(2)).flatten(1)


class _GeneratorGradients:
    """Accumulates the gradients of the tensors of `by_part` from those of the kernels, tile by tile."""

    def __init__(self, vectors: Tensor, weights: Tensor, needs_alpha: bool, needs_weight: bool) -> None:
        self.alpha = torch.empty_like(vectors) if needs_alpha else None
        self.weight = torch.empty_like(weights) if needs_weight else None
        self._vectors, self._weights = vectors, weights
        self._sent, self._turned = Scratch(vectors), Scratch(vectors)

    def add(self, part: slice, tile: Tile, filters: slice, grad: Tensor, columns: Tensor) -> None:
        """Of images `part`: `grad` (n, filters, H_out·W_out), `columns` (n, numbers, H_out·W_out)."""
        # Each group's elements of every image's kernel.
        of_groups = self._sent.take(grad.shape[1], len(grad), columns.shape[1])
        _multiply(grad, columns.mT, of_groups.transpose(0, 1))
        if self.alpha is not None:
            made_by = self._weights[filters, tile.part, tile.numbers]
            vectors = self.alpha[part, filters, tile.part].transpose(0, 1)
            _write(_times(of_groups, made_by), vectors, anew=tile.numbers.start == 0)
        if self.weight is not None:
            inputs = self._vectors[part, filters, tile.part].transpose(0, 1)
            vectors = self.weight[filters, tile.part, tile.numbers]
            if len(self._vectors) == 1:
                torch.mul(of_groups.mT, inputs, out=vectors)
                return
            turned = self._turned.take(len(inputs), inputs.shape[2], of_groups.shape[2])
            _write(torch.bmm(inputs.mT, of_groups, out=turned).mT, vectors, anew=part.start == 0)


def _times(of_groups: Tensor, made_by: Tensor) -> Tensor:
    """(filters, n, numbers) times (filters, numbers, lambda): in the order that gives longer rows."""
    images, terms = of_groups.shape[1], made_by.shape[2]
    if images < max(_SHORT, terms):
        return torch.bmm(of_groups, made_by)
    return torch.bmm(made_by.mT, of_groups.mT).mT


def _write(value: Tensor, to: Tensor, anew: bool) -> None:
    if anew:
        to.copy_(value)
    else:
        to.add_(value)
