"""Points of a space that may be Pareto-optimal, by their counts and the intervals of their latencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wnexplore.results.pareto import dominated, front_of
from wnexplore.space.grid import Space
from wnexplore.space.latency_fit import Floats
from wnexplore.space.prediction import PREDICTED, Predictions
from wnexplore.space.selection import Indices


@dataclass(frozen=True, eq=False)
class NearFront:
    """What a point must not be certainly worse than, if it is to be measured."""

    objectives: tuple[str, ...]
    """Counts and predicted latencies; less is better in all."""
    worst: Floats
    """The front by the upper bounds of the objectives, shape (objectives, points of the front)."""

    @classmethod
    def of(
        cls, space: Space, feasible: Indices, objectives: Sequence[str], predicted: Predictions
    ) -> NearFront:
        """The front of the `feasible` points of `space`: those that satisfy all budgets with certainty."""
        worst = _bounds(space, feasible, objectives, predicted, "_high")
        known = worst[~np.isnan(worst).any(axis=1)]
        return cls(tuple(objectives), np.ascontiguousarray(front_of(known).T))

    def has(self, space: Space, points: Indices, predicted: Predictions) -> NDArray[np.bool_]:
        """For each of `points` whether no other is certainly better.

        A point without a prediction may be.
        """
        return ~dominated(_bounds(space, points, self.objectives, predicted, "_low"), self.worst)


def _bounds(
    space: Space, points: Indices, objectives: Sequence[str], predicted: Predictions, end: str
) -> Floats:
    """Bounds of the objectives, counts being exact, shape (points, objectives)."""
    columns = [
        predicted.column(f"{name}{end}", points) if name in PREDICTED else getattr(space, name)[points]
        for name in objectives
    ]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)
