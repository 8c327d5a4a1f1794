"""Painting on images: backgrounds, clutter, textured shapes, and the random numbers that decide them.

All functions paint N images at once, whose pixels lie in one dimension; x and y are those of the pixels'
centres, from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wnexplore.data.drawing import ANGLES, TEXTURES, Floats, Texture, reaches


def background(draw: Draws, x: Floats, y: Floats) -> Floats:
    """Two waves of colour over a uniform background: (N, 3, pixels)."""
    canvas = np.repeat(np.float32(0.2) + np.float32(0.6) * draw.colour(), len(x), axis=2)
    for _ in range(2):
        angle, waves, phase = draw.uniform(0, 2 * np.pi), draw.uniform(1, 6), draw.uniform(0, 2 * np.pi)
        wave = np.sin(waves * np.cos(angle) * x + waves * np.sin(angle) * y + phase)
        canvas += (draw.colour() - np.float32(0.5)) * np.float32(WAVES) * wave[:, None]
    return canvas


def paint_clutter(canvas: Floats, draw: Draws, x: Floats, y: Floats, shape: NDArray[np.int64]) -> None:
    """A smaller shape of one colour, with an outline of `OUTLINES` at a random position."""
    size = draw.uniform(0.15, 0.3)
    u, v = placed(draw, x, y, size, reach=1.0)
    radius, _, reach = polar(u, v, reaches()[shape], draw.uniform(0, 2 * np.pi))
    mix(canvas, draw.colour(), edge((reach - radius) * size, x))


def paint_object(
    canvas: Floats,
    draw: Draws,
    at: tuple[Floats, Floats],
    size: Floats,
    shape: NDArray[np.int64],
    texture: NDArray[np.int64],
    there: Floats | None = None,
) -> Floats:
    """A textured shape around a centre, where coordinates `at` are 0; returns the covered share of each
    pixel: (N, pixels). `there` (N, 1): whether an image gets one, 1 or 0; by default each does.
    """
    radius, angle, reach = polar(*at, reaches()[shape], draw.uniform(0, 2 * np.pi))
    second = textured(
        list(TEXTURES.values()), texture, draw.uniform(0, 2 * np.pi), *at, radius / reach, angle
    )
    # One dark, one light, in random order: neither identifies the class, and both differ from most
    # backgrounds.
    light = np.where(draw.uniform() < 0.5, 1.0, 0.0).astype(np.float32)[:, None]
    first, other = (draw.colour() * np.float32(0.4) + np.float32(0.6) * side for side in (light, 1 - light))
    colour = first + (other - first) * second[:, None]
    covered = edge((reach - radius) * size, at[0][0])
    if there is not None:
        covered = covered * there
    mix(canvas, colour, covered)
    return covered


def textured(
    textures: Sequence[Texture],
    kinds: NDArray[np.int64],
    turn: Floats,
    u: Floats,
    v: Floats,
    rho: Floats,
    angle: Floats,
) -> Floats:
    """The share of the second colour in each pixel of textures rotated by `turn`."""
    cos, sin = np.cos(turn), np.sin(turn)
    along, across = cos * u + sin * v, cos * v - sin * u
    second = np.empty_like(u)
    for kind in np.unique(kinds):
        mask = kinds == kind
        second[mask] = textures[kind](along[mask], across[mask], rho[mask], angle[mask])
    share: Floats = (second * np.float32(4) + np.float32(0.5)).clip(0, 1)
    return share


def placed(draw: Draws, x: Floats, y: Floats, size: Floats, reach: float) -> tuple[Floats, Floats]:
    """Coordinates in units of `size` around a centre at most `reach` from the image's centre."""
    return (x - draw.uniform(-reach, reach)) / size, (y - draw.uniform(-reach, reach)) / size


def polar(u: Floats, v: Floats, shape: Floats, turn: Floats) -> tuple[Floats, Floats, Floats]:
    """Radius and angle of each pixel around a shape rotated by `turn`, and the shape's radius there.

    `shape` (N, ANGLES) is each shape's row of `reaches`.
    """
    radius = np.sqrt(u * u + v * v)
    angle = np.arctan2(v, u) + turn
    step = (angle * np.float32(ANGLES / (2 * np.pi))).astype(np.int64) % ANGLES
    return radius, angle, np.take_along_axis(shape, step, axis=1)


def edge(depth: Floats, x: Floats) -> Floats:
    """The covered share of each pixel, from its depth inside an edge."""
    covered: Floats = (depth * np.float32(np.sqrt(len(x)) / 2) + np.float32(0.5)).clip(0, 1)
    return covered


def mix(canvas: Floats, colour: Floats, covered: Floats) -> None:
    canvas += (colour - canvas) * covered[:, None]


class Draws:
    """Random numbers from a seed and an image's index: a hash of both and a counter."""

    def __init__(self, seed: int, index: NDArray[np.uint64]) -> None:
        self.key = _hash(index + np.uint64(seed << 40))
        self.count = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Floats:
        """One number per image, in [low, high), as (N, 1)."""
        self.count += 1
        bits = _hash(self.key + np.uint64(self.count)) >> np.uint64(40)
        numbers: Floats = (low + (high - low) * (bits.astype(np.float64) / 2**24)).astype(np.float32)[:, None]
        return numbers

    def choice(self, count: int) -> NDArray[np.int64]:
        """One whole number below `count` per image: (N,)."""
        return (self.uniform()[:, 0] * count).astype(np.int64)

    def colour(self) -> Floats:
        """One colour per image: (N, 3, 1) in [0, 1)."""
        return np.stack([self.uniform() for _ in range(3)], axis=1)

    def noise(self, pixels: int) -> Floats:
        """Uniform noise (N, 3, pixels) around 0."""
        pixel = np.arange(1 << 20, (1 << 20) + pixels).astype(np.uint64)
        bits = _hash(self.key[:, None] + pixel)
        mask = np.uint64((1 << 16) - 1)
        channels = [((bits >> np.uint64(by)) & mask).astype(np.float32) for by in (0, 16, 32)]
        noise: Floats = (np.stack(channels, axis=1) / np.float32(2**16) - np.float32(0.5)) * np.float32(
            2 * _NOISE
        )
        return noise


def _hash(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of each number."""
    z = numbers * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def grid(resolution: int) -> tuple[Floats, Floats]:
    """x and y of every pixel's centre, from -1 to 1: (resolution²,) each."""
    along = ((np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / resolution)) - 1
    y, x = np.meshgrid(along.astype(np.float32), along.astype(np.float32), indexing="ij")
    return x.ravel(), y.ravel()


WAVES = 0.15
"""The most by which a background's wave changes a colour."""
_NOISE = 0.06
