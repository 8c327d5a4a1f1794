"""Images in memory, or generated on access, resized and augmented in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.data.augment import jitter_factors, jittered, mirrored, shifted
from wnexplore.data.splits import Batch, EpochPass, batches_per_pass, shares


class Images(Protocol):
    """Indexed images: a tensor, or a generator of images on access."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, h, w); C is 3, or 1 to be repeated."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """The images with indices `index` (n,), uint8: (n, C, h, w)."""


@dataclass(frozen=True)
class TensorSplit:
    """Images and labels; cached on the device, at the resolution of the training, if that is small."""

    images: Tensor | Images
    """(N, C, h, w), uint8; C is 3, or 1 to be repeated."""
    labels: Tensor
    """(N,), int64."""
    resolution: int
    mean: Tensor
    """(3, 1, 1), in the unit of `images`, like `std`."""
    std: Tensor
    shift: int = 0
    """Largest shift of training images along each axis, in pixels of `resolution`."""
    flip: bool = False
    """Whether training flips half of the images."""
    colour_jitter: float = 0.0
    """As in `Augment`."""
    peak: float = 255.0
    """The value of a white pixel."""
    damaged: tuple[str, ...] = ()
    """Always empty: images in memory have been read."""
    why_damaged: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _kept: dict[str, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Device -> images and labels cached there."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches_per_pass(self, batch_size: int) -> int:
        """As `Split.batches_per_pass`."""
        return batches_per_pass(len(self), batch_size)

    def batches(
        self,
        batch_size: int,
        device: str,
        training: EpochPass | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """As `Split.batches`."""
        order = draws = None
        start = 0
        if training is not None:
            generator = training.generator()
            order, start = torch.randperm(len(self), generator=generator), training.start
            draws = torch.rand(6, len(self), generator=generator).to(device)
        mean, std = self.mean.to(device), self.std.to(device)
        indices = list(shares(len(self), batch_size, order, start, rank, world))
        # Copied to the device once: a copy per batch would synchronise with the GPU each time.
        on_device = torch.cat(indices).to(device).split([len(index) for index in indices]) if indices else ()
        for index, there in zip(indices, on_device, strict=True):
            images, labels = self._taken(index, there, device)
            if draws is not None:
                images = self._augmented(images, draws[:, there])
            yield (images - mean) / std, labels

    def _taken(self, index: Tensor, there: Tensor, device: str) -> Batch:
        """Images at the training's resolution, float32, and labels, on `device`.

        `there` is `index` on the device.
        """
        n, channels, *size = self.images.shape
        as_they_are = size == [self.resolution] * 2
        width = 1 if as_they_are else 4
        if n * channels * self.resolution**2 * width > KEPT_BYTES:
            return self._resized(self.images[index].to(device)), self.labels[index].to(device)
        if device not in self._kept:
            parts = [self.images[part].to(device) for part in torch.arange(n).split(_AT_ONCE)]
            images = torch.cat(parts if as_they_are else [self._resized(part) for part in parts])
            self._kept[device] = images, self.labels.to(device)
        images, labels = self._kept[device]
        return images[there].float(), labels[there]

    def _resized(self, images: Tensor) -> Tensor:
        size = [self.resolution] * 2
        images = images.float()
        if list(images.shape[2:]) == size:
            return images
        return functional.interpolate(images, size, mode="bilinear", antialias=True)

    def _augmented(self, images: Tensor, draws: Tensor) -> Tensor:
        """`images` (N, C, H, W) augmented by the random numbers `draws` (6, N) in [0, 1)."""
        if self.colour_jitter:
            images = jittered(images, jitter_factors(draws[3:], self.colour_jitter), self.peak)
        if self.flip:
            images = mirrored(images, draws[2] < 0.5)
        if self.shift:
            images = shifted(images, (draws[:2] * (2 * self.shift + 1)).long(), self.shift)
        return images


KEPT_BYTES = 512 * 2**20
"""Bytes, at the training's resolution, above which splits aren't cached there."""
_AT_ONCE = 1024
