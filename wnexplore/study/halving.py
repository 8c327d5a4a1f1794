"""Successive halving: all variants are trained for a few epochs, the better ones further.

Source: Jamieson & Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS
2016, section 3, https://arxiv.org/abs/1502.07943: after each rung the best 1/eta of the variants that reached
it continue. Optuna's pruner decides.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from wnexplore.design.external_names import is_external, source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import OF_NETWORK, START, RankedBy, TrainSpec
from wnexplore.errors import InputError
from wnexplore.files import make_folder, remove_unfinished, write_atomically
from wnexplore.results.columns import direction
from wnexplore.results.record import Record
from wnexplore.results.trainings import TESTED
from wnexplore.study.executor import Executor
from wnexplore.study.tasks import WHOLE, OnPart, TrainingTask
from wnexplore.training.starting_weights import start_hash


@dataclass(frozen=True)
class Variant:
    """A design point with its trainings, one per seed."""

    point: DesignPoint
    records: tuple[Record, ...]
    """What to train; finished trainings with their results."""

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline, which is trained in full."""
        return self.point == self.point.baseline()


def variants_of(records: Sequence[Record], done: Mapping[str, Record]) -> list[Variant]:
    """All variants of one halving: those of `records` to train, and those of `done`, by key, that have ended.

    Trainings of an earlier version of a network's file, or of the checkpoint that it starts from, are
    excluded: that was another network.
    """
    shared = _shared(records[0])
    by_point: dict[DesignPoint, list[Record]] = {}
    for record in (*done.values(), *records):
        if _shared(record) == shared and _is_of_files_now(record):
            by_point.setdefault(record.point, []).append(record)
    return [Variant(point, tuple(records_of)) for point, records_of in by_point.items()]


def train_by_halving(
    spec: TrainSpec,
    variants: Sequence[Variant],
    done: Mapping[str, Record],
    executor: Executor,
    paused: Path,
    on_part: OnPart = lambda record, part: None,
) -> Iterator[Record]:
    """Yield the record of every training of `variants` that is not in `done` (by key) when it ends.

    A variant is ranked by the mean over its seeds of top-1, or of the test loss if `spec` says so; the plain
    networks are never dropped. Between rungs the trainings are paused in files of the folder `paused`, which
    is removed when the last one ends: a stopped run resumes from these and from `done`, with the same result.
    Raises `InputError` if Optuna is not installed or the folder can't be made.
    """
    check_optuna()
    make_folder(paused)
    remove_unfinished(paused)
    ended = dict(done)
    left = sorted(variants, key=lambda variant: (not variant.is_baseline, str(variant.point)))
    for epochs in rungs(spec):
        reached = {record.key: record for record in ended.values()}
        for outcome in executor.run(_tasks(spec, left, ended, epochs, paused), on_part):
            reached[outcome.record.key] = record = outcome.record
            if outcome.state is not None:
                write_atomically(_file(paused, record), outcome.state)
            if record.status != "ok":
                ended[record.key] = record
                yield record
        going = _survivors(spec, left, ended, reached, epochs)
        for variant in left:
            for remaining in () if variant.point in going else variant.records:
                if remaining.key not in ended:
                    yield reached[remaining.key]
                    _file(paused, remaining).unlink(missing_ok=True)
        left = [variant for variant in left if variant.point in going]
    for outcome in executor.run(_tasks(spec, left, ended, None, paused), on_part):
        yield outcome.record
        _file(paused, outcome.record).unlink(missing_ok=True)
    shutil.rmtree(paused, ignore_errors=True)


def _shared(record: Record) -> dict[str, Any]:
    """The shared protocol of one halving, without what depends on the network."""
    return {key: value for key, value in record.protocol.items() if key not in ("seed", *OF_NETWORK)}


def _is_of_files_now(record: Record) -> bool:
    point, protocol = record.point, record.protocol
    try:
        source = source_hash(point.backbone) if is_external(point.backbone) else None
        start = start_hash(protocol.get("start_from"), point).get(START)
    except InputError:  # a file is gone
        source = start = None
    return (source, start) == (protocol.get("source"), protocol.get(START))


