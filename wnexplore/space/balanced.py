"""Few networks of a space, in which each stage's settings are equally often: for fits of latencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.space.grid import Space
from wnexplore.space.selection import Indices
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.space.stage_features import stage_features


def balanced(space: Space, points: Indices, count: int, seed: int) -> dict[DesignPoint, Indices]:
    """Plain network -> `count` of `points` that are made of it, or all if there are no more.

    Where M and G are crossed per stage, each stage goes through its settings in a random order of its own,
    again and again: each is in as many networks as any other, to one, and pairs of two stages' settings are
    random. So each network by itself is a random one of the space. Other points are drawn at random. Each
    method and choice of the other axes gets networks in proportion to its settings, and at least one as long
    as those are at most half. The same seed gives the same, and a larger count more, of the same settings.
    """
    found = {}
    spans = list(space.spans())
    for plain in space.baselines(points):
        cells = {}
        for number, (cell, span) in enumerate(spans):
            if cell.baseline == plain and cell.method != "plain":
                kept = points[(points >= span.start) & (points < span.stop)]
                if len(kept):
                    cells[number] = kept - span.start
        shares = _shares({number: _settings(space, number, kept) for number, kept in cells.items()}, count)
        chosen = [
            spans[number][1].start + _of_cell(space, number, cells[number], share, seed)
            for number, share in shares.items()
        ]
        found[plain] = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.intp)
    return found


@dataclass(frozen=True)
class Balance:
    """How often the stages' settings are in some networks."""

    networks: int
    settings: int
    """Those of all stages."""
    fewest: int
    """Networks with the rarest setting."""
    most: int
    rank: int
    """Of the terms of the settings, in a sum over stages: as many sums of them are determined."""


def balance(points: Sequence[DesignPoint]) -> Balance:
    """The balance of networks made of one plain network."""
    designs: list[list[Hashable]] = []
    for point in points:
        skeleton = skeleton_of(point)
        stages = (stage_features(skeleton, s, stage_design(point, s)) for s in skeleton.stages)
        designs.append([(design.stage, design.function) for design in stages if design.method != "plain"])
    often = Counter(design for network in designs for design in network)
    number = {design: at for at, design in enumerate(often)}
    matrix = np.zeros((len(designs), len(number)))
    for at, network in enumerate(designs):
        matrix[at, [number[design] for design in network]] = 1
    rank = int(np.linalg.matrix_rank(matrix)) if matrix.size else 0
    fewest, most = min(often.values(), default=0), max(often.values(), default=0)
    return Balance(len(designs), len(number), fewest, most, rank)


def _settings(space: Space, cell: int, kept: NDArray[np.intp]) -> tuple[int, int]:
    """The most settings that a stage has among the points `kept`, and the number of these points."""
    return max(len(np.unique(choices)) for choices in _choices(space, cell, kept)), len(kept)


def _choices(space: Space, cell: int, kept: NDArray[np.intp]) -> Sequence[NDArray[np.intp]]:
    """Each stage's choice in the points `kept` of a cell; one for all stages if they share it."""
    stages = len(space.designs(cell))
    if not space.cells[cell].per_stage or not stages:
        return [kept]
    return np.unravel_index(kept, [space.cells[cell].choices] * stages)


def _shares(settings: Mapping[int, tuple[int, int]], count: int) -> dict[int, int]:
    """How many of `count` networks each cell gets, by its settings and at most its points."""
    total = sum(number for number, _ in settings.values())
    least = 1 if 2 * len(settings) <= count else 0
    shares, given, passed = {}, 0, 0
    for cell, (number, points) in settings.items():
        passed += number
        share = round(count * passed / total) - given
        given += share
        shares[cell] = min(points, max(least, share))
    while sum(shares.values()) > count:
        largest = max(shares, key=shares.__getitem__)
        shares[largest] -= 1
    while (missing := count - sum(shares.values())) > 0:
        room = {cell: points - shares[cell] for cell, (_, points) in settings.items()}
        if not any(room.values()):
            break
        widest = max(room, key=room.__getitem__)
        shares[widest] += min(missing, room[widest])
    return shares


def _of_cell(space: Space, cell: int, kept: NDArray[np.intp], count: int, seed: int) -> NDArray[np.intp]:
    dice = np.random.default_rng([seed, cell])
    if not space.cells[cell].per_stage or count >= len(kept):
        return np.sort(dice.permutation(kept)[:count])
    chosen: dict[int, None] = {}
    choices = space.cells[cell].choices
    stages = [
        _Sequence(np.unique(column), np.random.default_rng([seed, cell, at]))
        for at, column in enumerate(_choices(space, cell, kept))
    ]
    allowed = set(kept.tolist())
    for row in range(count):
        for index in _attempts(stages, row, choices):
            if index in allowed and index not in chosen:
                chosen[index] = None
                break
        else:
            # Conditions on the points leave few partners for what is left in this round.
            chosen[next(i for i in dice.permutation(kept).tolist() if i not in chosen)] = None
    return np.array(sorted(chosen), np.intp)


class _Sequence:
    """A stage's settings in random orders, one after the other."""

    def __init__(self, settings: NDArray[np.intp], dice: np.random.Generator) -> None:
        self.settings, self.dice = settings, dice
        self._order: list[int] = []

    def __getitem__(self, place: int) -> int:
        while place >= len(self._order):
            self._order += self.dice.permutation(self.settings).tolist()
        return self._order[place]

    def exchange(self, place: int) -> None:
        """Put another one, of those that are still to come in this round, at `place`."""
        end = (place // len(self.settings) + 1) * len(self.settings)
        other = int(self.dice.integers(place, end))
        self._order[place], self._order[other] = self[other], self[place]


_ATTEMPTS = 200


def _attempts(stages: Sequence[_Sequence], row: int, choices: int) -> Iterator[int]:
    """The index of a row's network, again with other partners each time."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            stages[attempt % len(stages)].exchange(row)
        yield int(np.ravel_multi_index([stage[row] for stage in stages], [choices] * len(stages)))
