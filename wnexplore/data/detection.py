"""Images with boxes: batches of a detector, from drawn images or from files, resized and flipped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wnexplore.data.augment import jitter_factors, jittered
from wnexplore.data.decoding import reason
from wnexplore.data.splits import EpochPass, batches_per_pass, shares
from wnexplore.data.workers import Tally, read_by_workers
from wnexplore.errors import RunError, shown

# torchvision is imported where it is used: it takes as long to load as torch.

Target = dict[str, Tensor]
"""Of one image: boxes (K, 4) as x1, y1, x2, y2 in its pixels, float32; labels (K,), int64; image (), its
index."""


@dataclass(frozen=True)
class Boxes:
    """The objects in one image."""

    boxes: Tensor
    """(K, 4) as x1, y1, x2, y2 in pixels, float32."""
    labels: Tensor
    """(K,), int64, from 0."""
    areas: Tensor
    """(K,), float32: pixels of the object itself, by which small, medium and large ones are told apart."""
    crowd: Tensor
    """(K,), bool: whether it is a group of objects, which is neither trained on nor missed in a test."""


class Pictures(Protocol):
    """Images with boxes, read or drawn on access."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each image."""

    @property
    def objects(self) -> Sequence[Boxes]:
        """The objects in each image."""

    @property
    def from_files(self) -> bool:
        """Whether images are decoded from files, for which worker processes are worth their start."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, index: int, /) -> Tensor:
        """Image `index`, uint8: (3, height, width). Raises any error of a decoder on a broken file."""

    def name(self, index: int) -> str:
        """Its path, or what it is called in messages."""


@dataclass(frozen=True)
class DetectionSplit:
    """The training or the test images of a detection data set.

    As `wnexplore.data.splits.Split`, but that a batch is a list of images (3, H, W) of any size, from 0 to 1,
    and a list of `Target`.
    """

    pictures: Pictures
    scales: tuple[int, ...] = ()
    """The shorter side of training images in pixels: each batch has one of these; (): as they are."""
    longest: int = 10**6
    """Their longer side at most."""
    flip: bool = True
    """Whether half of the training images are flipped horizontally."""
    colour_jitter: float = 0.0
    _tally: Tally = field(default_factory=lambda: Tally(), init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.pictures)

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
    ) -> Iterator[Any]:
        """As `Split.batches`; the images of a training batch are all wide, or all tall, as far as possible.

        Crowds are in no target. Raises as that, and `RunError` if memory runs out in a worker process.
        """
        order, start, epoch = None, 0, None
        if training is not None:
            generator = training.generator()
            order = self._grouped(torch.randperm(len(self), generator=generator), batch_size)
            start = training.start
            epoch = _Epoch(
                torch.rand(4, len(self), generator=generator),
                torch.rand(self.batches_per_pass(batch_size), generator=generator),
            )
        read, first = 0, ""
        batches = shares(len(self), batch_size, order, start, rank, world)
        for number, items in enumerate(self._read(batches, device, world)):
            damaged = [(self.pictures.name(index), why) for index, why in items if isinstance(why, str)]
            images = [(index, image) for index, image in items if isinstance(image, Tensor)]
            self._tally.add(len(images), damaged)
            read += len(images)
            first = first or (f"{shown(damaged[0][0], 300)}: {damaged[0][1]}" if damaged else "")
            if not images:
                if training is not None and world > 1:
                    raise RunError(f"every image of a batch of process {rank} is damaged: {first}")
                if training is not None and training.counted:
                    yield [], []
                continue
            pairs = [
                self._prepared(index, image.to(device), epoch, start + number) for index, image in images
            ]
            yield [image for image, _ in pairs], [target for _, target in pairs]
        if not read and first and world == 1 and start == 0:
            raise RunError(f"no image can be read, the first {first}")

    def _grouped(self, order: Tensor, batch_size: int) -> Tensor:
        """`order` such that batches are of wide or of tall images, but for those left over at the end.

        What is in no batch is chosen before, so that each image is in as many epochs as any other.
        """
        if len(order) > batch_size:
            order = order[: len(order) // batch_size * batch_size]
        waiting: dict[bool, list[int]] = {True: [], False: []}
        found: list[int] = []
        for index in order.tolist():
            height, width = self.pictures.sizes[index]
            group = waiting[width >= height]
            group.append(index)
            if len(group) == batch_size:
                found += group
                group.clear()
        return torch.tensor([*found, *waiting[True], *waiting[False]])

    def _read(
        self, batches: Iterator[Tensor], device: str, world: int
    ) -> Iterator[list[tuple[int, Tensor | str]]]:
        """The images of each batch, or why they can't be read."""
        if not self.pictures.from_files:
            readable = _Readable(self.pictures)
            for batch in batches:
                yield [readable[index] for index in batch.tolist()]
            return
        for packed in read_by_workers(_Readable(self.pictures), batches, _packed, world=world):
            yield _unpacked(*packed)

    def _prepared(self, index: int, image: Tensor, epoch: _Epoch | None, batch: int) -> tuple[Tensor, Target]:
        """An image as the network gets it, and its target."""
        objects = self.pictures.objects[index]
        image = image.float() / 255
        boxes = objects.boxes[~objects.crowd].to(image.device)
        labels = objects.labels[~objects.crowd].to(image.device)
        if epoch is not None:
            image, boxes = self._augmented(image, boxes, epoch.images[:, index], epoch.batches[batch])
            # Of the thinnest boxes rounding may leave nothing.
            kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, labels = boxes[kept], labels[kept]
        return image, {"boxes": boxes, "labels": labels, "image": torch.tensor(index)}

    def _augmented(self, image: Tensor, boxes: Tensor, draws: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        from torchvision.transforms.v2 import functional as transforms
        from torchvision.tv_tensors import BoundingBoxes, Image

        picture = Image(image)
        found = BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(image.shape[-2:]))
        if self.flip and draws[0] < 0.5:
            picture = transforms.horizontal_flip(picture)
            found = transforms.horizontal_flip(found)
        if self.scales:
            side = self.scales[int(scale * len(self.scales))]
            picture, found = (
                transforms.resize(one, [side], max_size=max(side + 1, self.longest), antialias=True)
                for one in (picture, found)
            )
        image, boxes = picture.as_subclass(Tensor), found.as_subclass(Tensor)
        if self.colour_jitter:
            image = jittered(image[None], jitter_factors(draws[1:, None], self.colour_jitter), 1.0)[0]
        return image, boxes


