"""Images as columns, one per output pixel (im2col), and their gradients back to images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.tiles import EXACT, Scratch, Tile

MAX_COLUMNS = 256
"""Output pixels up to which a kernel larger than 1x1 is applied as a matrix to columns of the image."""

WORTH_TURNING = 8
"""Images from which a CPU multiplies kernels and so few columns faster transposed, with long rows."""


def columns_of(x: Tensor, layer: LayerShape) -> Tensor:
    """(N, C_in, H, W) -> (N, g·F, H_out·W_out); a view for a 1x1 convolution of stride 1."""
    if layer.pointwise:
        down, across = layer.stride
        return (x if layer.stride == (1, 1) else x[:, :, ::down, ::across]).flatten(2)
    if torch.compiler.is_compiling():
        columns: Tensor = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return columns
    (high, wide), (down, across) = layer.padding, layer.dilation
    height, width = layer.output_size(*x.shape[2:])
    padded = functional.pad(x, (wide, wide, high, high))
    of_image, of_channel, of_row, of_pixel = padded.stride()
    windows = padded.as_strided(
        (*x.shape[:2], *layer.kernel_size, height, width),
        (
            *(of_image, of_channel, down * of_row, across * of_pixel),
            *(layer.stride[0] * of_row, layer.stride[1] * of_pixel),
        ),
    )
    # Two to three times faster than torch's unfold on a CPU.
    return windows.reshape(x.shape[0], -1, height * width)


def columns_of_tile(x: Tensor, tile: Tile, layer: LayerShape) -> Tensor:
    """(n, numbers, H_out·W_out), the columns that a tile's elements multiply."""
    channels, inside = _channels(tile, layer)
    return columns_of(x[:, channels], layer)[:, inside]


class ImageGradients:
    """The backward pass of `columns_of_tile`, tile by tile and chunk of images by chunk.

    `begin` takes the uninitialised gradients `to` (n, C_in, H, W) of a chunk. Then `room` of a tile returns
    the memory for its columns' gradients, and `add` accumulates them from there; after the last tile `finish`
    writes their sum to `to`.
    """

    def __init__(self, x: Tensor, layer: LayerShape) -> None:
        self._layer, self._size = layer, layer.output_size(*x.shape[2:])
        self._taps = _taps(layer)
        self._scratch = Scratch(x)
        # Sums over several steps are rounded once.
        self._sums = Scratch(x.new_empty(0, dtype=x.dtype if x.dtype in EXACT else torch.float32))

    def begin(self, to: Tensor) -> None:
        """Start the images whose gradients are `to`."""
        self._to, pointwise = to, self._layer.pointwise
        channels_last = not to.is_contiguous() and to.is_contiguous(memory_format=torch.channels_last)
        few = len(to) >= WORTH_TURNING and self._size[0] * self._size[1] <= MAX_COLUMNS
        self._turned = channels_last or (few and to.device.type == "cpu")
        # The gradients' own memory serves as room: same layout, and each element is written once.
        self._in_place = pointwise and self._layer.stride == (1, 1) and self._turned == channels_last
        if not pointwise:
            (high, wide), (batch, channels, height, width) = self._layer.padding, to.shape
            self._padded = self._sums.take(batch, height + 2 * high, width + 2 * wide, channels).zero_()
        elif self._layer.stride != (1, 1):
            to.zero_()

    def room(self, tile: Tile) -> Tensor:
        """A buffer (n, numbers, H_out·W_out) to write to."""
        channels, inside = _channels(tile, self._layer)
        batch, pixels = len(self._to), self._size[0] * self._size[1]
        if self._in_place:
            return self._to[:, channels].view(batch, -1, pixels)
        numbers = (channels.stop - channels.start) * self._taps
        if self._turned:
            self._sent = self._scratch.take(batch, pixels, numbers).mT
        else:
            self._sent = self._scratch.take(batch, numbers, pixels)
        if inside.stop - inside.start < numbers:
            # The rest of the first or last channel belongs to other tiles.
            self._sent.zero_()
        return self._sent[:, inside]

    def add(self, tile: Tile) -> None:
        """Add what was written to the room of this tile, which was the last one requested."""
        if self._in_place:
            return
        channels, _ = _channels(tile, self._layer)
        (down, across), (rows, columns) = self._layer.stride, self._size
        if self._layer.pointwise:
            self._to[:, channels, ::down, ::across] = self._sent.unflatten(2, self._size)
            return
        sent = self._sent.mT.unflatten(2, (-1, self._taps)).unflatten(1, self._size)
        (below, right), row = self._layer.dilation, self._layer.kernel_size[1]
        for tap in range(self._taps):
            top, left = tap // row * below, tap % row * right
            vertical = slice(top, top + down * (rows - 1) + 1, down)
            horizontal = slice(left, left + across * (columns - 1) + 1, across)
            self._padded[:, vertical, horizontal, channels].add_(sent[..., tap])

    def finish(self) -> None:
        """Write the sums."""
        if not self._layer.pointwise:
            (high, wide), (height, width) = self._layer.padding, self._to.shape[2:]
            self._to.copy_(self._padded[:, high : high + height, wide : wide + width].permute(0, 3, 1, 2))


def _channels(tile: Tile, layer: LayerShape) -> tuple[slice, slice]:
    """The input channels of a tile's elements, and which of these channels' elements they are."""
    taps = _taps(layer)
    first, last = tile.columns.start // taps, -(-tile.columns.stop // taps)
    return slice(first, last), slice(tile.columns.start - first * taps, tile.columns.stop - first * taps)


def _taps(layer: LayerShape) -> int:
    return layer.kernel_size[0] * layer.kernel_size[1]
