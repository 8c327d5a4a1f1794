"""Groups the records of trainings: all seeds of one point under one protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import BEFORE, OF_NETWORK, START
from wnexplore.design.vision_tasks import TASKS
from wnexplore.results.numbered import Numbered
from wnexplore.results.record import Record


@dataclass(frozen=True)
class TrainingGroup:
    """One point under one protocol except the seed, trained for the same number of epochs."""

    point: DesignPoint
    settings: Mapping[str, Any]
    """The protocol without the seed; its epochs are those planned."""
    epochs: int | None
    """The epochs trained; the planned ones if no seed succeeded, None if unknown."""
    records: tuple[Record, ...]
    """The newest record of each seed, including failed ones."""
    limits: Mapping[str, Any] | None = None
    """What says when no more seeds are added, in the newest record of these settings that does."""
    limited_at: int = -1
    """The place of that record among all."""

    @property
    def dataset(self) -> str | None:
        """The data set."""
        return self.settings.get("dataset")

    @cached_property
    def variant(self) -> DesignPoint:
        """Its point without the backbone, which names it in figures of several backbones."""
        return replace(self.point, backbone="")

    @cached_property
    def identity(self) -> tuple[str, int | None]:
        """The parts in which comparable trainings agree, whatever weights they start from."""
        return _text({key: value for key, value in self.settings.items() if key != START}), self.epochs

    @property
    def common(self) -> dict[str, Any]:
        """Its settings without what depends on the network."""
        return {key: value for key, value in self.settings.items() if key not in OF_NETWORK}

    @cached_property
    def family(self) -> str:
        """The common settings of one sweep's trainings, independent of the network and its threads."""
        return _text(self.common)

    @cached_property
    def succeeded(self) -> tuple[Record, ...]:
        """The records of seeds with a score."""
        scores = self.scores
        return tuple(record for record in self.records if record.protocol.get("seed") in scores)

    @property
    def score(self) -> str:
        """The figure of `LEARNED` by which networks of its task are ranked."""
        return TASKS[self.point.task].score

    @cached_property
    def scores(self) -> dict[Any, float]:
        """Seed -> its score in percent, for successful seeds."""
        return self.learned(self.score)

    def learned(self, name: str) -> dict[Any, float]:
        """Seed -> the figure `name` of `LEARNED`, for successful seeds that have it."""
        if name not in self._learned:
            found = ((record.protocol.get("seed"), _figure(record, name)) for record in self.records)
            self._learned[name] = {seed: figure for seed, figure in found if figure is not None}
        return self._learned[name]

    @cached_property
    def _learned(self) -> dict[str, dict[Any, float]]:
        return {}

    @property
    def test_images(self) -> int | None:
        """The number of test images, the fewest of its seeds; None if unknown."""
        return min((n for record in self.succeeded if (n := record.value.get("test_images"))), default=None)

    @property
    def dropped_at(self) -> int | None:
        """The epoch after which halving dropped the point; None if it never did."""
        return next((at for r in self.succeeded if (at := r.value.get("dropped_at")) is not None), None)

    @cached_property
    def losses(self) -> dict[int, list[float]]:
        """Epoch, from 1 -> its mean training loss per successful seed, in nats."""
        losses = [record.samples.get("loss", ()) for record in self.succeeded]
        longest = max(map(len, losses), default=0)
        return {n + 1: [loss[n] for loss in losses if n < len(loss)] for n in range(longest)}

    @property
    def tested(self) -> dict[int, list[float]]:
        """Epoch -> the score after it per successful seed, in percent; includes the last epoch."""
        return self.curve(self.score)

    def curve(self, name: str) -> dict[int, list[float]]:
        """Epoch -> the figure `name` of `LEARNED` after it, per successful seed that has it.

        Includes the last epoch.
        """
        if name not in self._curves:
            self._curves[name] = self._curve(name)
        return self._curves[name]

    @cached_property
    def _curves(self) -> dict[str, dict[int, list[float]]]:
        return {}

    def _curve(self, name: str) -> dict[int, list[float]]:
        figures, found = self.learned(name), dict[float, list[float]]()
        for record in self.succeeded:
            values = record.samples.get(TESTED.get(name, ""), ())
            last = figures.get(record.protocol.get("seed"))
            if not values and last is None:
                continue
            by_epoch: dict[float, float | None] = dict(
                zip(record.samples.get("tested_epochs", ()), values, strict=False)
            )
            if self.epochs is not None:
                by_epoch[self.epochs] = last
            for epoch, value in by_epoch.items():
                if value is not None:
                    found.setdefault(epoch, []).append(value)
        return {int(epoch): found[epoch] for epoch in sorted(found)}

    @property
    def ranked_by(self) -> str:
        """The figure of `LEARNED` by which halving ranks; the score without halving."""
        return str(self.settings.get("by") or self.score)

    @property
    def tested_means(self) -> dict[int, float]:
        """Epoch -> the mean of the figure `ranked_by` after it."""
        return {epoch: fmean(values) for epoch, values in self.curve(self.ranked_by).items()}


