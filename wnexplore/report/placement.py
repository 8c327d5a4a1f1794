"""Where labels go beside their points without covering anything. Plain geometry, in points (1/72 inch)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """An upright rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, other: Box) -> bool:
        """Whether `other` covers all of it."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )


@dataclass(frozen=True)
class Label:
    """A text's size and the point it belongs to."""

    x: float
    y: float
    width: float
    height: float


_RADII = (5.0, 9.0, 14.0, 20.0)
_ANGLES = tuple(math.radians(angle) for angle in (90, 270, 0, 180, 45, 135, 315, 225, 65, 115, 245, 295))
_LEADER_FROM = 12.0
"""The distance from which a line has to say which point a label belongs to."""


def place(labels: Sequence[Label], hard: Sequence[Box], soft: Sequence[Box], area: Box) -> list[Box | None]:
    """A box for each label inside `area`, clear of `hard` and of each other, None where there is none.

    A label's line, where it needs one, is kept clear of them too. Of the free places the one nearest to
    the point and clearest of `soft` (error bars, lines) is taken; earlier labels choose first.
    """
    taken = list(hard)
    boxes: list[Box | None] = []
    for label in labels:
        near = _surroundings(label)
        options = _free(
            label,
            [other for other in taken if near.overlap(other)],
            [other for other in soft if near.overlap(other)],
            area,
        )
        found = min(options, key=lambda option: option[0], default=None)
        if found is None:
            boxes.append(None)
            continue
        boxes.append(found[1])
        taken.append(found[1])
        taken.extend(_line(label, found[1]))
    return boxes


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`heights`, which ascend, moved as little as it takes to be `gap` apart, between `low` and `high`.

    Neighbours that would touch share the mean of where they would be (least squares, by pooling them).
    """
    pools: list[tuple[float, int]] = []
    for index, height in enumerate(heights):
        # Less its place in the row, a height has only to be no smaller than the one before.
        total, count = height - gap * index, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    last = gap * (len(flat) - 1)
    return [max(min(box, high - last), low) + gap * index for index, box in enumerate(flat)]


def leader(label: Label, box: Box) -> tuple[float, float] | None:
    """Where on its box a label's line ends; None if it stands so near that it needs none."""
    x = min(max(label.x, box.left), box.right)
    y = min(max(label.y, box.bottom), box.top)
    return (x, y) if math.hypot(x - label.x, y - label.y) > _LEADER_FROM else None


def straight(start: tuple[float, float], end: tuple[float, float]) -> Box:
    """The box of a horizontal or vertical line two points thick."""
    (x0, x1), (y0, y1) = sorted((start[0], end[0])), sorted((start[1], end[1]))
    return Box(x0 - 1, y0 - 1, x1 + 1, y1 + 1)


def _line(label: Label, box: Box) -> list[Box]:
    """Small boxes along a label's line, from outside its own marker to the text."""
    end = leader(label, box)
    if end is None:
        return []
    along = [step / 8 for step in range(3, 8)]
    centres = [(label.x + t * (end[0] - label.x), label.y + t * (end[1] - label.y)) for t in along]
    return [Box(x - 1, y - 1, x + 1, y + 1) for x, y in centres]


def _surroundings(label: Label) -> Box:
    """All that a place of the label can touch."""
    across, up = max(_RADII) + label.width, max(_RADII) + label.height
    return Box(label.x - across, label.y - up, label.x + across, label.y + up)


def _free(label: Label, hard: list[Box], soft: list[Box], area: Box) -> Iterator[tuple[float, Box]]:
    for radius in _RADII:
        for preference, angle in enumerate(_ANGLES):
            box = _box_at(label, radius, angle)
            parts = [box, *_line(label, box)]
            if box.inside(area) and not any(part.overlap(other) for part in parts for other in hard):
                covered = sum(part.overlap(other) for part in parts for other in soft)
                yield 2.0 * radius + 0.3 * preference + 4.0 * covered, box


def _box_at(label: Label, radius: float, angle: float) -> Box:
    """The label's box touching a circle round its point, on the side that `angle` says."""
    across, up = math.cos(angle), math.sin(angle)
    left = label.x + radius * across - label.width * (1 - across) / 2
    bottom = label.y + radius * up - label.height * (1 - up) / 2
    return Box(left, bottom, left + label.width, bottom + label.height)
