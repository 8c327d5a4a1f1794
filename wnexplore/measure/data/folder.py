"""Image files in folders by class, decoded and cropped by worker processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wnexplore.errors import InputError, RunError
from wnexplore.measure.data.augment import jitter_factors, jittered, mirrored
from wnexplore.measure.data.passes import (
    AS_USUAL,
    Augment,
    Batch,
    Data,
    Pass,
    batches_per_pass,
    mixed_seed,
    shares,
)
from wnexplore.measure.environment import usable_cores

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

# torchvision is imported where it is used: it takes as long to load as torch.


def folder(path: Path, resolution: int, augment: Augment) -> Data:
    """The images in path/train/CLASS and path/val/CLASS; `InputError` if they are not there so."""
    train, test = (_image_folder(path, part) for part in ("train", "val"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise InputError(f"data set 'folder': class '{odd}' is in only one of {path}/train and {path}/val")
    splits = (FolderSplit(files, resolution, augment) for files in (train, test))
    return Data("folder", len(train.classes), tuple(train.classes), *splits)


@dataclass(frozen=True)
class FolderSplit:
    """Image files, read by worker processes; jitter, flip and normalisation run on the device."""

    folder: ImageFolder
    resolution: int
    augment: Augment = AS_USUAL
    _tally: _Tally = field(default_factory=lambda: _Tally(), init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.folder)

    @property
    def damaged(self) -> tuple[str, ...]:
        """As `Split.damaged`, of this process."""
        return tuple(self._tally.damaged)

    def batches_per_pass(self, batch_size: int) -> int:
        """As `Split.batches_per_pass`."""
        return batches_per_pass(len(self), batch_size)

    def batches(
        self, batch_size: int, device: str, training: Pass | None = None, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """As `Split.batches`. Raises `RunError` too if a worker process ends or memory runs out, and
        where a batch has no image left for one of several processes, which would wait for each other.
        """
        order = draws = None
        start = 0
        if training is not None:
            generator = training.generator()
            order, start = torch.randperm(len(self), generator=generator), training.start
            draws = torch.rand(4, len(self), generator=generator)
        mean, std = (torch.tensor(m, device=device).view(3, 1, 1) for m in (IMAGENET_MEAN, IMAGENET_STD))
        own = shares(len(self), batch_size, order, start, rank, world)
        for images, labels, index, damaged in self._read(own, training, device, world):
            self._tally.add(len(images), damaged)
            if len(images) == 0:
                if training is not None and world > 1:
                    raise RunError(f"every image of a batch of process {rank} is damaged: {damaged[0]}")
                continue
            images = images.to(device, non_blocking=True).float() / 255
            if draws is not None:
                images = self._augmented(images, draws[:, index].to(device))
            yield (images - mean) / std, labels.to(device, non_blocking=True)

    def _augmented(self, images: Tensor, draws: Tensor) -> Tensor:
        """`images` (N, 3, H, W) varied by `draws` (4, N), numbers in [0, 1)."""
        if self.augment.colour_jitter:
            images = jittered(images, jitter_factors(draws[1:], self.augment.colour_jitter), 1.0)
        return images if self.augment.flip is False else mirrored(images, draws[0] < 0.5)

    def _read(
        self, batches: Iterator[Tensor], training: Pass | None, device: str, world: int
    ) -> Iterator[_Collated]:
        if training is None:
            transform = _test_transform(self.resolution)
        else:
            transform = _train_transform(self.resolution, self.augment.min_crop)
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # torchrun's: processes on this machine
        loader = DataLoader(
            _Files(self.folder, transform, training),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=min(_MOST_WORKERS, max(1, usable_cores() // here)),
            collate_fn=_collate,
            pin_memory=device == "cuda",
            # torch draws a seed for the workers, which use none: not from the generator of others.
            generator=torch.Generator(),
        )
        try:
            yield from loader
        except (RuntimeError, MemoryError, OSError) as error:
            # A worker's error arrives with the text of its traceback, of which the last line tells.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            in_worker = "Traceback" in str(error)
            why = lines[-1] if in_worker else lines[0]
            raise RunError(f"reading images of {self.folder.root} failed: {why}") from None


@dataclass
class _Tally:
    """What has been read so far."""

    seen: int = 0
    unread: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Path -> why it can't be read."""

    def add(self, read: int, damaged: list[tuple[str, str]]) -> None:
        self.seen += read + len(damaged)
        self.unread += len(damaged)
        for path, why in damaged:
            self.damaged.setdefault(path, why)
        if self.seen >= _ENOUGH_SEEN and self.unread > self.seen / 2:
            path, why = next(iter(self.damaged.items()))
            raise RunError(
                f"{self.unread} of {self.seen} images can't be read, the first of them {path}: {why}"
            )


