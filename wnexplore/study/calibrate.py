"""A calibration: few networks of a space, timed so that the latencies of all others can be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wnexplore.design.latency_protocol import latency_protocols
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError
from wnexplore.results.filters import condition
from wnexplore.space.balanced import balanced
from wnexplore.space.expansion import space_of
from wnexplore.space.latency_fit import MIN_NETWORKS
from wnexplore.space.selection import open_points
from wnexplore.study.hardware import HERE, Hardware

NETWORKS = 60
"""How many of each plain network by default."""

GROUP = 60
"""Networks timed in the same rounds. They share what befalls the plain network among them, which shifts all
their ratios alike and leaves their order as it is."""

TARGET = 0.01
"""The target of a latency that says none: what all predictions rest on is worth more passes."""

WARM_UP = 0.25
"""Warm-up over the time of a measurement, at most."""


@dataclass(frozen=True)
class CalibrationPlan:
    """What a calibration times."""

    spec: SweepSpec
    """A sweep of the networks, each plain one first."""
    networks: Mapping[DesignPoint, Sequence[DesignPoint]]
    """Plain network -> those made of it."""

    protocols: int

    @property
    def seconds(self) -> float:
        """The time budget of one measurement, without warm-up."""
        assert self.spec.latency is not None
        return self.spec.latency.seconds

    @property
    def most_seconds(self) -> float:
        """Of timing and warm-up, unless passes are so long that their least number takes longer."""
        return self.protocols * len(self.spec.points or ()) * self.seconds * (1 + WARM_UP)


def calibration_plan(
    spec: SweepSpec,
    networks: int = NETWORKS,
    seed: int = 0,
    minutes: float | None = None,
    hardware: Hardware = HERE,
) -> CalibrationPlan:
    """The networks of `spec` to time under its protocols, `networks` of each plain network, to `TARGET`
    unless it has a target.

    With `minutes` each gets the seconds with which all end in that time, warm-up included. Raises
    `InputError` if a plain network has too few points for a prediction, or the space can't be listed.
    """
    if networks < MIN_NETWORKS:
        raise InputError(
            f"{networks} networks: a 95 % interval needs at least {MIN_NETWORKS} of each plain one"
        )
    space = space_of(spec)
    points = open_points(space, None if spec.where is None else condition(spec.where))
    if not len(points):
        raise InputError(f"no legal point of this space satisfies {spec.where or 'its axes'}")
    found = {
        plain: tuple(space.point(index) for index in chosen.tolist())
        for plain, chosen in balanced(space, points, networks, seed).items()
    }
    for plain, chosen in found.items():
        if len(chosen) < MIN_NETWORKS:
            raise InputError(
                f"this space has {len(chosen)} networks made of {plain}, and a prediction needs"
                f" {MIN_NETWORKS}: wnexplore sweep times them all"
            )
    listed = [point for plain, chosen in found.items() for point in (plain, *chosen)]
    latency = spec.latency or LatencySpec()
    if latency.target is None:
        latency = latency.model_copy(update={"target": TARGET})
    on = hardware.timing(hardware.resolve(latency.device))
    protocols = len(list(latency_protocols(latency, on)))
    if minutes is not None:
        seconds = 60 * minutes / (protocols * len(listed) * (1 + WARM_UP))
        latency = LatencySpec.model_validate(latency.model_dump() | {"seconds": seconds})
    made = SweepSpec(
        points=tuple(PointSpec.model_validate(point.to_dict()) for point in listed),
        latency=latency,
        train=None,
    )
    return CalibrationPlan(made, found, protocols)
