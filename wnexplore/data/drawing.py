"""The drawings of `shapes`: outlines around a centre, and textures inside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_Doubles = NDArray[np.floating]

ANGLES = 1024
"""Number of directions in which an outline's radius is tabulated."""


@cache
def reaches(drawing: str = "coarse") -> Floats:
    """The radius of each outline in each direction, all of area pi: (outlines, ANGLES)."""
    theta = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    outlines = OUTLINES if drawing == "coarse" else FINE_OUTLINES
    rows = [outline(theta) for outline in outlines.values()]
    return np.stack([row / np.sqrt(np.mean(row**2)) for row in rows]).astype(np.float32)


def _polygon(radii: _Doubles, angles: _Doubles) -> Callable[[_Doubles], _Doubles]:
    """The outline through corners in the order of their angles, from 0 to below 2 pi, centre inside."""

    def reach(theta: _Doubles) -> _Doubles:
        after = np.searchsorted(angles, theta, side="right") % len(angles)
        before = after - 1
        (r0, a0), (r1, a1) = ((radii[i], angles[i]) for i in (before, after))
        return r0 * r1 * np.sin(a1 - a0) / (r0 * np.sin(theta - a0) + r1 * np.sin(a1 - theta))

    return reach


def _star(tips: int, inner: float) -> Callable[[_Doubles], _Doubles]:
    """A star; a regular polygon where `inner` is the radius of its sides' midpoints."""
    corners = np.arange(2 * tips)
    return _polygon(np.where(corners % 2 == 0, 1.0, inner), corners * (np.pi / tips))


def _regular(corners: int) -> Callable[[_Doubles], _Doubles]:
    return _star(corners, np.cos(np.pi / corners))


def _cross() -> Callable[[_Doubles], _Doubles]:
    width = 0.35
    quarter = np.array([[1, width], [width, width], [width, 1]])
    radii, angles = np.hypot(*quarter.T), np.arctan2(quarter[:, 1], quarter[:, 0])
    return _polygon(np.tile(radii, 4), np.concatenate([angles + i * np.pi / 2 for i in range(4)]))


def _half_disk() -> Callable[[_Doubles], _Doubles]:
    arc = np.linspace(-np.pi / 2, np.pi / 2, 65)
    x, y = np.cos(arc) - 0.4, np.sin(arc)
    angles = np.arctan2(y, x) % (2 * np.pi)
    order = np.argsort(angles)
    return _polygon(np.hypot(x, y)[order], angles[order])


OUTLINES: dict[str, Callable[[_Doubles], _Doubles]] = {
    "disk": lambda theta: np.ones_like(theta),
    "triangle": _regular(3),
    "square": _regular(4),
    "star": _star(5, 0.45),
    "ellipse": lambda theta: 1 / np.hypot(np.cos(theta), 2.2 * np.sin(theta)),
    "cross": _cross(),
    "half disk": _half_disk(),
    "trefoil": lambda theta: 1 + 0.45 * np.cos(3 * theta),
    "heart": lambda theta: 1 - 0.85 * np.cos(theta),
    "drop": lambda theta: 0.7 + 0.8 * np.maximum(np.cos(theta), 0) ** 8,
}
"""Name -> radius in directions from 0 to 2 pi."""


def _waves(u: Floats, v: Floats, rho: Floats, theta: Floats) -> Floats:
    bent: Floats = np.sin(7 * u + 2 * np.sin(5 * v))
    return bent


Texture = Callable[[Floats, Floats, Floats, Floats], Floats]

TEXTURES: dict[str, Texture] = {
    "even": lambda u, v, rho, theta: np.full_like(u, -1),
    "striped": lambda u, v, rho, theta: np.sin(8 * u),
    "checked": lambda u, v, rho, theta: np.sin(5 * u) * np.sin(5 * v),
    "halved": lambda u, v, rho, theta: u * 2,
    "hollow": lambda u, v, rho, theta: (np.float32(0.6) - rho) * 3,
    "ringed": lambda u, v, rho, theta: np.sin(10 * rho),
    "rayed": lambda u, v, rho, theta: np.sin(6 * theta),
    "dotted": lambda u, v, rho, theta: np.cos(7 * u) + np.cos(7 * v) - np.float32(0.8),
    "shaded": lambda u, v, rho, theta: u * np.float32(0.2),
    "wavy": _waves,
}
"""Name -> a function that is positive where the second colour is, of position in units of the shape, radius
relative to the outline's, and angle."""


def _ellipse(ratio: float) -> Callable[[_Doubles], _Doubles]:
    return lambda theta: 1 / np.hypot(np.cos(theta), ratio * np.sin(theta))


def _lobes(count: int) -> Callable[[_Doubles], _Doubles]:
    return lambda theta: 1 + 0.45 * np.cos(count * theta)


FINE_OUTLINES: dict[str, Callable[[_Doubles], _Doubles]] = {
    "square": OUTLINES["square"],
    "pentagon": _regular(5),
    "star": OUTLINES["star"],
    "six-pointed star": _star(6, 0.5),
    "oval": _ellipse(1.5),
    "ellipse": OUTLINES["ellipse"],
    "trefoil": OUTLINES["trefoil"],
    "quatrefoil": _lobes(4),
    "triangle": OUTLINES["triangle"],
    "half disk": OUTLINES["half disk"],
}
"""Outlines that come in similar pairs, as in `OUTLINES`."""


def _striped(waves: float) -> Texture:
    return lambda u, v, rho, theta: np.sin(np.float32(waves) * u)


def _checked(waves: float) -> Texture:
    return lambda u, v, rho, theta: np.sin(np.float32(waves) * u) * np.sin(np.float32(waves) * v)


def _ringed(waves: float) -> Texture:
    return lambda u, v, rho, theta: np.sin(np.float32(waves) * rho)


def _rayed(count: int) -> Texture:
    return lambda u, v, rho, theta: np.sin(np.float32(count) * theta)


FINE_TEXTURES: dict[str, Texture] = {
    "broadly striped": _striped(5),
    "finely striped": _striped(9),
    "broadly checked": _checked(4),
    "finely checked": _checked(7),
    "broadly ringed": _ringed(7),
    "finely ringed": _ringed(12),
    "broadly rayed": _rayed(4),
    "finely rayed": _rayed(7),
    "shaded": TEXTURES["shaded"],
    "halved": TEXTURES["halved"],
}
"""Textures that come in similar pairs, as in `TEXTURES`: which it is shows relative to the shape's size."""

HUES = ("red", "orange", "yellow", "lime", "green", "turquoise", "cyan", "blue", "violet", "pink")
"""Around the circle of hues, from 0 in equal steps."""
