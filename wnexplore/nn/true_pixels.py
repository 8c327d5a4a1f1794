"""The true pixels of images that are padded to a common size, so that padding changes nothing inside.

A batch of a detector holds images of several sizes, each padded with zeros at the right and below. A mean
over such a padded image depends on its neighbours in the batch, and so would a kernel that is generated from
it; and behind a normalisation the padding is no longer zero, and leaks inwards through the next convolution.
Inside `true_pixels` the layers of this package take means and maxima over each image's own pixels at every
stride, and inside `padding_masked` a network's layers see zeros around it, as they do around an image alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.errors import InputError
from wnexplore.nn.generated import MethodConv2d


class TruePixels:
    """The sizes of the images of a batch that is `padded` to (height, width).

    At stride 2^k an image of s pixels has ceil(s / 2^k), those whose window begins within it.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], padded: tuple[int, int]) -> None:
        if any(not (1 <= size <= most) for image in sizes for size, most in zip(image, padded, strict=True)):
            raise InputError(f"images of {list(sizes)} pixels are padded to {padded}: expected at most that")
        self._sizes, self._padded = tuple(sizes), padded
        self._masks: dict[tuple[int, int, torch.device], Tensor] = {}

    def mask(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 1, h, w): whether a pixel is one of its image's.

        Raises `InputError` if h or w is not the padded size at a stride that is a power of two, or there are
        other than one map for each image.
        """
        height, width = x.shape[2:]
        key = height, width, x.device
        if key not in self._masks:
            true = torch.tensor(
                [
                    [
                        _at(size, most, now)
                        for size, most, now in zip(image, self._padded, x.shape[2:], strict=True)
                    ]
                    for image in self._sizes
                ],
                device=x.device,
            )
            rows = torch.arange(height, device=x.device) < true[:, :1]
            columns = torch.arange(width, device=x.device) < true[:, 1:]
            self._masks[key] = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
        mask = self._masks[key]
        if len(mask) != len(x):
            raise InputError(f"{len(x)} maps of {len(mask)} images: expected one of each")
        return mask


def _at(size: int, padded: int, now: int) -> int:
    """An image's size in a map of size `now`, which is `padded` at stride 1."""
    while padded > now:
        size, padded = math.ceil(size / 2), math.ceil(padded / 2)
    if padded != now:
        raise InputError(f"a map of {now} pixels is not the padded image at a stride that is a power of two")
    return size


_current: list[TruePixels] = []
"""What applies now, innermost last."""


@contextmanager
def true_pixels(sizes: Sequence[tuple[int, int]], padded: tuple[int, int]) -> Iterator[None]:
    """Inside, batches hold images of `sizes` (height, width), padded to `padded`.

    Raises `InputError` for an image larger than that.
    """
    _current.append(TruePixels(sizes, padded))
    try:
        yield
    finally:
        _current.pop()


def is_padded() -> bool:
    """Whether means over space have to leave padding out."""
    return bool(_current)


def spatial_mask(x: Tensor) -> Tensor:
    """Whether each pixel is one of its image's: (N, C, H, W) -> (N, 1, H, W)."""
    if _current:
        return _current[-1].mask(x)
    return torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool, device=x.device)


def spatial_mean(x: Tensor) -> Tensor:
    """The mean over each image's pixels: (N, C, H, W) -> (N, C)."""
    if not _current:
        return x.mean((2, 3))
    mask = _current[-1].mask(x)
    # As a mean, whose sum can't overflow in half precision.
    share = mask.mean((2, 3), dtype=torch.float32)
    return (x.where(mask, 0).mean((2, 3)) / share).to(x.dtype)


def spatial_max(x: Tensor) -> Tensor:
    """The maximum over each image's pixels: (N, C, H, W) -> (N, C)."""
    return x.amax((2, 3)) if not _current else x.where(_current[-1].mask(x), -torch.inf).amax((2, 3))


def spatial_softmax(x: Tensor) -> Tensor:
    """The softmax over each image's pixels, 0 outside: (N, C, H, W) -> (N, C, H·W)."""
    if _current:
        x = x.where(_current[-1].mask(x), -torch.inf)
    return x.flatten(2).softmax(2)


@contextmanager
def padding_masked(network: nn.Module) -> Iterator[None]:
    """Inside, the layers of `network` that look beyond a pixel see what zeros, or for a maximum nothing, are
    around an image, where `true_pixels` says what its pixels are. Afterwards the network is unchanged.
    """
    with ExitStack() as undo:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | MethodConv2d | nn.MaxPool2d | nn.AvgPool2d):
                kernel = module.kernel_size
                reach = kernel if isinstance(kernel, int) else max(kernel)
                if reach > 1:
                    undo.callback(module.register_forward_pre_hook(_masked).remove)
                if isinstance(module, nn.MaxPool2d):
                    undo.callback(module.register_forward_hook(_finite).remove)
        yield


def _masked(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not _current:
        return None
    x, *others = inputs
    outside = -torch.inf if isinstance(module, nn.MaxPool2d) else 0
    return (x.where(_current[-1].mask(x), outside), *others)


def _finite(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
    """The maximum of padding alone, which is -inf, would reach the statistics of batch normalisation."""
    return output.where(_current[-1].mask(output), 0) if _current else None
