"""Labels next to their points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from wnexplore.report.placement import Box, Label, leader, place

AREA = Box(0, 0, 120, 90)
_spots = st.tuples(st.integers(10, 110), st.integers(10, 80))


def spots(label: Label) -> Iterator[tuple[float, Box]]:
    """Every place of a label, in the order of preference, with what its distance costs."""
    for radius in (5.0, 9.0, 14.0, 20.0):
        for order, degrees in enumerate((90, 270, 0, 180, 45, 135, 315, 225, 65, 115, 245, 295)):
            across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            left = label.x + radius * across - label.width * (1 - across) / 2
            bottom = label.y + radius * up - label.height * (1 - up) / 2
            box = Box(left, bottom, left + label.width, bottom + label.height)
            yield 2 * radius + 0.3 * order, box


def line(label: Label, box: Box) -> list[Box]:
    """Boxes along the line from a label to its point."""
    end = leader(label, box)
    shares = [step / 8 for step in range(3, 8)] if end is not None else []
    x, y = end or (0.0, 0.0)
    centres = [(label.x + share * (x - label.x), label.y + share * (y - label.y)) for share in shares]
    return [Box(x - 1, y - 1, x + 1, y + 1) for x, y in centres]


def one_by_one(labels: Sequence[Label], hard: Sequence[Box], soft: Sequence[Box]) -> list[Box | None]:
    """What `place` finds, by trying every place of every label against every box."""
    taken = [*hard]
    found: list[Box | None] = []
    for label in labels:
        best: tuple[float, Box] | None = None
        for cost, box in spots(label):
            parts = [box, *line(label, box)]
            if not box.inside(AREA) or any(part.overlap(other) for part in parts for other in taken):
                continue
            cost += 4 * sum(part.overlap(other) for part in parts for other in soft)
            if best is None or cost < best[0]:
                best = cost, box
        found.append(None if best is None else best[1])
        if best is not None:
            taken += [best[1], *line(label, best[1])]
    return found


@examples(60)
@given(
    st.lists(_spots, min_size=6, max_size=25),
    st.lists(_spots, min_size=8, max_size=30),
    st.sampled_from((12.0, 25.5)),
)
def test_each_label_has_the_best_of_all_places(
    markers: list[tuple[int, int]], bars: list[tuple[int, int]], width: float
) -> None:
    labels = [Label(x, y, width, 7) for x, y in markers[:8]]
    hard = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in markers]
    soft = [Box(x - 15, y - 1, x + 9, y + 1) for x, y in bars]
    assert place(labels, hard, soft, AREA) == one_by_one(labels, hard, soft)
