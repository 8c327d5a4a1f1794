"""What is known of a search's points before they are measured: counts, and predicted latencies."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from wnexplore.design.counts import function_of
from wnexplore.design.point import DesignPoint
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.design.where import Condition, Truth
from wnexplore.results.columns import direction
from wnexplore.results.frame import numbers
from wnexplore.results.pareto import dominated
from wnexplore.space.expansion import space_of
from wnexplore.space.grid import MAX_POINTS, Space
from wnexplore.space.near_front import NearFront
from wnexplore.space.prediction import PREDICTED, Calibration
from wnexplore.space.selection import open_points, sample, truth
from wnexplore.space.skeleton_cache import skeleton_of


class Within:
    """The points of a space that satisfy the budgets by what is known of them, if it can be listed.

    If all objectives are given as foreseen, only those that may be Pareto-optimal.
    """

    def __init__(
        self,
        space: Space,
        where: Condition | None,
        calibration: Calibration | None,
        foreseen: Sequence[str],
        seed: int,
    ) -> None:
        self._space, self._seed = space, seed
        self.listed = space.size <= MAX_POINTS
        self.near: NearFront | None = None
        if not self.listed:
            self.size = space.size
            return
        self._points = open_points(space, where)
        if calibration is not None:
            predicted = calibration.predict(space, self._points)
            self._points = open_points(space, where, predicted=predicted, surely=True)
            if foreseen:
                feasible = self._points
                if where is not None:
                    feasible = feasible[truth(space, where, predicted, surely=True).holds[feasible]]
                self.near = NearFront.of(space, feasible, foreseen, predicted)
                self._points = self._points[self.near.has(space, self._points, predicted)]
        self.size = len(self._points)

    def baselines(self) -> list[DesignPoint]:
        """Their plain networks; those of all points if the space is not listed."""
        return self._space.baselines(self._points if self.listed else None)

    def sample(self, count: int) -> list[DesignPoint]:
        """A random sample; empty if the points are not listed."""
        drawn = sample(self._points, count, self._seed).tolist() if self.listed else []
        return [self._space.point(index) for index in drawn]

    def another(self, known: Collection[Hashable]) -> DesignPoint:
        """A random point whose function is not in `known`; there must be one."""
        order = random.Random(f"{self._seed} {len(known)}").sample(range(self.size), self.size)
        points = (self._space.point(int(self._points[index])) for index in order)
        return next(point for point in points if network_function(point) not in known)


def network_function(point: DesignPoint) -> Hashable:
    """What points share that compute the same function of the same plain network."""
    return point.baseline(), function_of(point, skeleton_of(point))


class Foreseen:
    """The predicted latencies of one point."""

    def __init__(self, calibration: Calibration, point: DesignPoint) -> None:
        alone = SweepSpec(points=(PointSpec.model_validate(point.to_dict()),), latency=False)
        self._space = space_of(alone)
        self._predicted = calibration.predict(self._space)

    @cached_property
    def latencies(self) -> dict[str, float | None] | None:
        """The figures with their bounds; None if there is no prediction."""
        return self._predicted.row(0) if self._predicted.known.all() else None

    def truth(self, budgets: Condition) -> Truth:
        """Whether `budgets` hold, or fail, wherever in their intervals the latencies are."""
        return truth(self._space, budgets, self._predicted, surely=True)

    def near(self, front: NearFront) -> bool:
        """Whether no point of `front` is certainly better."""
        return bool(front.has(self._space, np.arange(1), self._predicted).all())


def off_front(
    objectives: Sequence[str],
    rows: pd.DataFrame,
    latencies: Mapping[str, float | None],
    rivals: Sequence[Sequence[float]],
) -> list[float] | None:
    """The objectives of the point in the first of `rows`, its `latencies` predicted, if it is certainly off
    the front of all; None if it may be on it.

    It is off the front if one of `rivals`, the objectives of other points, is better by the better bounds of
    its latencies.
    """
    values = [latencies[name] if name in PREDICTED else numbers(rows, name)[0] for name in objectives]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not rivals:
        return None
    best = [
        latencies[f"{name}_low"] if name in PREDICTED else value
        for name, value in zip(objectives, values, strict=True)
    ]
    signs = np.array([1.0 if direction(name) == "smaller" else -1.0 for name in objectives])
    costs = np.array(best, dtype=np.float64) * signs
    return known if dominated(costs[None], (np.array(rivals) * signs).T).all() else None
