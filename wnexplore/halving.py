"""Successive halving: every variant trained a little, the better ones further.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020: asynchronous successive
halving, in which a variant goes on if it is among the best 1/eta of those that have come as far as it has.
Optuna's pruner decides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.record import Record
from wnexplore.errors import InputError
from wnexplore.trainings import Done, Task, Workers, finished

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Variant:
    """A design point with the trainings that decide about it, one for each seed."""

    point: DesignPoint
    records: tuple[Record, ...]
    """What to train; those that are done already as they ended."""

    @property
    def is_baseline(self) -> bool:
        """Whether it is what others are compared with, which is trained in full."""
        return self.point == self.point.baseline()


def train_by_halving(
    spec: TrainSpec, variants: Sequence[Variant], done: Mapping[str, Record], at_work: Workers
) -> Iterator[Record]:
    """The record of every training of `variants` that `done` (by key) doesn't have yet, as it is known.

    A variant's top-1 is the mean over its seeds. The plain networks come first and are never dropped, the
    others in an order of their own, so that no axis of a sweep decides who is compared with whom. What is
    in `done` decides as it did: a run that was stopped goes on as if it had not been. Raises `InputError`
    if Optuna is not installed.
    """
    study = _study(spec)
    for variant in _order(variants):
        yield from _train_variant(study, spec, variant, done, at_work)


def rungs(spec: TrainSpec) -> list[int]:
    """The epochs after which variants are dropped."""
    assert spec.max_epochs is not None
    found, epochs = [], spec.first_rung
    while epochs < spec.max_epochs:
        found.append(epochs)
        epochs *= spec.reduction
    return found


def _study(spec: TrainSpec) -> optuna.Study:
    try:
        import optuna
    except ImportError:
        raise InputError('halving needs Optuna: pip install "wnexplore[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=spec.first_rung, reduction_factor=spec.reduction
    )
    return optuna.create_study(direction="maximize", pruner=pruner)


def _order(variants: Sequence[Variant]) -> list[Variant]:
    baselines = [variant for variant in variants if variant.is_baseline]
    others = [variant for variant in variants if not variant.is_baseline]
    # Whatever is done already, the order is the same.
    others.sort(key=lambda variant: str(variant.point))
    random.Random(0).shuffle(others)
    return baselines + others


def _train_variant(
    study: optuna.Study, spec: TrainSpec, variant: Variant, done: Mapping[str, Record], at_work: Workers
) -> Iterator[Record]:
    trial = study.ask()
    kept = {record.key: done[record.key] for record in variant.records if record.key in done}
    going = {record.key: Task(spec, record, 0) for record in variant.records if record.key not in done}
    ended: dict[str, Done] = {}
    dropped_at = None
    for epochs in [*rungs(spec), spec.max_epochs or 0]:
        tasks = [
            Task(spec, task.record, epochs, ended[key].state if key in ended else None)
            for key, task in going.items()
        ]
        for task, outcome in at_work.run(tasks):
            ended[task.record.key] = outcome
            if outcome.failure is not None:
                del going[task.record.key]
        tested = [top1 for record in kept.values() if (top1 := _top1(record, epochs)) is not None]
        tested += [figure.top1 for key in going if (figure := ended[key].figure) is not None]
        if not tested or epochs == spec.max_epochs:
            break
        trial.report(fmean(tested), epochs)
        prune = trial.should_prune() and not variant.is_baseline
        # Records from before more variants were added stay what they are.
        if prune or any(record.value.get("dropped_at") == epochs for record in kept.values()):
            dropped_at = epochs
            break
    for record in variant.records:
        if record.key in ended:
            yield finished(record, ended[record.key], dropped_at)


def _top1(record: Record, epochs: int) -> float | None:
    """Percent of the test images right after `epochs` epochs, if they were tested then."""
    found = zip(record.samples.get("tested_epochs", ()), record.samples.get("tested_top1", ()), strict=True)
    return next((top1 for epoch, top1 in found if epoch == epochs), None)
