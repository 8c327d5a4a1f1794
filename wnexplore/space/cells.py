"""The grid of a sweep in cells: points that share everything but M and G."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from wnexplore.design.axes import NETWORK_AXES
from wnexplore.design.methods import METHODS
from wnexplore.design.multiplier import Setting, at_stage
from wnexplore.design.point import DesignPoint
from wnexplore.design.stage_design import PLAIN, StageDesign
from wnexplore.design.stages import has_method
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError

Pair = tuple[Setting, Setting]
"""An M and a G."""


@dataclass(frozen=True)
class Cell:
    """Points of one method and one plain network that differ only in M and G.

    Each pair is a point, or, `per_stage`, each way to give every stage that has the method one of the
    pairs: the pair of the last stage changes fastest. A method without M and G has no pairs and one point.
    """

    baseline: DesignPoint
    method: str
    axes: Mapping[str, Any]
    """The method's axes except M and G, as in `DesignPoint`."""
    pairs: Sequence[Pair] = field(default=())
    per_stage: bool = False

    @property
    def choices(self) -> int:
        """The number of settings of a stage."""
        return max(1, len(self.pairs))

    def has_method(self, stage: int) -> bool:
        """Whether `stage` gets the method."""
        return has_method(self.axes.get("stages"), stage)

    def design(self, choice: int, stage: int) -> StageDesign:
        """The design of `stage` for one of the choices."""
        if not self.has_method(stage):
            return PLAIN
        axes = {axis: value for axis, value in self.axes.items() if axis != "stages"}
        if self.pairs:
            for name, setting in zip("MG", self.pairs[choice], strict=True):
                axes[name] = at_stage(setting, stage, name)
        return StageDesign(self.method, **axes)

    def point(self, choices: Mapping[int, int]) -> DesignPoint:
        """The point with these choices (stage with the method -> choice), all alike unless `per_stage`."""
        pair: dict[str, Any] = {}
        if self.pairs:
            for at, name in enumerate("MG"):
                values = [(stage, self.pairs[choice][at]) for stage, choice in choices.items()]
                # In a network with nothing to replace all settings are the same function: take the first.
                first = values[0][1] if values else self.pairs[0][at]
                alike = all(value == first for _, value in values)
                pair[name] = first if alike else dict(values)
        network = {axis: getattr(self.baseline, axis) for axis in NETWORK_AXES}
        return DesignPoint.of(**network, method=self.method, **pair, **self.axes)


MAX_SETTINGS = 1_000_000
"""Most settings of all cells together; the stages of each are counted separately."""


def cells(spec: SweepSpec) -> list[Cell]:
    """The cells of a sweep in order: its grid, then the points that it lists.

    Raises `InputError` if the axes cross to more settings than `MAX_SETTINGS`, before any is made.
    """
    settings = _settings(spec) if spec.has_grid else 0
    if settings > MAX_SETTINGS:
        raise InputError(
            f"the axes of this sweep cross to {settings:,} settings, more than the limit of"
            f" {MAX_SETTINGS:,}: leave out values of an axis"
        )
    found = list(_grid(spec)) if spec.has_grid else []
    return [*found, *(_single(point.point()) for point in spec.points or ())]


def _settings(spec: SweepSpec) -> int:
    """The number of settings; M and G crossed per stage count as if they were equal in all stages."""
    networks = math.prod(len(spec.choices(axis)) for axis in NETWORK_AXES)
    return networks * sum(
        math.prod(len(spec.choices(axis)) for axis in METHODS[method].axes) for method in spec.methods
    )


def _grid(spec: SweepSpec) -> Iterator[Cell]:
    for *network, method in product(*(spec.choices(axis) for axis in (*NETWORK_AXES, "method"))):
        shared = dict(zip(NETWORK_AXES, network, strict=True))
        names: list[str] = [axis for axis in METHODS[method].axes if axis not in ("M", "G")]
        pairs = tuple(product(spec.M, spec.G)) if "M" in METHODS[method].axes else ()
        for values in product(*(spec.choices(axis) for axis in names)):
            given = dict(zip(names, values, strict=True))
            point = DesignPoint.of(**shared, method=method, **given)
            axes = {axis: getattr(point, axis) for axis in names}
            yield Cell(point.baseline(), method, axes, pairs, spec.per_stage and len(pairs) > 0)


def _single(point: DesignPoint) -> Cell:
    names: list[str] = [axis for axis in METHODS[point.method].axes if axis not in ("M", "G")]
    axes = {axis: getattr(point, axis) for axis in names}
    pairs = () if point.M is None or point.G is None else ((point.M, point.G),)
    return Cell(point.baseline(), point.method, axes, pairs)
