"""What a data set is to a training: splits, and passes over them that can be stopped and shared."""

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
class Pass:
    """One shuffled and augmented pass over training images; seed and epoch alone decide it."""

    seed: int
    epoch: int
    """From 0."""
    start: int = 0
    """Batches left out at its beginning, where a stopped training goes on."""
    counted: bool = False
    """Whether a batch is given, empty, where not one of its images can be read: each is a step then."""

    def generator(self) -> torch.Generator:
        """What order and augmentation are drawn from."""
        return torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))


@dataclass(frozen=True)
class Augment:
    """How training images are varied, beside what is usual for their data set."""

    colour_jitter: float = 0.0
    """Brightness, contrast and saturation are each multiplied by 1 ± this at most."""
    min_crop: float = 0.08
    """Least share of an image's area in a random resized crop, of `folder` alone."""
    flip: bool | None = None
    """Whether half of the images are mirrored; None: as is usual for the data set."""


AS_USUAL = Augment()


class Split(Protocol):
    """The training or the test images of a data set."""

    def __len__(self) -> int:
        """How many images there are."""

    @property
    def damaged(self) -> tuple[str, ...]:
        """Paths of images that couldn't be read so far, each once, in order of discovery."""

    @property
    def why_damaged(self) -> Mapping[str, str]:
        """For each of them why it can't be read."""

    def batches(
        self, batch_size: int, device: str, training: Pass | None = None, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """The images once, on `device`: the share of process `rank` of `world`.

        With a pass: shuffled and augmented, `batch_size` images a batch in all processes together, of
        which this one gets number rank, rank + world, ...; the incomplete batch at the end is left out
        unless it is the only one. What an image becomes and where it stands follows from the pass and
        the image alone. Without: every world-th image, in order, not augmented.

        Damaged images are left out, so that a batch may be smaller; one without any image that can be
        read isn't yielded at all, but by a pass that is `counted`. Raises `InputError` if a batch has fewer
        images than there are processes, `RunError` if more than half of the images seen are damaged.
        """

    def batches_per_pass(self, batch_size: int) -> int:
        """How many batches a pass has, those included that damaged images leave empty."""


@dataclass(frozen=True)
class Data:
    """A data set to train on and to test with."""

    name: str
    num_classes: int
    classes: tuple[str, ...]
    """The names of the classes, in the order of their labels."""
    train: Split
    test: Split
    listing: str | None = None
    """`listing_hash` of image files in folders, which may change between two runs; None for other images."""


def mixed_seed(*numbers: int) -> int:
    """A seed for torch from whole numbers of at least 0; other numbers give an unrelated one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def batches_per_pass(images: int, batch_size: int) -> int:
    """How many batches a training pass over so many images has."""
    return max(1, images // batch_size)


def shares(
    images: int, batch_size: int, order: Tensor | None, start: int, rank: int, world: int
) -> Iterator[Tensor]:
    """The numbers of the images in each batch of one process, as `Split.batches` says.

    `order` is that of the whole training pass, None in a test.
    """
    if order is None:
        indices = torch.arange(images)[rank::world]
        yield from indices.split(math.ceil(batch_size / world)) if len(indices) else ()
        return
    if min(batch_size, images) < world:
        raise InputError(f"{world} processes can't share a batch of {min(batch_size, images)} images")
    for batch in range(start, batches_per_pass(images, batch_size)):
        yield order[batch * batch_size : (batch + 1) * batch_size][rank::world]