def check_optuna() -> None:
    """Raise `InputError` if Optuna is not installed; silence its log of each trial."""
    try:
        import optuna
    except ImportError:
        raise InputError('halving needs Optuna: pip install "wnexplore[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def rungs(spec: TrainSpec) -> list[int]:
    """The epochs after which variants are dropped."""
    assert spec.max_epochs is not None
    found, epochs = [], spec.first_rung
    while epochs < spec.max_epochs:
        found.append(epochs)
        epochs *= spec.reduction
    return found


def _tasks(
    spec: TrainSpec, left: Sequence[Variant], ended: Mapping[str, Record], until: int | None, paused: Path
) -> list[TrainingTask]:
    """The trainings that have not ended, up to the epoch `until`, or to their end."""
    going = [record for variant in left for record in variant.records if record.key not in ended]
    return [
        TrainingTask(spec, record, until or WHOLE, until is not None, partial(_state, _file(paused, record)))
        for record in going
    ]


def _state(file: Path) -> bytes | None:
    """A paused training; None for one that begins. What is damaged begins anew, with the same result."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _file(paused: Path, record: Record) -> Path:
    return paused / f"{record.key}.state"


def _survivors(
    spec: TrainSpec,
    left: Sequence[Variant],
    ended: Mapping[str, Record],
    reached: Mapping[str, Record],
    epochs: int,
) -> set[DesignPoint]:
    """The variants of `left` that are trained beyond `epochs`."""
    scores: dict[DesignPoint, float] = {}
    kept, dropped = {variant.point for variant in left if variant.is_baseline}, set()
    for variant in left:
        figures = [reached[record.key] for record in variant.records]
        tested = [
            found for record in figures if (found := _tested(record, spec.ranked_by, epochs)) is not None
        ]
        if tested:
            scores[variant.point] = fmean(tested)
        # Earlier decisions stay valid when more variants are added.
        if any(record.value.get("epochs", 0) > epochs for record in figures):
            kept.add(variant.point)
        elif any(record.key in ended and record.value.get("dropped_at") == epochs for record in figures):
            dropped.add(variant.point)
    return (kept | _best(spec, epochs, scores)) & scores.keys() - dropped


def _tested(record: Record, name: RankedBy, epochs: int) -> float | None:
    """The figure `name` after `epochs` epochs; None if not tested then.

    A test loss that was not finite is infinite: worse than every other.
    """
    values: Sequence[float | None] = record.samples.get(TESTED[name], ())
    found = zip(record.samples.get("tested_epochs", ()), values, strict=True)
    return next((math.inf if value is None else value for epoch, value in found if epoch == epochs), None)


def _best(spec: TrainSpec, epochs: int, scores: Mapping[DesignPoint, float]) -> set[DesignPoint]:
    """The variants that the pruner keeps at a rung that all of `scores` have reached."""
    found: set[DesignPoint] = set()
    worse = 1 if direction(spec.ranked_by) == "smaller" else -1
    for point in sorted(scores, key=lambda point: worse * scores[point]):
        others = [score for other, score in scores.items() if other != point]
        if not _continues(spec, epochs, scores[point], others):
            break
        found.add(point)
    return found


def _continues(spec: TrainSpec, epochs: int, score: float, others: Sequence[float]) -> bool:
    """The decision of Optuna's pruner on a variant once all others are known.

    The pruner decides on each trial when it is reported: so this one is reported last.
    """
    import optuna

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=epochs, reduction_factor=spec.reduction)
    better: Literal["minimize", "maximize"]
    better = "minimize" if direction(spec.ranked_by) == "smaller" else "maximize"
    study = optuna.create_study(direction=better, pruner=pruner)
    prune = False
    for value in (*others, score):
        trial = study.ask()
        trial.report(value, epochs)
        prune = trial.should_prune()
    return not prune