def check_shape(image: Tensor) -> None:
    """Raise `ValueError` if an image (3, H, W) is too elongated to be resized."""
    short, long = sorted(image.shape[1:])
    if long > _ELONGATED * short:
        raise ValueError(
            f"it is {image.shape[2]}x{image.shape[1]} pixels: expected at most {_ELONGATED} times as long as"
            " wide"
        )


@dataclass(frozen=True)
class Relabelled:
    """`pictures` with each label replaced by that of `labels`."""

    pictures: Pictures
    labels: tuple[int, ...]

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """As of `pictures`."""
        return self.pictures.sizes

    @cached_property
    def objects(self) -> Sequence[Boxes]:
        """Those of `pictures` with the other labels."""
        labels = torch.tensor(self.labels)
        return [replace(found, labels=labels[found.labels]) for found in self.pictures.objects]

    @property
    def from_files(self) -> bool:
        """As of `pictures`."""
        return self.pictures.from_files

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index]

    def name(self, index: int) -> str:
        """As of `pictures`."""
        return self.pictures.name(index)


@dataclass(frozen=True)
class _Epoch:
    """The random numbers in [0, 1) of one pass."""

    images: Tensor
    """(4, images)"""
    batches: Tensor
    """(batches,)"""


class _Readable(Dataset[tuple[int, Tensor | str]]):
    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            image = self._pictures[index]
            check_shape(image)
            return index, image
        except MemoryError:
            raise
        except Exception as error:  # a decoder may raise anything on a broken file
            return index, reason(error)


def _packed(items: list[tuple[int, Tensor | str]]) -> tuple[list[tuple[int, Any]], Tensor]:
    """The images of a batch in one tensor: each tensor that a worker sends takes a file descriptor.

    The first part has the index of each, and its shape or why it can't be read.
    """
    images = [image.flatten() for _, image in items if isinstance(image, Tensor)]
    heads = [(index, tuple(one.shape) if isinstance(one, Tensor) else one) for index, one in items]
    return heads, torch.cat(images) if images else torch.empty(0, dtype=torch.uint8)


def _unpacked(heads: list[tuple[int, Any]], pixels: Tensor) -> list[tuple[int, Tensor | str]]:
    found: list[tuple[int, Tensor | str]] = []
    at = 0
    for index, shape in heads:
        if isinstance(shape, str):
            found.append((index, shape))
            continue
        size = math.prod(shape)
        found.append((index, pixels[at : at + size].view(shape)))
        at += size
    return found


_ELONGATED = 50
"""The longer side over the shorter one at most: more would be less than a pixel once it is resized."""
