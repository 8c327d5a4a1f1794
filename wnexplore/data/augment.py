"""Augmentations of a batch of training images, each image with its own random numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mirrored(images: Tensor, where: Tensor) -> Tensor:
    """`images` (N, C, H, W), those where `where` (N,) is true flipped horizontally."""
    return torch.where(where[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, offsets: Tensor, largest: int) -> Tensor:
    """`images` (N, C, H, W) shifted by `largest - offsets` (2, N) pixels down and right on black."""
    n, channels, height, width = images.shape
    device = images.device
    # One gather for the batch: the source row and column of every pixel, differing by image.
    rows = offsets[0, :, None] + torch.arange(height, device=device)
    columns = offsets[1, :, None] + torch.arange(width, device=device)
    padded = functional.pad(images, [largest] * 4)
    image = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def jittered(images: Tensor, factors: Tensor, peak: float) -> Tensor:
    """`images` (N, C, H, W) in 0 to `peak`, C 3 or 1, with `factors` (3, N): brightness, contrast and
    saturation in this order, as in torchvision's functions of these names.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None]
    images = (images * brightness).clamp(0, peak)
    # Over rows, then over their means: the order of an image's sum doesn't depend on the batch size.
    mean = _grey(images).mean(3, keepdim=True).mean(2, keepdim=True)
    images = _blend(images, mean, contrast, peak)
    return _blend(images, _grey(images), saturation, peak) if images.shape[1] == 3 else images


def jitter_factors(draws: Tensor, amount: float) -> Tensor:
    """Factors for `jittered` from numbers in [0, 1)."""
    low, high = max(0.0, 1 - amount), 1 + amount
    return draws * (high - low) + low


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = 0.2989 * red + 0.587 * green + 0.114 * blue
    return grey


def _blend(images: Tensor, other: Tensor, factor: Tensor, peak: float) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp(0, peak)
