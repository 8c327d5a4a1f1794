"""Synthetic images: a textured shape among distractors, partly covered, each determined by its index.

A class is a combination of shape and texture, so that neither alone identifies it. Position, size, rotation,
colours, background, clutter and the covering bar are random, so that no pixel does.

The fine drawing asks for more of what tells natural classes apart. A class is a combination of shape, texture
and hue, of which some are much alike; sizes vary by a factor of two, and the light of an image in strength
and colour, so that scale and hue are to be seen relative to the rest of the image.

In these two the background is independent of the class. Natural images' backgrounds tell much about theirs
(Xiao, Engstrom, Ilyas and Madry, Noise or Signal: The Role of Image Backgrounds in Object Recognition, ICLR
2021), and natural classes come in groups within which other cues tell them apart than between groups. The
drawing superclasses has both: each superclass has its own backgrounds and clutter, and its classes differ in
one cue, which is the outline, the texture or the hue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wnexplore.data.drawing import (
    FINE_OUTLINES,
    FINE_TEXTURES,
    HUES,
    OUTLINES,
    TEXTURES,
    Floats,
    reaches,
)
from wnexplore.data.in_memory import TensorSplit
from wnexplore.data.painting import (
    WAVES,
    Draws,
    background,
    edge,
    grid,
    mix,
    paint_clutter,
    paint_object,
    placed,
    polar,
    textured,
)
from wnexplore.data.splits import Augment, Data
from wnexplore.design.data_source import DataSource


def shapes(source: DataSource, resolution: int, augment: Augment) -> Data:
    """The data set `source`: half as many test images as training images, classes in turn."""
    assert source.classes is not None
    assert source.images is not None
    classes, drawn = source.classes, _DRAWN[source.drawing]
    kinds = drawn.kinds_of(classes)
    names = tuple(drawn.name(kind) for kind in kinds)
    moments = torch.full((3, 1, 1), _MEAN), torch.full((3, 1, 1), _STD)
    jitter, flip, shift = augment.colour_jitter, bool(augment.flip), resolution // 16

    def split(stream: int, count: int, *augmented: Any) -> TensorSplit:
        labels = torch.arange(count) % classes
        return TensorSplit(drawn(kinds, resolution, count, stream), labels, resolution, *moments, *augmented)

    train, test = split(0, source.images, shift, flip, jitter), split(1, source.images // 2)
    return Data(source.label, source.classes, names, train, test)


@dataclass(frozen=True)
class DrawnImages:
    """`count` images, drawn on access; the class of image i is i modulo the number of classes."""

    kinds: tuple[tuple[int, ...], ...]
    """Shape and texture of each class."""
    resolution: int
    count: int
    seed: int

    @classmethod
    def kinds_of(cls, classes: int) -> tuple[tuple[int, ...], ...]:
        """The kinds of so many classes, with about as many values of each part."""
        return _combined(classes, parts=2)

    @classmethod
    def name(cls, kind: tuple[int, ...]) -> str:
        """A kind in words."""
        shape, texture = kind
        return f"{list(TEXTURES)[texture]} {list(OUTLINES)[shape]}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 3, resolution, resolution)."""
        return self.count, 3, self.resolution, self.resolution

    def __getitem__(self, index: Tensor) -> Tensor:
        # A few at a time: within the cache, drawing is several times faster.
        at_once = max(1, _PIXELS_AT_ONCE // self.resolution**2)
        drawn = [self._drawn(part.numpy()) for part in index.split(at_once)]
        return torch.from_numpy(np.concatenate(drawn))

    def _drawn(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        draw = Draws(self.seed, index.astype(np.uint64))
        x, y = grid(self.resolution)
        kind = np.array(self.kinds)[index % len(self.kinds)].T
        canvas = self._surroundings(draw, x, y, kind)
        self._paint_object(canvas, draw, x, y, kind)
        _paint_bar(canvas, draw, x, y)
        self._light(canvas, draw)
        canvas += draw.noise(self.resolution**2).reshape(canvas.shape)
        pixels = (canvas * 255 + 0.5).clip(0, 255).astype(np.uint8)
        return pixels.reshape(len(index), 3, self.resolution, self.resolution)

    def _surroundings(self, draw: Draws, x: Floats, y: Floats, kind: NDArray[np.int64]) -> Floats:
        """Background and clutter of any class: (N, 3, pixels)."""
        canvas = background(draw, x, y)
        paint_clutter(canvas, draw, x, y, draw.choice(len(OUTLINES)))
        return canvas

    def _paint_object(
        self, canvas: Floats, draw: Draws, x: Floats, y: Floats, kind: NDArray[np.int64]
    ) -> None:
        _paint_object(canvas, draw, x, y, *kind)

    def _light(self, canvas: Floats, draw: Draws) -> None:
        """Everything is seen as it is."""


class FineImages(DrawnImages):
    """The fine drawing: a kind is shape, texture and hue."""

    @classmethod
    def kinds_of(cls, classes: int) -> tuple[tuple[int, ...], ...]:
        """As of `DrawnImages`."""
        return _combined(classes, parts=3)

    @classmethod
    def name(cls, kind: tuple[int, ...]) -> str:
        """As of `DrawnImages`."""
        shape, texture, hue = kind
        return f"{HUES[hue]}, {list(FINE_TEXTURES)[texture]} {list(FINE_OUTLINES)[shape]}"

    def _paint_object(
        self, canvas: Floats, draw: Draws, x: Floats, y: Floats, kind: NDArray[np.int64]
    ) -> None:
        _paint_fine_object(canvas, draw, x, y, *kind)

    def _light(self, canvas: Floats, draw: Draws) -> None:
        """Light of random strength and colour."""
        canvas *= draw.uniform(0.6, 1.2)[:, None] + np.float32(_TINT) * (draw.colour() - np.float32(0.5))


class SuperclassImages(DrawnImages):
    """The drawing superclasses: a kind is shape, texture, hue, the superclass, and the number of those."""

    @classmethod
    def kinds_of(cls, classes: int) -> tuple[tuple[int, ...], ...]:
        """The kinds of so many classes, about as many superclasses as classes in each, in turn."""
        superclasses = next(n for n in range(1, 11) if n * n >= classes)
        kinds = []
        for label in range(classes):
            member, superclass = divmod(label, superclasses)
            # All start elsewhere, then their members go on in one of the three parts.
            parts = [(step * superclass + start) % 10 for step, start in ((3, 0), (5, 1), (7, 2))]
            cue = superclass % len(parts)
            parts[cue] = (parts[cue] + member) % 10
            kinds.append((*parts, superclass, superclasses))
        return tuple(kinds)

    @classmethod
    def name(cls, kind: tuple[int, ...]) -> str:
        """As of `DrawnImages`, with the superclass, from 0."""
        *parts, superclass, _ = kind
        return f"{FineImages.name(tuple(parts))} of superclass {superclass}"

    def _surroundings(self, draw: Draws, x: Floats, y: Floats, kind: NDArray[np.int64]) -> Floats:
        *_, superclass, superclasses = kind
        canvas = _background_of(draw, x, y, superclass, int(superclasses[0]))
        paint_clutter(canvas, draw, x, y, (3 * superclass + draw.choice(3)) % len(OUTLINES))
        return canvas

    def _paint_object(
        self, canvas: Floats, draw: Draws, x: Floats, y: Floats, kind: NDArray[np.int64]
    ) -> None:
        _paint_fine_object(canvas, draw, x, y, *kind[:3])


_DRAWN: dict[str, type[DrawnImages]] = {
    "coarse": DrawnImages,
    "fine": FineImages,
    "superclasses": SuperclassImages,
}
"""The images of each of `DRAWINGS`."""


def _combined(classes: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """`parts` numbers for each class, which together differ, with about as many values of each."""
    across = next(n for n in range(1, 11) if n**parts >= classes)
    return tuple(tuple(label // across**part % across for part in range(parts)) for label in range(classes))


def _background_of(
    draw: Draws, x: Floats, y: Floats, superclass: NDArray[np.int64], superclasses: int
) -> Floats:
    """The same with hues, directions and lengths of waves around those of the superclass: (N, 3, pixels)."""
    number = superclass[:, None]
    tone = _pure((number + draw.uniform(-0.4, 0.4)) / np.float32(superclasses))
    base = np.float32(0.15) + np.float32(0.35) * (tone + draw.colour())
    canvas = np.repeat(base, len(x), axis=2).astype(np.float32)
    for wave in range(2):
        angle = number * np.float32(3 * np.pi / superclasses) + draw.uniform(-0.5, 0.5)
        waves = 2 + 2 * ((3 * number + wave) % 5) + draw.uniform(-1, 1)
        phase = draw.uniform(0, 2 * np.pi)
        height = np.sin(waves * np.cos(angle) * x + waves * np.sin(angle) * y + phase)
        amplitude = (draw.colour() - np.float32(0.5)) * np.float32(2 * WAVES)
        canvas += amplitude * height[:, None].astype(np.float32)
    return canvas


def _paint_object(
    canvas: Floats, draw: Draws, x: Floats, y: Floats, shape: NDArray[np.int64], texture: NDArray[np.int64]
) -> None:
    size = draw.uniform(*_SIZES)
    paint_object(canvas, draw, placed(draw, x, y, size, reach=_REACH), size, shape, texture)


def _paint_fine_object(
    canvas: Floats,
    draw: Draws,
    x: Floats,
    y: Floats,
    shape: NDArray[np.int64],
    texture: NDArray[np.int64],
    hue: NDArray[np.int64],
) -> None:
    size = draw.uniform(*_FINE_SIZES)
    u, v = placed(draw, x, y, size, reach=_REACH)
    radius, angle, reach = polar(u, v, reaches("fine")[shape], draw.uniform(0, 2 * np.pi))
    turn = draw.uniform(0, 2 * np.pi)
    second = textured(list(FINE_TEXTURES.values()), texture, turn, u, v, radius / reach, angle)
    # Within half a step of its hue, so that neighbours touch; one colour light, the other dark.
    pure = _pure((hue[:, None] + draw.uniform(-0.5, 0.5)) / np.float32(len(HUES)))
    light = np.where(draw.uniform() < 0.5, 1.0, 0.0).astype(np.float32)[:, None]
    first, other = (
        (np.float32(0.35) + np.float32(0.65) * side) * (pure + (1 - pure) * side * np.float32(0.5))
        for side in (light, 1 - light)
    )
    colour = first + (other - first) * second[:, None]
    mix(canvas, colour.astype(np.float32), edge((reach - radius) * size, x))


def _pure(hue: Floats) -> Floats:
    """Saturated colours (N, 3, 1) of hues (N, 1), from 0 to 1 around their circle."""
    thirds = np.arange(3, dtype=np.float32)[None, :, None] / np.float32(3)
    pure: Floats = np.float32(0.5) + np.float32(0.5) * np.cos(np.float32(2 * np.pi) * (hue[:, None] - thirds))
    return pure


def _paint_bar(canvas: Floats, draw: Draws, x: Floats, y: Floats) -> None:
    """A bar across the image, near its centre."""
    angle, offset, width = draw.uniform(0, 2 * np.pi), draw.uniform(-0.5, 0.5), draw.uniform(0.03, _BAR)
    across = np.abs(np.cos(angle) * x + np.sin(angle) * y - offset)
    mix(canvas, draw.colour(), edge(width - across, x))


_MEAN, _STD = 127.0, 64.0
_BAR = 0.08
_SIZES = 0.55, 0.8
_FINE_SIZES = 0.45, 0.9
_TINT = 0.4
_REACH = 0.2
_PIXELS_AT_ONCE = 2**16
"""About the number of pixels drawn at a time."""
