"""The interface of data sets: splits, and epochs over them that can be resumed and shared by processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wnexplore.errors import InputError

Batch = tuple[Tensor, Tensor]
"""Images (N, 3, resolution, resolution), float32 and normalised; labels (N,), int64."""


@dataclass(frozen=True)
class EpochPass:
    """One shuffled and augmented epoch of training images, determined by seed and epoch number."""

    seed: int
    epoch: int
    """From 0."""
    start: int = 0
    """Batches skipped at the start, where a stopped training resumes."""
    counted: bool = False
    """Whether a batch without any readable image is yielded, empty, so that it counts as a step."""

    def generator(self) -> torch.Generator:
        """The generator of order and augmentation."""
        return torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images, in addition to the data set's defaults."""

    colour_jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by factors in 1 ± this."""
    min_crop: float = 0.08
    """Smallest share of an image's area in a random resized crop; only for `folder`."""
    flip: bool | None = None
    """Whether half of the images are flipped horizontally; None: the data set's default."""


AS_USUAL = Augment()


class Split(Protocol):
    """The training or the test images of a data set."""

    def __len__(self) -> int:
        """The number of images."""

    @property
    def damaged(self) -> tuple[str, ...]:
        """Distinct paths of images that couldn't be read so far, in order of discovery."""

    @property
    def why_damaged(self) -> Mapping[str, str]:
        """The reason for each of them."""

    def batches(
        self,
        batch_size: int,
        device: str,
        training: EpochPass | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """One epoch of images on `device`: the share of process `rank` of `world`.

        With a pass: shuffled and augmented, `batch_size` images per batch in all processes together, of which
        this one gets number rank, rank + world, ...; the incomplete last batch is dropped unless it is the
        only one. An image's augmentation and position depend only on the pass and the image. Without: every
        world-th image, in order, not augmented.

        Damaged images are left out, so a batch may be smaller; one without any readable image isn't yielded,
        unless the pass is `counted`. Raises `InputError` if a batch has fewer images than there are
        processes, `RunError` if more than half of the images seen are damaged.
        """

    def batches_per_pass(self, batch_size: int) -> int:
        """The number of batches per epoch, including those that damaged images leave empty."""


@dataclass(frozen=True)
class Data:
    """A data set with its training and test splits."""

    name: str
    num_classes: int
    classes: tuple[str, ...]
    """The names of the classes, in the order of their labels."""
    train: Split
    test: Split
    listing: str | None = None
    """`listing_hash` of image files in folders, which may change between two runs; None for other data."""


def mixed_seed(*numbers: int) -> int:
    """A seed for torch from non-negative integers; different numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def batches_per_pass(images: int, batch_size: int) -> int:
    """The number of batches of a training epoch over `images` images."""
    return max(1, images // batch_size)


def shares(
    images: int, batch_size: int, order: Tensor | None, start: int, rank: int, world: int
) -> Iterator[Tensor]:
    """The indices of the images in each batch of one process, as `Split.batches` says.

    `order` is that of the complete training epoch, None in a test.
    """
    if order is None:
        indices = torch.arange(images)[rank::world]
        yield from indices.split(math.ceil(batch_size / world)) if len(indices) else ()
        return
    if min(batch_size, images) < world:
        raise InputError(f"{world} processes can't share a batch of {min(batch_size, images)} images")
    for batch in range(start, batches_per_pass(images, batch_size)):
        yield order[batch * batch_size : (batch + 1) * batch_size][rank::world]