def trainings(records: Iterable[Record]) -> list[TrainingGroup]:
    """The trainings among `records`, which are sorted oldest first; the latest trainings come last.

    A failed seed is grouped with the others of its point and settings, whatever their epochs.
    """
    points: Numbered[DesignPoint] = Numbered(lambda point: point)
    settings: Numbered[Mapping[str, Any]] = Numbered(lambda protocol: _text(_settings(protocol)))
    found: dict[tuple[int, int], dict[Any, Record]] = {}
    limits: dict[tuple[int, int], tuple[Mapping[str, Any], int]] = {}
    for number, record in enumerate(records):
        if record.figure == "seeds":
            protocol = {name: value for name, value in record.protocol.items() if name not in LIMITS}
            limits[points[record.point], settings[protocol]] = record.protocol, number
        elif record.figure == "training":
            key = points[record.point], settings[record.protocol]
            seeds = found.pop(key, {})
            seeds[record.protocol.get("seed")] = record
            found[key] = seeds
            if record.value.get("seed_target") is not None:
                limits[key] = record.value, number
    return [
        part
        for key, seeds in found.items()
        for part in _equally_long(list(seeds.values()), *limits.get(key, (None, -1)))
    ]


LIMITS = ("seed_target", "first_seeds", "max_seeds", "seed_hours", "seeds")
"""What the protocol of a record of what ended the seeds has, and a training's doesn't."""


def newest(trainings: Iterable[TrainingGroup]) -> list[TrainingGroup]:
    """The trainings of one point for a table: the newest per data set and number of epochs.

    Seeds trained under different hidden settings (a learning rate) are never averaged: only those with the
    latest settings count.
    """
    return list({(training.dataset, training.epochs): training for training in trainings}.values())


def _equally_long(
    records: Sequence[Record], limits: Mapping[str, Any] | None, limited_at: int
) -> list[TrainingGroup]:
    settings = _settings(records[0].protocol)
    planned = settings.get("epochs")
    parts: dict[int | None, list[Record]] = {}
    for record in records:
        if record.status == "ok":
            parts.setdefault(record.value.get("epochs", planned), []).append(record)
    failed = [record for record in records if record.status != "ok"]
    if failed:
        parts.setdefault(next(reversed(parts), planned), []).extend(failed)
    return [
        TrainingGroup(records[0].point, settings, epochs, tuple(part), limits, limited_at)
        for epochs, part in parts.items()
    ]


def rungs_of(settings: Mapping[str, Any]) -> list[int]:
    """The epochs after which halving compares variants, including the last one; [] without halving."""
    if settings.get("schedule") != "halving":
        return []
    epoch, last, eta = (int(settings[name]) for name in ("min_epochs", "max_epochs", "eta"))
    rungs = []
    while epoch < last:
        rungs.append(epoch)
        epoch *= eta
    return [*rungs, last]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The distinguishing values of each of `settings`: "digits, lr 0.1"; "" if there is only one."""
    # What older versions didn't have comes last.
    settings = [{**setting, **BEFORE, **setting} for setting in settings]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [name for name in names if len({str(setting.get(name)) for setting in settings}) > 1]
    texts = []
    for setting in settings:
        known = ((name, setting[name]) for name in varying if setting.get(name) is not None)
        texts.append(", ".join(_named(name, value) for name, value in known))
    return texts


def _named(name: str, value: Any) -> str:
    # Most words speak for themselves (digits, adamw); "default" doesn't.
    alone = isinstance(value, str) and name not in BEFORE
    return value if alone else f"{name.replace('_', ' ')} {value}"


def _settings(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key != "seed"}


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


TESTED = {"top1": "tested_top1", "ap": "tested_ap", "test_loss": "tested_loss"}
"""A figure of `LEARNED` -> the sample with its values after `tested_epochs`, if there is one."""


def _figure(record: Record, name: str) -> float | None:
    value = record.value.get(name) if record.status == "ok" else None
    return None if value is None or math.isnan(value) else float(value)
