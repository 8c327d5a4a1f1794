"""Image files in folders by class, decoded and cropped by worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wnexplore.data.augment import jitter_factors, jittered, mirrored
from wnexplore.data.decoding import Ranges, range_of, ranges_of, read_image, reason
from wnexplore.data.folder_listing import ImageFiles, image_files, listing_hash
from wnexplore.data.preprocessing import Preprocessing, normalised, tested, to_tensor
from wnexplore.data.splits import (
    AS_USUAL,
    Augment,
    Batch,
    Data,
    EpochPass,
    batches_per_pass,
    mixed_seed,
    shares,
)
from wnexplore.data.workers import Tally, read_by_workers
from wnexplore.errors import InputError, RunError, shown

# torchvision is imported where it is used: it takes as long to load as torch.


def folder(path: Path, resolution: int, augment: Augment) -> Data:
    """The images in path/train/CLASS and path/val/CLASS; `InputError` if they are missing.

    The range of images of more than 8 bits is that of all of them.
    """
    train, test = (_files_of(path, part) for part in ("train", "val"))
    if train.classes != test.classes:
        odd = min(set(train.classes) ^ set(test.classes))
        raise InputError(
            f"data set 'folder': class '{shown(odd)}' is in only one of {shown(path, 300)}/train"
            f" and {shown(path, 300)}/val"
        )
    ranges = _of_both(looked_at(train), looked_at(test))
    how = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, crop=224 / 256, ranges=ranges)
    training, tested = (FolderSplit(files, resolution, augment, how=how) for files in (train, test))
    return Data(
        "folder", len(train.classes), train.classes, training, tested, listing=listing_hash(train, test)
    )


def tested_folder(path: Path, resolution: int, how: Preprocessing) -> FolderSplit:
    """The images in path/val/CLASS, preprocessed by `how`; `InputError` if they are missing."""
    return FolderSplit(_files_of(path, "val"), resolution, how=how)


def looked_at(files: ImageFiles) -> Ranges:
    """`ranges_of` the files. Raises `InputError` if none of those that it samples can be read."""
    try:
        return ranges_of([path for path, _ in files.samples])
    except ValueError as error:
        raise InputError(
            f"data set 'folder': no image in {shown(files.root, 300)} can be read, the first of them {error}"
        ) from None


@dataclass(frozen=True)
class FolderSplit:
    """Image files, decoded by worker processes; jitter, flip and normalisation run on the device."""

    folder: ImageFiles
    resolution: int
    augment: Augment = AS_USUAL
    how: Preprocessing = field(kw_only=True)
    """The preprocessing of a test; training uses random crops."""
    _tally: Tally = field(default_factory=lambda: Tally(), init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.folder)

    @property
    def damaged(self) -> tuple[str, ...]:
        """As `Split.damaged`, in this process."""
        return tuple(self._tally.damaged)

    @property
    def why_damaged(self) -> Mapping[str, str]:
        """As `Split.why_damaged`, in this process."""
        return dict(self._tally.damaged)

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
        """As `Split.batches`. Raises `RunError` too if a worker process ends or memory runs out, if no image
        of an epoch can be read, and where a batch has no image left for one of several processes, which would
        deadlock.
        """
        order = draws = None
        start = 0
        if training is not None:
            generator = training.generator()
            order, start = torch.randperm(len(self), generator=generator), training.start
            draws = torch.rand(4, len(self), generator=generator)
        batches = shares(len(self), batch_size, order, start, rank, world)
        read, first = 0, ""
        for images, labels, index, damaged in self._read(batches, training, device, world):
            self._tally.add(len(images), damaged)
            read += len(images)
            first = first or (f"{shown(damaged[0][0], 300)}: {damaged[0][1]}" if damaged else "")
            if len(images) == 0:
                if training is not None and world > 1:
                    raise RunError(f"every image of a batch of process {rank} is damaged: {first}")
                if training is not None and training.counted:
                    yield images.to(device), labels.long().to(device)
                continue
            images = images.to(device, non_blocking=True).float() / 255
            if draws is not None:
                images = self._augmented(images, draws[:, index].to(device))
            yield normalised(images, self.how), labels.to(device, non_blocking=True)
        if not read and first and world == 1 and start == 0:
            raise RunError(f"no image in {shown(self.folder.root, 300)} can be read, the first {first}")

    def _augmented(self, images: Tensor, draws: Tensor) -> Tensor:
        """`images` (N, 3, H, W) augmented by the random numbers `draws` (4, N) in [0, 1)."""
        if self.augment.colour_jitter:
            images = jittered(images, jitter_factors(draws[1:], self.augment.colour_jitter), 1.0)
        return images if self.augment.flip is False else mirrored(images, draws[0] < 0.5)

    def _read(
        self, batches: Iterator[Tensor], training: EpochPass | None, device: str, world: int
    ) -> Iterator[_Collated]:
        return read_by_workers(
            _Files(self, training),
            batches,
            _collate,
            world=world,
            of=f" of {shown(self.folder.root, 300)}",
            pinned=torch.device(device).type == "cuda",
        )


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _of_both(ranges: Ranges, others: Ranges) -> Ranges:
    """For each kind of samples the union of both ranges."""
    both = {**others, **ranges}
    for kind in ranges.keys() & others.keys():
        (black, white), (low, high) = ranges[kind], others[kind]
        both[kind] = range_of(kind, min(black, low), max(white, high))
    return both


def _files_of(path: Path, part: str) -> ImageFiles:
    if not os.path.isdir(path / part):  # Path.is_dir raises for names that are too long
        where = shown(path, 300)
        raise InputError(
            f"data set 'folder': no folder {where}/{part}: expected {where}/train and {where}/val"
        )
    return image_files(path / part)


_Item = tuple[Tensor, int, int] | tuple[str, str]
"""An image, its label and its index; or the path of a damaged one and the reason."""
_Collated = tuple[Tensor, Tensor, Tensor, list[tuple[str, str]]]
"""Images (N, 3, H, W) from 0 to 255; labels and indices (N,); the damaged ones."""


class _Files(Dataset[_Item]):
    def __init__(self, split: FolderSplit, training: EpochPass | None) -> None:
        self.samples, self.how, self.resolution = split.folder.samples, split.how, split.resolution
        self.training, self.crop = training, _crop(split)

    def __getitem__(self, index: int) -> _Item:
        path, label = self.samples[index]
        try:
            image = read_image(path, self.how.ranges)
            if self.training is None:
                return tested(image, self.how, self.resolution), label, index
            # This runs in a worker, which has its own global generator. Seeding it for each image makes the
            # crop independent of the number of workers and processes.
            torch.manual_seed(mixed_seed(self.training.seed, self.training.epoch, index))
            return to_tensor(self.crop(image)), label, index
        except MemoryError:
            raise
        except Exception as error:  # a decoder may raise anything on a broken file
            return path, reason(error)


def _collate(items: list[_Item]) -> _Collated:
    read = [item for item in items if len(item) == 3]
    damaged = [item for item in items if len(item) == 2]
    images = [image for image, _, _ in read]
    if any(image.is_floating_point() for image in images):
        images = [image.float() for image in images]
    stacked = torch.stack(images) if images else torch.empty(0, 3, 1, 1)
    return stacked, torch.tensor([r[1] for r in read]), torch.tensor([r[2] for r in read]), damaged


def _crop(split: FolderSplit) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    crop: Callable[[Image.Image], Image.Image] = v2.RandomResizedCrop(
        split.resolution, scale=(split.augment.min_crop, 1.0), antialias=True
    )
    return crop
