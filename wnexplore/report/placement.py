"""Places labels next to their points without overlap. Plain geometry, in points (1/72 inch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Box(NamedTuple):
    """An axis-aligned rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area of the intersection."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, other: Box) -> bool:
        """Whether it lies inside `other`."""
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


Boxes = np.ndarray[Any, np.dtype[np.float64]]
"""Many boxes: left, bottom, right and top edge of each, (N, 4)."""

_Edges = np.ndarray[Any, np.dtype[np.float64]]
"""The same, a row of each edge: (4, N)."""
_Choice = np.ndarray[Any, np.dtype[np.bool_]]

_RADII = (5.0, 9.0, 14.0, 20.0)
_ANGLES = tuple(math.radians(angle) for angle in (90, 270, 0, 180, 45, 135, 315, 225, 65, 115, 245, 295))
_LEADER_FROM = 12.0
"""The distance beyond which a line connects a label to its point."""


def place(
    labels: Sequence[Label], hard: Sequence[Box] | Boxes, soft: Sequence[Box], area: Box
) -> list[Box | None]:
    """A box per label inside `area` without overlap with `hard` or other labels; None if there is no room.

    A label's line, if it needs one, doesn't overlap either. Of the free places the one nearest to the point
    with the least overlap with `soft` (error bars, lines) is taken; earlier labels choose first.
    """
    taken, covered = _edges(hard), _edges(soft)
    boxes: list[Box | None] = []
    for label in labels:
        near = _surroundings(label)
        box = _best(label, taken[:, _touched(near, taken)], covered[:, _touched(near, covered)], area)
        boxes.append(box)
        if box is not None:
            taken = np.hstack([taken, _edges([box, *_line(label, box)])])
    return boxes


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The ascending `heights`, moved as little as possible to be `gap` apart, between `low` and `high`.

    A least-squares solution: overlapping neighbours are pooled at their mean.
    """
    pools: list[tuple[float, int]] = []
    for index, height in enumerate(heights):
        # After subtracting its offset in the row, each height must only be at least the one before.
        total, count = height - gap * index, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    last = gap * (len(flat) - 1)
    return [max(min(box, high - last), low) + gap * index for index, box in enumerate(flat)]


def leader(label: Label, box: Box) -> tuple[float, float] | None:
    """The end of a label's line on its box; None if the label is so near that it needs none."""
    x = min(max(label.x, box.left), box.right)
    y = min(max(label.y, box.bottom), box.top)
    return (x, y) if math.hypot(x - label.x, y - label.y) > _LEADER_FROM else None


def straight(start: tuple[float, float], end: tuple[float, float]) -> Box:
    """The box of a horizontal or vertical line two points thick."""
    (x0, x1), (y0, y1) = sorted((start[0], end[0])), sorted((start[1], end[1]))
    return Box(x0 - 1, y0 - 1, x1 + 1, y1 + 1)


def _line(label: Label, box: Box) -> list[Box]:
    """Small boxes along a label's line, from its marker to the text."""
    end = leader(label, box)
    if end is None:
        return []
    along = [step / 8 for step in range(3, 8)]
    centres = [(label.x + t * (end[0] - label.x), label.y + t * (end[1] - label.y)) for t in along]
    return [Box(x - 1, y - 1, x + 1, y + 1) for x, y in centres]


def _surroundings(label: Label) -> Box:
    """The area that any position of the label can touch."""
    across, up = max(_RADII) + label.width, max(_RADII) + label.height
    return Box(label.x - across, label.y - up, label.x + across, label.y + up)


def _edges(boxes: Sequence[Box] | Boxes) -> _Edges:
    return np.array(boxes, dtype=np.float64).reshape(len(boxes), 4).T


def _touched(box: Box, others: _Edges) -> _Choice:
    """Which of `others` share an area with `box`."""
    left, bottom, right, top = others
    found: _Choice = (left < box.right) & (right > box.left) & (bottom < box.top) & (top > box.bottom)
    return found


def _overlaps(box: Box, others: _Edges) -> list[float]:
    """The areas that `others` share with `box`, as `Box.overlap` has them, without zeros."""
    left, bottom, right, top = others[:, _touched(box, others)]
    width = np.minimum(box.right, right) - np.maximum(box.left, left)
    height = np.minimum(box.top, top) - np.maximum(box.bottom, bottom)
    areas: list[float] = (width * height).tolist()
    return areas


def _best(label: Label, hard: _Edges, soft: _Edges, area: Box) -> Box | None:
    """The free place of the lowest score, the first one of equal ones."""
    places = _places(label)
    best, lowest = None, math.inf
    for number in _free(places, hard, area):
        # Without what it covers: most places are too far away to be better than one that covers nothing.
        score = _SCORES[number]
        if score >= lowest:
            continue
        box = Box(*places[number].tolist())
        line = _line(label, box)
        if any(_touched(part, hard).any() for part in line):
            continue
        # Added one after the other, so that the last digit doesn't depend on how many there are.
        score += 4.0 * sum(share for part in (box, *line) for share in _overlaps(part, soft))
        if score < lowest:
            best, lowest = box, score
    return best


_SCORES = [2.0 * radius + 0.3 * preference for radius in _RADII for preference in range(len(_ANGLES))]
"""Of each place of `_places`, lower for better ones."""
_RADIUS = np.repeat(_RADII, len(_ANGLES))
_ACROSS, _UP = (np.tile([way(angle) for angle in _ANGLES], len(_RADII)) for way in (math.cos, math.sin))


def _places(label: Label) -> Boxes:
    """The label's box touching each circle around its point, at each angle."""
    left = label.x + _RADIUS * _ACROSS - label.width * (1 - _ACROSS) / 2
    bottom = label.y + _RADIUS * _UP - label.height * (1 - _UP) / 2
    return np.stack([left, bottom, left + label.width, bottom + label.height], axis=1)


def _free(places: Boxes, hard: _Edges, area: Box) -> list[int]:
    """The numbers of the places inside `area` that share no area with `hard`."""
    left, bottom, right, top = places.T
    inside = (left >= area.left) & (right <= area.right) & (bottom >= area.bottom) & (top <= area.top)
    free = np.flatnonzero(inside)
    # Among many markers, some of them leave few places to compare with the others.
    for start in range(0, hard.shape[1], _AT_ONCE):
        free = free[~_touching(places[free], hard[:, start : start + _AT_ONCE]).any(axis=1)]
        if not len(free):
            break
    return free.tolist()


_AT_ONCE = 100


def _touching(boxes: Boxes, others: _Edges) -> _Choice:
    """Which of `others` share an area with which of `boxes`, (boxes, others)."""
    left, bottom, right, top = others[:, None]
    found: _Choice = (
        (left < boxes[:, 2:3]) & (right > boxes[:, :1]) & (bottom < boxes[:, 3:]) & (top > boxes[:, 1:2])
    )
    return found
