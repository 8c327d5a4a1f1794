"""Images with boxes from files in COCO's format, decoded by worker processes.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, https://arxiv.org/abs/1405.0312; the format
is that of https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wnexplore.data.coco_annotations import Annotations, read_annotations, size_of
from wnexplore.data.decoding import read_image, reason
from wnexplore.data.detection import Boxes, DetectionSplit
from wnexplore.data.preprocessing import to_tensor
from wnexplore.data.splits import Augment, Data
from wnexplore.errors import InputError, Notice, shown


def coco(path: Path, scales: tuple[int, ...], longest: int, augment: Augment) -> Data:
    """The images of path/annotations/instances_NAME.json in path/NAME or path/images/NAME.

    One NAME starts with "train", and these images are resized to `scales` and `longest`, as `DetectionSplit`
    says, and augmented; one starts with "val", and these stay as they are. Training images without a box,
    or with boxes of crowds alone, are left out. Boxes are clipped to their image, and left out if they have
    no area there. A `Notice` counts each of these.

    Raises `InputError` if a file is missing, or anything but such annotations, or if the categories of the
    two differ.
    """
    training, tested = (_located(path, start) for start in ("train", "val"))
    parts = [_read(*training, training=True), _read(*tested, training=False)]
    _check_categories(*(part.annotations for part in parts))
    flip = augment.flip is not False
    train = DetectionSplit(parts[0].pictures, scales, longest, flip, augment.colour_jitter)
    return _data(parts, train, DetectionSplit(parts[1].pictures, flip=False))


def tested_coco(path: Path) -> Data:
    """The images of `coco` that are tested, as its test and as its training; the others may be missing.

    Raises `InputError` as that.
    """
    part = _read(*_located(path, "val"), training=False)
    split = DetectionSplit(part.pictures, flip=False)
    return _data([part], split, split)


@dataclass(frozen=True, eq=False)
class CocoPictures:
    """The image files of a part, with their boxes; implements `Pictures`."""

    folder: str
    names: list[str]
    """Each image's file in `folder`."""
    sizes: list[tuple[int, int]]
    objects: ObjectsOfImages

    @property
    def from_files(self) -> bool:
        """As `Pictures.from_files`."""
        return True

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Tensor:
        """As `Pictures`; `ValueError` if the image hasn't the size that the annotations say."""
        height, width = self.sizes[index]
        image = read_image(self.name(index), {}, (width, height))
        if image.size != (width, height):
            raise ValueError(
                f"it is {image.width}x{image.height} pixels, and the annotations say {width}x{height}"
            )
        pixels = to_tensor(image)
        return pixels.round().clamp(0, 255).to(torch.uint8) if pixels.is_floating_point() else pixels

    def name(self, index: int) -> str:
        """Its path."""
        return os.path.join(self.folder, self.names[index])