_Item = tuple[Tensor, int, int] | tuple[str, str]
"""An image, its label and its number; or the path of a damaged one and why."""
_Collated = tuple[Tensor, Tensor, Tensor, list[tuple[str, str]]]
"""Images (N, 3, H, W), uint8; labels, numbers (N,); the damaged ones."""


class _Files(Dataset[_Item]):
    def __init__(
        self, folder: ImageFolder, transform: Callable[[Image.Image], Tensor], training: Pass | None
    ) -> None:
        self.folder, self.transform, self.training = folder, transform, training

    def __getitem__(self, index: int) -> _Item:
        path, label = self.folder.samples[index]
        if self.training is not None:
            # This runs in a worker, whose global generator is nobody else's. Seeding it for each image
            # makes its crop independent of how many workers and processes there are.
            torch.manual_seed(mixed_seed(self.training.seed, self.training.epoch, index))
        try:
            return self.transform(read_image(path)), label, index
        except MemoryError:
            raise
        except Exception as error:  # whatever a decoder may raise on a broken file
            return path, " ".join(str(error).split()) or type(error).__name__


def read_image(path: str) -> Image.Image:
    with warnings.catch_warnings():
        # Of broken metadata, and of images half as large as what Pillow refuses.
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.convert("RGB")


def _collate(items: list[_Item]) -> _Collated:
    read = [item for item in items if len(item) == 3]
    damaged = [item for item in items if len(item) == 2]
    images = torch.stack([image for image, _, _ in read]) if read else torch.empty(0, 3, 1, 1)
    return images, torch.tensor([r[1] for r in read]), torch.tensor([r[2] for r in read]), damaged


def _train_transform(resolution: int, min_crop: float) -> Callable[[Image.Image], Tensor]:
    from torchvision.transforms import v2

    return _to_tensor(v2.RandomResizedCrop(resolution, scale=(min_crop, 1.0), antialias=True))


def _test_transform(resolution: int) -> Callable[[Image.Image], Tensor]:
    from torchvision.transforms import v2

    return _to_tensor(
        _without_far_ends,
        v2.Resize(round(resolution * 256 / 224), antialias=True),
        v2.CenterCrop(resolution),
    )


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of an image much longer than wide, which would be huge with its short side resized."""
    width, height = image.size
    most = 16 * min(width, height)
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((left, top, width - left, height - top))


def _to_tensor(*transforms: Callable[[Any], Any]) -> Callable[[Image.Image], Tensor]:
    from torchvision.transforms import v2

    composed: Callable[[Image.Image], Tensor] = v2.Compose([*transforms, v2.PILToTensor()])
    return composed


def _image_folder(path: Path, part: str) -> ImageFolder:
    from torchvision.datasets import ImageFolder

    if not (path / part).is_dir():
        raise InputError(f"data set 'folder': no folder {path / part}: expected {path}/train and {path}/val")
    try:
        return ImageFolder(path / part)
    except FileNotFoundError as error:
        why = str(error).splitlines()[0]
        raise InputError(
            f"data set 'folder': {why}: expected images as {path / part}/CLASS/NAME.jpg"
        ) from None


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MOST_WORKERS = 16
_ENOUGH_SEEN = 20
"""Images after which a share of damaged ones says something."""
