"""Groups layers by their depth in a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

Group = tuple[str, tuple[int, ...]]
"""A group's name, and the indices of its layers."""


def by_depth(names: Sequence[str], limit: int) -> list[Group]:
    """At most `limit` groups of consecutive layers called `names`, as many as possible.

    Layers of a group share the first parts of their dotted names: "layer1.0" of "layer1.0.conv1". Where names
    give too many groups, they are of equal size: "1-9".
    """
    for parts in range(max(name.count(".") for name in names) + 1, 0, -1):
        groups: list[tuple[str, list[int]]] = []
        for number, name in enumerate(names):
            start = ".".join(name.split(".")[:parts])
            if not groups or groups[-1][0] != start:
                groups.append((start, []))
            groups[-1][1].append(number)
        # A single group of many layers would hide their depth.
        if len(groups) <= limit and (len(groups) > 1 or len(names) == 1):
            return [(start, tuple(numbers)) for start, numbers in groups]
    size = math.ceil(len(names) / limit)
    starts = range(0, len(names), size)
    runs = [tuple(range(start, min(start + size, len(names)))) for start in starts]
    return [(f"{run[0] + 1}-{run[-1] + 1}" if len(run) > 1 else f"{run[0] + 1}", run) for run in runs]