@dataclass(frozen=True, eq=False)
class ObjectsOfImages(Sequence[Boxes]):
    """The objects in each image, in few tensors, so that hundreds of thousands reach a process in no time."""

    together: Boxes
    """Those of all images, one image after the other."""
    starts: list[int]
    """(images + 1,): the first object of each image, and their number."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> Boxes: ...

    @overload
    def __getitem__(self, index: slice) -> list[Boxes]: ...

    def __getitem__(self, index: int | slice) -> Boxes | list[Boxes]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        own = slice(self.starts[number], self.starts[number + 1])
        found = self.together
        return Boxes(found.boxes[own], found.labels[own], found.areas[own], found.crowd[own])


@dataclass(frozen=True, eq=False)
class _Part:
    annotations: Annotations
    file_sizes: list[int]
    """Of all images of the annotations, in bytes."""
    pictures: CocoPictures


def _located(path: Path, start: str) -> tuple[Path, str]:
    """The annotations whose NAME starts with `start`, and the folder of their images."""
    annotations = path / "annotations"
    expected = f"expected one file instances_{start}*.json in {shown(annotations, 300)}"
    try:
        there = sorted(os.listdir(annotations))
    except (OSError, ValueError) as error:
        raise InputError(f"data set 'coco': {expected}: {reason(error)}") from None
    found = [name for name in there if name.startswith(f"instances_{start}") and name.endswith(".json")]
    if len(found) != 1:
        listed = [shown(name) for name in (found or there)]
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        raise InputError(f"data set 'coco': {expected}, found {', '.join(listed[:5]) or 'nothing'}{more}")
    name = found[0].removeprefix("instances_").removesuffix(".json")
    folders = [str(path / name), str(path / "images" / name)]
    folder = next((one for one in folders if os.path.isdir(one)), None)
    if folder is None:
        either = " or ".join(shown(one, 300) for one in folders)
        raise InputError(f"data set 'coco': no folder of images: expected {either}")
    return annotations / found[0], folder


def _read(file: Path, folder: str, *, training: bool) -> _Part:
    found = read_annotations(file)
    file_sizes = _file_sizes(found, folder)
    boxes, kept = _clipped(found)
    boxed = np.zeros(len(found.names), dtype=np.bool_)
    boxed[found.images[kept & ~found.crowd]] = True
    if not boxed.any():
        raise InputError(
            f"{shown(file, 300)}: annotations: expected a box with an area in its image, found none"
        )
    left_out = ", which are left out" if training else ""
    _notice(found, f"images without boxes, but for those of crowds{left_out}", ~boxed, "images")
    chosen = np.flatnonzero(boxed) if training else np.arange(len(boxed))
    if training:
        kept &= boxed[found.images]
    order = np.flatnonzero(kept)
    order = order[np.argsort(found.images[order], kind="stable")]
    counts = np.bincount(found.images[order], minlength=len(boxed))[chosen]
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = np.where(np.isnan(found.areas), sides[:, 0] * sides[:, 1], found.areas).astype(np.float32)
    together = Boxes(*(torch.from_numpy(one[order]) for one in (boxes, found.labels, areas, found.crowd)))
    pictures = CocoPictures(
        folder,
        [found.names[image] for image in chosen],
        [found.sizes[image] for image in chosen],
        ObjectsOfImages(together, [0, *np.cumsum(counts).tolist()]),
    )
    return _Part(found, file_sizes, pictures)


def _file_sizes(found: Annotations, folder: str) -> list[int]:
    """In bytes. Raises `InputError` if a file is missing, or none."""
    sizes: list[int] = []
    missing: list[tuple[int, str]] = []
    for image, name in enumerate(found.names):
        try:
            sizes.append(size_of(os.path.join(folder, name)))
        except (OSError, ValueError) as error:
            missing.append((image, reason(error)))
    if missing:
        image, why = missing[0]
        path = shown(os.path.join(folder, found.names[image]), 300)
        more = f", and {len(missing) - 1} more images are missing" if len(missing) > 1 else ""
        raise InputError(
            f"{shown(found.file, 300)}: images[{image}] (id {shown(found.image_ids[image])}): can't find"
            f" {path}: {why}{more}"
        )
    return sizes


def _clipped(found: Annotations) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The boxes (N, 4) within their images as x1, y1, x2, y2, and which of them have an area there."""
    sides = np.array(found.sizes, dtype=np.float64)[found.images, ::-1]
    start, size = found.boxes[:, :2], found.boxes[:, 2:]
    with np.errstate(over="ignore"):  # infinity is clipped as well
        end = start + size
    clipped = np.concatenate([start.clip(0, sides), end.clip(0, sides)], axis=1).astype(np.float32)
    kept = ~_either(clipped[:, 2:] <= clipped[:, :2])
    outside = ~_either(size == 0) & _either((start >= sides) | (end <= 0))
    beyond = kept & _either((start < -_ROUNDING) | (end > sides + _ROUNDING))
    _notice(found, "boxes without width or height, which are left out", ~kept & ~outside, "annotations")
    _notice(found, "boxes outside of their images, which are left out", outside, "annotations")
    _notice(found, "boxes that reach beyond their images, which are clipped", beyond, "annotations")
    return clipped, kept


def _either(of_both: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether either of two is true: (N, 2) to (N,)."""
    return of_both[:, 0] | of_both[:, 1]


def _notice(found: Annotations, what: str, which: NDArray[np.bool_], key: str) -> None:
    if which.any():
        first = int(which.argmax())
        number = (found.image_ids if key == "images" else found.object_ids)[first]
        warnings.warn(
            f"{shown(found.file, 300)}: {what}: {which.sum()}, the first {key}[{first}] (id {shown(number)})",
            Notice,
            stacklevel=1,
        )


def _check_categories(train: Annotations, test: Annotations) -> None:
    """Raise `InputError` if the two have other ids or names."""
    for number in sorted(train.categories.keys() | test.categories.keys()):
        names = [one.categories.get(number) for one in (train, test)]
        if names[0] != names[1]:
            said = ["missing" if name is None else f"'{shown(name)}'" for name in names]
            raise InputError(
                f"data set 'coco': category {shown(number)} is {said[0]} in {shown(train.file, 300)} and"
                f" {said[1]} in {shown(test.file, 300)}: expected the same categories in both"
            )


def _data(parts: Sequence[_Part], train: DetectionSplit, test: DetectionSplit) -> Data:
    classes = tuple(parts[0].annotations.categories.values())
    return Data("coco", len(classes), classes, train, test, listing=_listing(classes, parts))


def _listing(classes: Sequence[str], parts: Sequence[_Part]) -> str:
    """As `listing_hash`, but that of images the sizes alone are hashed, and of annotations everything."""
    names, contents = hashlib.sha256(), hashlib.sha256()
    for part in parts:
        for name in (*classes, "", *part.annotations.names, ""):
            names.update(name.encode(errors="surrogatepass") + b"\0")
        contents.update(repr((part.annotations.digest, part.file_sizes)).encode())
    return f"{names.hexdigest()[:12]}-{contents.hexdigest()[:12]}"


_ROUNDING = 0.5
"""Pixels by which a box may be beyond its image because its numbers are rounded."""
