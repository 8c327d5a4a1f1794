"""Seeds until it is known: which differences to plain more seeds would still decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from wnexplore.design.point import DesignPoint
from wnexplore.results.columns import Interval
from wnexplore.results.record import EndedBy, Record
from wnexplore.results.sequences import paired_sequence, resolution, seeds_needed
from wnexplore.results.trainings import TrainingGroup, trainings


@dataclass(frozen=True)
class Until:
    """When a sweep stops adding seeds; kept with each training of it."""

    target: float
    """The half width of an interval, in percentage points of the score."""
    seeds: int
    """Seeds before the first look."""
    max_seeds: int
    hours: float | None = None
    """Budget of all trainings together, in hours of training one after another."""

    def to_value(self) -> dict[str, Any]:
        """As figures of a record."""
        return {
            "seed_target": self.target,
            "first_seeds": self.seeds,
            "max_seeds": self.max_seeds,
            "seed_hours": self.hours,
        }

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Until | None:
        """Read from the figures of a record; None without a target."""
        target = value.get("seed_target")
        if target is None:
            return None
        seeds, most = value.get("first_seeds"), value.get("max_seeds")
        return None if seeds is None or most is None else cls(target, seeds, most, value.get("seed_hours"))


@dataclass(frozen=True)
class Verdict:
    """What the seeds of a variant tell about its difference to plain in the score."""

    variant: TrainingGroup
    plain: TrainingGroup
    until: Until
    seeds: int
    """Seeds that ended in both networks, 0, 1, ..., seeds - 1, up to the one that decided."""
    mean: float | None
    """In percentage points; None if no seed succeeded in both."""
    interval: Interval | None
    ended_by: EndedBy | None
    """None while seeds are added."""
    more: int
    """About how many seeds more decide it, from the present variance; 0 once decided."""

    @property
    def point(self) -> DesignPoint:
        """The variant's point."""
        return self.variant.point

    def record(self) -> Record | None:
        """The record of what ended the seeds; None while they are added."""
        if self.ended_by is None:
            return None
        low, high = self.interval or (None, None)
        name = f"{self.variant.score}_diff"
        figures = {name: self.mean, f"{name}_low": low, f"{name}_high": high}
        protocol = {**self.variant.settings, **self.until.to_value(), "seeds": self.seeds}
        return Record("seeds", self.point, protocol, value={"ended_by": self.ended_by, **figures})

    @property
    def smaller(self) -> bool:
        """Whether the difference is certainly smaller than the target, in either direction."""
        bounds = self.interval
        return bounds is not None and max(abs(bounds[0]), abs(bounds[1])) < self.until.target


def until_of(training: TrainingGroup) -> Until | None:
    """The newest limits of the seeds of a training; None without a target."""
    return None if training.limits is None else Until.of(training.limits)


def sequence_of(name: str, ours: TrainingGroup, plain: TrainingGroup) -> Interval | None:
    """The interval of the difference in the figure `name` over the seeds of both, by `paired_sequence`."""
    a, b = ours.learned(name), plain.learned(name)
    step = _step(ours, plain, [*a.values(), *b.values()]) if name == "top1" else 0.0
    return paired_sequence([a[seed] - b[seed] for seed in a if seed in b], step)


def _step(ours: TrainingGroup, plain: TrainingGroup, top1: Iterable[float]) -> float:
    """The smallest change of a difference in top-1: one test image, or the step of `top1` if unknown."""
    images = min((n for n in (ours.test_images, plain.test_images) if n is not None), default=None)
    return resolution(top1) if images is None else 100 / images


def verdicts(records: Iterable[Record], until: Until | None = None) -> list[Verdict]:
    """The verdict on each variant that was trained with a target, and its plain network under its protocol.

    `records` are sorted oldest first. `until`: limits for all of them, instead of those that they were
    trained with. The verdict follows from the records alone, in whatever order they were made.
    """
    groups = trainings(records)
    families: dict[str, list[TrainingGroup]] = {}
    for group in groups:
        families.setdefault(group.family, []).append(group)
    found = []
    for family in families.values():
        limits = until or until_of(max(family, key=lambda group: group.limited_at))
        if limits is None:
            continue
        spent = sum(record.value.get("seconds") or 0.0 for group in family for record in group.succeeded)
        plains = {(group.point, group.identity): group for group in family}
        for group in family:
            plain = plains.get((group.point.baseline(), group.identity))
            if plain is not None and plain is not group:
                found.append(_verdict(group, plain, limits, spent))
    return found


def _verdict(variant: TrainingGroup, plain: TrainingGroup, until: Until, spent: float) -> Verdict:
    ended = _seeds(variant) & _seeds(plain)
    available = next(seed for seed in range(len(ended) + 1) if seed not in ended)
    ours, theirs = variant.scores, plain.scores
    looks = range(min(until.seeds, available), available + 1)
    for seeds in looks:
        pairs = [seed for seed in range(seeds) if seed in ours and seed in theirs]
        differences = [ours[seed] - theirs[seed] for seed in pairs]
        step = 0.0
        if variant.score == "top1":
            step = _step(variant, plain, (top1[seed] for top1 in (ours, theirs) for seed in pairs))
        interval = paired_sequence(differences, step)
        ended_by: EndedBy | None = None
        if seeds >= until.seeds and interval is not None:
            low, high = interval
            if low > 0 or high < 0:
                ended_by = "difference"
            elif (high - low) / 2 <= until.target:
                ended_by = "target"
        if ended_by is not None:
            break
    more = 0
    mean = fmean(differences) if differences else None
    if ended_by is None:
        if len(differences) > 1 and mean is not None:
            more = seeds_needed(differences, max(until.target, abs(mean)), step) - len(differences)
        if available >= until.seeds:
            if len(differences) < min(2, until.seeds):
                ended_by = "failed"
            elif available >= until.max_seeds:
                ended_by = "max_seeds"
            elif until.hours is not None and spent >= 3600 * until.hours:
                ended_by = "hours"
    return Verdict(variant, plain, until, seeds, mean, interval, ended_by, more)


def _seeds(training: TrainingGroup) -> set[Any]:
    """The seeds that ended, failed ones too."""
    return {record.protocol.get("seed") for record in training.records}
