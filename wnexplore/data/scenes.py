"""Synthetic scenes: images of several textured shapes with their boxes, each determined by its index.

A class is a combination of shape and texture, as of the coarse drawing of `shapes`. An image has up to six
objects, of sizes from a twelfth to half of its side, anywhere in it, over a background with clutter. Later
ones cover earlier ones. A box holds what is seen of its object; one of which less than a quarter is seen has
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wnexplore.data.detection import Boxes, DetectionSplit
from wnexplore.data.drawing import OUTLINES, Floats
from wnexplore.data.painting import Draws, background, grid, paint_clutter, paint_object, placed
from wnexplore.data.shapes import DrawnImages
from wnexplore.data.splits import Augment, Data
from wnexplore.design.data_source import DataSource
from wnexplore.errors import InputError


def scenes(source: DataSource, resolution: int, augment: Augment, scales: tuple[int, ...] = ()) -> Data:
    """The data set `source`: half as many test images as training images, drawn at `resolution`.

    Training images are resized to one of `scales` if there are any.
    """
    assert source.classes is not None
    assert source.images is not None
    needed = 3 * resolution**2 * (source.images + source.images // 2)
    if needed > _MOST_BYTES:
        raise InputError(
            f"data set '{source.text}' takes {needed / 1e9:,.1f} GB at {resolution} pixels, more than the"
            f" {_MOST_BYTES / 1e9:,.1f} GB of drawn scenes: expected fewer images, or a smaller resolution"
        )
    kinds = DrawnImages.kinds_of(source.classes)
    train, test = (
        DrawnScenes(kinds, resolution, count, seed)
        for count, seed in ((source.images, _TRAIN), (source.images // 2, _TEST))
    )
    return Data(
        source.label,
        source.classes,
        tuple(DrawnImages.name(kind) for kind in kinds),
        DetectionSplit(train, scales, flip=augment.flip is not False, colour_jitter=augment.colour_jitter),
        DetectionSplit(test),
    )


@dataclass(frozen=True)
class DrawnScenes:
    """`count` images as `wnexplore.data.detection.Pictures`, drawn when the first is needed."""

    kinds: tuple[tuple[int, ...], ...]
    """Shape and texture of each class."""
    resolution: int
    count: int
    seed: int
    from_files: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`, uint8: (3, resolution, resolution)."""
        return self._drawn[0][index]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each image."""
        return [(self.resolution, self.resolution)] * self.count

    @property
    def objects(self) -> list[Boxes]:
        """The objects in each image."""
        return self._drawn[1]

    def name(self, index: int) -> str:
        """What an image is called in messages."""
        return f"scene {index}"

    @cached_property
    def _drawn(self) -> tuple[Tensor, list[Boxes]]:
        images = torch.empty(self.count, 3, self.resolution, self.resolution, dtype=torch.uint8)
        objects: list[Boxes] = []
        # A few at a time: within the cache, drawing is several times faster.
        for part in torch.arange(self.count).split(max(1, _PIXELS_AT_ONCE // self.resolution**2)):
            pixels, found = self._draw(part.numpy())
            images[part] = torch.from_numpy(pixels)
            objects += found
        return images, objects

    def _draw(self, index: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[Boxes]]:
        draw = Draws(self.seed, index.astype(np.uint64))
        x, y = grid(self.resolution)
        canvas = background(draw, x, y)
        paint_clutter(canvas, draw, x, y, draw.choice(len(OUTLINES)))
        owner = np.full((len(index), len(x)), -1)
        whole = np.zeros((_MOST, len(index)), dtype=np.int64)
        labels = np.zeros((_MOST, len(index)), dtype=np.int64)
        count = draw.choice(_MOST + 1)
        for number in range(_MOST):
            labels[number] = draw.choice(len(self.kinds))
            shape, texture = np.array(self.kinds)[labels[number]].T
            small, large = np.log(_RADII)
            size: Floats = np.exp(draw.uniform(small, large))
            there = (number < count).astype(np.float32)[:, None]
            at = placed(draw, x, y, size, reach=_REACH)
            covered = paint_object(canvas, draw, at, size, shape, texture, there) > 0.5
            owner[covered] = number
            whole[number] = covered.sum(1)
        canvas += draw.noise(len(x)).reshape(canvas.shape)
        pixels = (canvas * 255 + 0.5).clip(0, 255).astype(np.uint8)
        shaped = pixels.reshape(len(index), 3, self.resolution, self.resolution)
        return shaped, [
            _seen(owner[i].reshape(self.resolution, self.resolution), whole[:, i], labels[:, i])
            for i in range(len(index))
        ]


def _seen(owner: NDArray[np.int64], whole: NDArray[np.int64], labels: NDArray[np.int64]) -> Boxes:
    """The objects of one image, from the number of the object that each pixel shows (-1: none)."""
    boxes, kept, areas = [], [], []
    for number, pixels in enumerate(whole):
        seen = owner == number
        area = int(seen.sum())
        if area == 0 or area < _SEEN * pixels:
            continue
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        kept.append(labels[number])
        areas.append(area)
    return Boxes(
        torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        torch.tensor(kept, dtype=torch.int64),
        torch.tensor(areas, dtype=torch.float32),
        torch.zeros(len(kept), dtype=torch.bool),
    )


_MOST_BYTES = 2 * 10**9
"""Of all images, which are kept."""
_MOST = 6
"""Most objects of an image."""
_RADII = 0.1, 0.5
"""Of a shape's mean radius, where half of the image's side is 1."""
_REACH = 0.9
_SEEN = 0.25
_PIXELS_AT_ONCE = 2**16
_TRAIN, _TEST = 2, 3
"""Seeds; those of `shapes` are 0 and 1."""
