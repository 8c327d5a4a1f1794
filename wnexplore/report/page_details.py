"""What a page shows of one row: its network by stage and layer, raw latencies, curves, environment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from wnexplore.design.counts import Counts, parts, site_of
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.part_stages import PART_STAGES, stage_name
from wnexplore.design.point import AXES, DesignPoint, stage_design
from wnexplore.design.skeleton import Block, Skeleton, SkeletonPart
from wnexplore.design.stage_design import StageDesign
from wnexplore.design.stages import has_method
from wnexplore.errors import InputError
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, point_title
from wnexplore.results.frame import cells
from wnexplore.results.point_lines import build_line, profile_line
from wnexplore.results.record import Record
from wnexplore.results.trainings import TESTED, TrainingGroup, newest, trainings

MOST_SAMPLES = 60
"""Most times of a latency that a page holds; of more, as many, evenly spaced."""

SkeletonOf = Callable[[DesignPoint], Skeleton | None]
"""The skeleton of a point's plain network, or None if it isn't known."""


@dataclass
class Details:
    """The details of rows; what many rows share is held once, and named by its number."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """For each row: point, and if measured latency, training, failed."""
    points: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    latencies: list[dict[str, Any]] = field(default_factory=list)
    trainings: list[dict[str, Any]] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)
    runs: int = 0
    numbers: dict[Hashable, int] = field(default_factory=dict)

    def add(self, frame: pd.DataFrame, records: Iterable[Record], skeleton_of: SkeletonOf) -> None:
        """Add the rows of `frame`, which was made from `records`, with their samples."""
        records, run = list(records), self.runs
        self.runs += 1
        timed = {
            (record.point, *_protocol(record)): record for record in records if record.figure == "latency"
        }
        trained: dict[DesignPoint, list[TrainingGroup]] = {}
        for group in trainings(records):
            trained.setdefault(group.point, []).append(group)
        by_length = {
            (point, group.dataset, group.epochs): group
            for point, groups in trained.items()
            for group in newest(groups)
        }
        columns = {name: cells(frame, name) for name in (*AXES, *LATENCY_PROTOCOL, "dataset", "epochs")}
        for place in range(len(frame)):
            point = DesignPoint(**{axis: columns[axis][place] for axis in AXES})
            row: dict[str, Any] = {"point": self._point(point, skeleton_of)}
            latency = timed.get((point, *(columns[name][place] for name in LATENCY_PROTOCOL)))
            if latency is not None:
                row["latency"] = self._once(
                    self.latencies, (run, latency.key), partial(self._latency, latency)
                )
            kind = point, columns["dataset"][place], columns["epochs"][place]
            training = by_length.get(kind)
            if training is not None:
                row["training"] = self._once(self.trainings, (run, kind), partial(self._training, training))
            self.rows.append(row)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        names = ("rows", "points", "stages", "latencies", "trainings", "environments")
        return {name: getattr(self, name) for name in names}

    def _once(self, held: list[dict[str, Any]], key: Hashable, make: Callable[[], dict[str, Any]]) -> int:
        found = self.numbers.get((id(held), key))
        if found is None:
            held.append(make())
            found = self.numbers[id(held), key] = len(held) - 1
        return found

    def _point(self, point: DesignPoint, skeleton_of: SkeletonOf) -> int:
        return self._once(self.points, point, lambda: self._described(point, skeleton_of))

    def _described(self, point: DesignPoint, skeleton_of: SkeletonOf) -> dict[str, Any]:
        skeleton = skeleton_of(point)
        found: dict[str, Any] = {
            "title": f"{point.backbone}: {point_title(point.to_dict(), ('backbone',))}",
            "python": build_line(point),
            "command": profile_line(point),
        }
        if skeleton is None:
            return found
        try:
            # Those of a detector's pyramid and head are shown as parts unless they have the method.
            stages = [s for s in skeleton.stages if s not in _PARTS or has_method(point.stages, s)]
            designs = {stage: stage_design(point, stage) for stage in stages}
            found["stages"] = [
                self._once(
                    self.stages, (point.baseline(), stage, design), partial(_stage, skeleton, stage, design)
                )
                for stage, design in designs.items()
            ]
        except (IllegalPointError, InputError):
            # A record of another version, whose network is not legal any more.
            return found
        # Named where a network has several parts.
        named = [_part(part, skeleton, of_method=PART_STAGES[part.name] in stages) for part in skeleton.parts]
        others = [_others(part, skeleton) for part in skeleton.parts]
        rest = (getattr(skeleton, of) - sum(getattr(o, of) for o in others) for of in ("params", "flops"))
        return found | {"parts": named, "rest": list(rest)}

    def _latency(self, record: Record) -> dict[str, Any]:
        found: dict[str, Any] = {"environment": self._environment(record)}
        if record.status != "ok":
            return found | {"error": record.error or record.status}
        for name, sample in (("ms", "latency_ms"), ("plain_ms", "baseline_ms")):
            times = record.samples.get(sample, [])
            places = _few(len(times))
            found[name] = [_rounded(times[place]) for place in places]
            if len(places) < len(times):
                found[f"{name}_rounds"] = [place + 1 for place in places]
        found |= {
            "rounds": record.value.get("rounds"),
            "stopped_by": record.value.get("stopped_by"),
            "warnings": [str(warning.get("text", "")) for warning in record.value.get("warnings", ())],
        }
        settings = ("target", "seconds", "wait_policy")
        return found | {name: record.protocol[name] for name in settings if name in record.protocol}

    def _training(self, group: TrainingGroup) -> dict[str, Any]:
        settings = {k: v for k, v in group.settings.items() if v is not None and k != "dataset"}
        seeds = []
        for record in group.records:
            seed: dict[str, Any] = {"seed": record.protocol.get("seed")}
            if record.status != "ok":
                seed["error"] = record.error or record.status
            else:
                seed |= {name: record.value.get(name) for name in (*TESTED, "seconds")}
                seed["loss"] = [_rounded(value) for value in record.samples.get("loss", ())]
                seed["epochs"] = [int(epoch) for epoch in record.samples.get("tested_epochs", ())]
                for name, sample in TESTED.items():
                    seed[f"{name}_curve"] = [_rounded(value) for value in record.samples.get(sample, ())]
            seeds.append(seed)
        newest_record = group.records[-1]
        return {"settings": settings, "seeds": seeds, "environment": self._environment(newest_record)}

    def _environment(self, record: Record) -> int:
        content = {str(name): value for name, value in record.environment.items() if value is not None}
        return self._once(self.environments, repr(sorted(content.items(), key=str)), lambda: content)


def _protocol(record: Record) -> Sequence[Any]:
    return [record.protocol.get(name, COLUMNS[name].usual) for name in LATENCY_PROTOCOL]


def _part(part: SkeletonPart, skeleton: Skeleton, *, of_method: bool) -> list[Any]:
    """Name and counts of a part: whole, or without the layers that the method may have, which are a stage."""
    name = part.name.capitalize()
    return (
        [f"{name}, other layers", *_others(part, skeleton)] if of_method else [name, part.params, part.flops]
    )


def _others(part: SkeletonPart, skeleton: Skeleton) -> Counts:
    """The counts of the layers of a part that no method replaces."""
    blocks = [block for block in skeleton.blocks if block.stage == PART_STAGES[part.name]]
    params = part.params - sum(block.weights for block in blocks)
    return Counts(params, part.flops - sum(block.flops for block in blocks))


def _stage(skeleton: Skeleton, stage: int, design: StageDesign) -> dict[str, Any]:
    """One stage: its layers in order, each with parameters and multiply-adds for one image."""
    layers: list[list[Any]] = []
    levels: Counter[str] = Counter()
    for block in skeleton.blocks:
        if block.stage == stage:
            # A layer of a detector's head runs once a level, of which the first is P3.
            at = f" at P{3 + levels[block.name]}" if stage == PART_STAGES["head"] else ""
            levels[block.name] += 1
            layers += ([f"{name}{at}", *rest] for name, *rest in _layers(block, design))
    return {
        "stage": stage_name(stage).capitalize() if stage in _PARTS else f"Stage {stage}",
        "layers": layers,
    }


def _layers(block: Block, design: StageDesign) -> Iterable[list[Any]]:
    left = list(block.sites)
    for part in parts(block, design):
        site = site_of(part, left, block)
        if site is not None:
            del left[: left.index(site) + 1]
        words = [word for word in part.what if isinstance(word, str)]
        name = block.name if site is None else site.name
        yield [name, words[0] if words else "", 0 if part.again else part.params, part.flops]


_PARTS = tuple(PART_STAGES.values())


def _few(count: int) -> list[int]:
    """The places of at most `MOST_SAMPLES` of so many values, evenly spaced."""
    if count <= MOST_SAMPLES:
        return list(range(count))
    step = (count - 1) / (MOST_SAMPLES - 1)
    return [round(number * step) for number in range(MOST_SAMPLES)]


def _rounded(value: Any) -> float | None:
    """Four significant digits: what a figure shows, in as little room."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
