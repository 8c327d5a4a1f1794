"""A design space as arrays: counts in closed form, legality and duplicates of every point.

A network's counts are sums over its stages, and a stage's counts depend only on its own setting: so each
stage has a small table of settings, and the counts of points are sums of entries.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wnexplore.design.counts import parts, total
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.part_stages import stage_name
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Block, Skeleton
from wnexplore.design.stage_design import StageDesign
from wnexplore.design.stages import ALL
from wnexplore.errors import InputError
from wnexplore.space.cells import Cell

Counted = NDArray[np.int64]
Flags = NDArray[np.bool_]

MAX_POINTS = 20_000_000
"""Most points of a space with arrays, which take 17 bytes per point."""


MAX_COUNTED = 2**63 - 1
"""Most parameters or multiply-adds: they fit into 64 bits, and exceed any machine."""


@dataclass(frozen=True)
class _StageTable:
    """One stage of a cell: an entry per choice. Illegal choices have counts of 0."""

    stage: int
    params: Counted
    flops: Counted
    legal: Flags
    rules: tuple[str, ...]
    """The rule that an illegal choice breaks, "" for a legal one."""
    reasons: tuple[str, ...]
    functions: NDArray[np.int64]
    """Codes of functions: equal where the stage computes the same function, in this stage of this network."""


@dataclass(frozen=True)
class Illegal:
    """The points whose first violated rule is `rule`."""

    rule: str
    points: int
    example: DesignPoint
    reason: str


class Space:
    """The points of some cells, in order; point i of the space has entry i in every array.

    `skeleton_of` returns the skeleton of the plain network of a point. Raises `InputError` if the cells name
    stages that a network doesn't have.
    """

    def __init__(self, cells: Iterable[Cell], skeleton_of: Callable[[DesignPoint], Skeleton]) -> None:
        self.cells = tuple(cells)
        self._skeletons = {cell.baseline: skeleton_of(cell.baseline) for cell in self.cells}
        functions: dict[tuple[DesignPoint, int], dict[object, int]] = {}
        designs: dict[tuple[DesignPoint, int, StageDesign], _Entry] = {}
        self._tables = [self._stage_tables(cell, functions, designs) for cell in self.cells]
        self._radices = {key: len(function) for key, function in functions.items()}
        self._ends = list(
            itertools.accumulate(_size(cell, len(tables)) for cell, tables in self._cells_with_tables())
        )

    @property
    def size(self) -> int:
        """The number of points, which may exceed the 2**63 of `len`."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return self.size

    def check_listed(self) -> None:
        """Raise `InputError` if there are too many points for arrays."""
        if self.size > MAX_POINTS:
            raise InputError(
                f"this space has {self.size:,} points, more than the {MAX_POINTS:,} that are listed at once:"
                " leave out values of an axis"
            )

    @cached_property
    def params(self) -> Counted:
        """The parameters of each point; undefined for illegal ones."""
        return self._sums("params")

    @cached_property
    def flops(self) -> Counted:
        """The multiply-adds per image of each point; undefined for illegal ones."""
        return self._sums("flops")

    @cached_property
    def legal(self) -> Flags:
        """Whether (M, G) is legal in every layer of the point."""
        self.check_listed()
        found = [
            _combined([table.legal for table in tables], np.logical_and, cell.per_stage)
            for cell, tables in self._cells_with_tables()
        ]
        return _joined(found, np.bool_)

    @cached_property
    def first_like(self) -> Counted:
        """The index of the first legal point that is the same function, layer by layer; -1 if illegal."""
        self.check_listed()
        found = np.full(self.size, -1, np.int64)
        by_network: dict[DesignPoint, list[int]] = {}
        for index, cell in enumerate(self.cells):
            by_network.setdefault(cell.baseline, []).append(index)
        for cells_of in by_network.values():
            at = np.concatenate([np.arange(self._start(index), self._ends[index]) for index in cells_of])
            codes = np.concatenate([self._codes(index) for index in cells_of])
            legal = self.legal[at]
            at, codes = at[legal], codes[legal]
            _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
            found[at] = at[first][inverse]
        return found

    @property
    def repeated(self) -> Flags:
        """Whether the point is the same function as an earlier one."""
        return np.asarray(self.legal & (self.first_like != np.arange(len(self))))

    def baselines(self, points: NDArray[np.int64] | None = None) -> list[DesignPoint]:
        """The distinct plain networks of some or all points."""
        cells: Iterable[Cell] = self.cells
        if points is not None:
            numbers = np.unique(np.searchsorted(self._ends, points, side="right"))
            cells = (self.cells[number] for number in numbers.tolist())
        return list(dict.fromkeys(cell.baseline for cell in cells))

    @property
    def uncounted(self) -> dict[str, tuple[str, ...]]:
        """Backbone -> its operators that may multiply matrices but aren't counted; without empty entries."""
        return {
            baseline.backbone: skeleton.uncounted
            for baseline, skeleton in self._skeletons.items()
            if skeleton.uncounted
        }

    def point(self, index: int) -> DesignPoint:
        """The design point with this index."""
        cell, within = self._place(index)
        return self.cells[cell].point(self._choices(cell, within))

    def reason(self, index: int) -> str:
        """Why the point is illegal: the first layer with an illegal (M, G), "" if it is legal."""
        cell, within = self._place(index)
        choices = self._choices(cell, within)
        tables = self._tables[cell]
        return next((t.reasons[choices[t.stage]] for t in tables if t.reasons[choices[t.stage]]), "")

    def illegal(self) -> list[Illegal]:
        """The illegal points by the rule that they break first, the most frequent rule first.

        Computed without listing points: a space may have any size.
        """
        points: Counter[str] = Counter()
        examples: dict[str, tuple[DesignPoint, str]] = {}
        for cell, tables in self._cells_with_tables():
            for rule, number, choices, reason in _broken(cell, tables):
                points[rule] += number
                examples.setdefault(rule, (cell.point(choices), reason))
        return [Illegal(rule, number, *examples[rule]) for rule, number in points.most_common()]

    def choice_of(self, cell: int) -> NDArray[np.intp] | dict[int, NDArray[np.intp]]:
        """The choice of each point of a cell; per stage: stage -> each point's choice."""
        tables = self._tables[cell]
        every = np.arange(self.cells[cell].choices)
        if not self.cells[cell].per_stage:
            return every
        grids = np.meshgrid(*[every] * len(tables), indexing="ij")
        return {table.stage: grid.ravel() for table, grid in zip(tables, grids, strict=True)}

    def size_of(self, cell: int) -> int:
        """The number of points of a cell."""
        return _size(self.cells[cell], len(self._tables[cell]))

    def designs(self, cell: int) -> dict[int, list[StageDesign | None]]:
        """Stage with the method -> the design of each choice of a cell, None where it is illegal."""
        return {
            table.stage: [
                self.cells[cell].design(choice, table.stage) if table.legal[choice] else None
                for choice in range(self.cells[cell].choices)
            ]
            for table in self._tables[cell]
        }

    def spans(self) -> Iterator[tuple[Cell, slice]]:
        """The cells with the slices of their points."""
        for index, cell in enumerate(self.cells):
            yield cell, slice(self._start(index), self._ends[index])

    def _cells_with_tables(self) -> Iterator[tuple[Cell, list[_StageTable]]]:
        return zip(self.cells, self._tables, strict=True)

    def _start(self, cell: int) -> int:
        return self._ends[cell - 1] if cell else 0

    def _place(self, index: int) -> tuple[int, int]:
        """The cell of a point, and its index there."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        cell = bisect_right(self._ends, index)
        return cell, index - self._start(cell)

    def _choices(self, cell: int, within: int) -> dict[int, int]:
        tables, choices = self._tables[cell], self.cells[cell].choices
        if not self.cells[cell].per_stage:
            return {table.stage: within for table in tables}
        digits = np.unravel_index(within, [choices] * len(tables))
        return {table.stage: int(digit) for table, digit in zip(tables, digits, strict=True)}

    def _sums(self, name: str) -> Counted:
        self.check_listed()
        found = []
        for cell, tables in self._cells_with_tables():
            skeleton = self._skeletons[cell.baseline]
            rest = getattr(skeleton, name) + sum(
                getattr(_entry(_blocks(skeleton, stage), cell.design(0, stage)), name)
                for stage in skeleton.stages
                if not cell.has_method(stage)
            )
            largest = rest + sum(int(getattr(table, name).max()) for table in tables)
            if largest > MAX_COUNTED:
                raise InputError(f"{cell.baseline}: {largest:,} {name} are more than can be counted")
            staged = _combined([getattr(table, name) for table in tables], np.add, cell.per_stage)
            found.append(staged + rest)
        return _joined(found, np.int64)

    def _codes(self, cell: int) -> NDArray[np.int64]:
        """A code per point of a cell, equal for equal functions of the same network."""
        baseline = self.cells[cell].baseline
        radices = [self._radices[baseline, stage] for stage in self._skeletons[baseline].stages]
        if math.prod(radices) > np.iinfo(np.int64).max:
            raise InputError("this space has too many different stages to detect duplicate points")
        weights = dict(zip(self._skeletons[baseline].stages, np.cumprod([1, *radices]), strict=False))
        # A stage without the method is function 0 and adds nothing.
        weighted = [table.functions * weights[table.stage] for table in self._tables[cell]]
        return _combined(weighted, np.add, self.cells[cell].per_stage)

    def _stage_tables(
        self,
        cell: Cell,
        functions: dict[tuple[DesignPoint, int], dict[object, int]],
        designs: dict[tuple[DesignPoint, int, StageDesign], _Entry],
    ) -> list[_StageTable]:
        skeleton = self._skeletons[cell.baseline]
        _check_stages(cell, skeleton)
        tables = []
        for stage in skeleton.stages:
            known = functions.setdefault((cell.baseline, stage), {_PLAINLY: 0})
            if not cell.has_method(stage):
                continue
            entries = []
            for choice in range(cell.choices):
                key = (cell.baseline, stage, cell.design(choice, stage))
                if key not in designs:
                    designs[key] = _entry(_blocks(skeleton, stage), key[2])
                entries.append(designs[key])
            tables.append(
                _StageTable(
                    stage,
                    np.array([entry.params for entry in entries], np.int64),
                    np.array([entry.flops for entry in entries], np.int64),
                    np.array([not entry.reason for entry in entries], np.bool_),
                    tuple(entry.rule for entry in entries),
                    tuple(entry.reason for entry in entries),
                    np.array([known.setdefault(entry.function, len(known)) for entry in entries], np.int64),
                )
            )
        return tables


@dataclass(frozen=True)
class _Entry:
    """A stage with one design."""

    params: int = 0
    flops: int = 0
    function: object = None
    rule: str = ""
    reason: str = ""


_PLAINLY = "plain"
"""The function of a stage without the method."""


def _entry(blocks: Sequence[Block], design: StageDesign) -> _Entry:
    try:
        found = [part for block in blocks for part in parts(block, design)]
    except IllegalPointError as error:
        return _Entry(rule=error.rule, reason=str(error))
    counts = total(found)
    if max(counts) > MAX_COUNTED:
        reason = f"a stage has {max(counts):,} parameters or multiply-adds"
        return _Entry(rule=f"at most {MAX_COUNTED:,} parameters and multiply-adds in a stage", reason=reason)
    made = tuple(part.what for part in found)
    plainly = all(what == ("plain",) for what in made)
    return _Entry(counts.params, counts.flops, _PLAINLY if plainly else made)


def _blocks(skeleton: Skeleton, stage: int) -> list[Block]:
    return [block for block in skeleton.blocks if block.stage == stage]


def _check_stages(cell: Cell, skeleton: Skeleton) -> None:
    stages = cell.axes.get("stages")
    names = [stage_name(stage) for stage in skeleton.stages]
    if stages and not set(stages.split("+")) <= {*names, ALL}:
        known = ", ".join(names)
        raise InputError(f"stages is '{stages}': {cell.baseline.backbone} has {known}")


def _size(cell: Cell, stages: int) -> int:
    return int(cell.choices**stages) if cell.per_stage else cell.choices


def _combined(tables: Sequence[NDArray], how: np.ufunc, per_stage: bool) -> NDArray:  # type: ignore[type-arg]
    """The entries of a cell's stages combined for each of its points."""
    if not tables:
        return np.array([how.identity])
    found = tables[0]
    for table in tables[1:]:
        found = how.outer(found, table).ravel() if per_stage else how(found, table)
    return found


def _joined(found: Sequence[NDArray], dtype: type) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(found) if found else np.zeros(0, dtype)


def _broken(cell: Cell, tables: Sequence[_StageTable]) -> Iterator[tuple[str, int, dict[int, int], str]]:
    """Rule, number of points that break it first, the choices of one such point and its reason."""
    if not cell.per_stage:
        for choice in range(cell.choices):
            for table in tables:
                if not table.legal[choice]:
                    chosen = {table.stage: choice for table in tables}
                    yield table.rules[choice], 1, chosen, table.reasons[choice]
                    break
        return
    before = 1
    for at, table in enumerate(tables):
        after = math.prod(cell.choices for _ in tables[at + 1 :])
        for choice in np.flatnonzero(~table.legal).tolist():
            chosen = {other.stage: int(other.legal.argmax()) for other in tables[:at]}
            chosen |= {table.stage: choice} | {other.stage: 0 for other in tables[at + 1 :]}
            if before:
                yield table.rules[choice], before * after, chosen, table.reasons[choice]
        before *= int(table.legal.sum())
