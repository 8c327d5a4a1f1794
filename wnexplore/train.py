"""One design point trained in full: a run directory with its log, its checkpoints and its record."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from wnexplore.checkpoint import Origin
from wnexplore.checkpoints import Checkpoints
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.record import Record
from wnexplore.errors import InputError
from wnexplore.evaluation import preparation
from wnexplore.measure.determinism import reproducible
from wnexplore.measure.environment import environment, resolve_device
from wnexplore.measure.evaluation import Evaluation, evaluate, ready_for_test
from wnexplore.measure.loop import Training, check_loss
from wnexplore.measure.processes import Processes, joined
from wnexplore.measure.switches import threads_set
from wnexplore.models import build
from wnexplore.store import Store
from wnexplore.training_log import Row, TrainingLog
from wnexplore.trainings import load, threads_of, training_protocol


@dataclass(frozen=True)
class TrainRun:
    """What to train, how, and where its results go."""

    point: DesignPoint
    """The network; its number of classes becomes that of the data."""
    spec: TrainSpec
    """Data, recipe and device."""
    directory: Path
    seed: int = 0
    log_every: int = 50
    """Steps between two rows of the log; the end of an epoch has one too."""
    save_every: int = 1000
    """Steps between two checkpoints at most; a test has one too."""
    test_every: int = 1
    """Epochs between two tests; the last epoch has one too."""


@dataclass(frozen=True)
class Outcome:
    """Where a training stands when it ends."""

    step: int
    steps: int
    best_top1: float | None
    best: Path
    """The weights that had it."""
    damaged: tuple[str, ...]
    """Paths of images that couldn't be read."""

    @property
    def finished(self) -> bool:
        """Whether it went through the whole recipe; otherwise it was stopped and is kept."""
        return self.step == self.steps


def train_fully(run: TrainRun, on_row: Callable[[Row, int], None] = lambda row, steps: None) -> Outcome:
    """Train `run.point`, from the last checkpoint of its directory if there is one.

    The result is that of a run that was never stopped, to the last bit on the same device with as many
    threads and processes. On an interrupt (Ctrl-C, SIGTERM) the step under way is the last, and is kept.
    `on_row` is told every row of the log as it is written, and the steps in all. Under torchrun all
    processes call this and share each batch.

    Raises `InputError` for data or a directory that can't be used, or one that holds another training,
    and `RunError` if the training diverges or the disk is full; what was kept before stays.
    """
    device = resolve_device(run.spec.device)
    with ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        # What can't begin leaves no run directory.
        load(run.spec, run.point.resolution)
        store = stack.enter_context(Store.create(run.directory)) if processes.first else None
        stack.enter_context(threads_set(_threads(run, device)))
        stack.enter_context(reproducible(run.seed, device))
        under_way = _UnderWay(run, device, processes)
        log = stack.enter_context(TrainingLog(run.directory, under_way.training.step)) if store else None

        def tell(row: Row) -> None:
            if log is not None:
                log.write(row)
                on_row(row, under_way.training.steps)

        under_way.go(tell, stack.enter_context(_interrupts()))
        outcome = under_way.outcome()
        if store is not None and outcome.finished:
            record = under_way.record(outcome.damaged)
            kept = store.keys()
            if record.key not in kept:
                store.append(record)
        return outcome


class _UnderWay:
    """A training, its figures so far, and where they are kept."""

    def __init__(self, run: TrainRun, device: str, processes: Processes) -> None:
        spec = run.spec
        self._run, self._device, self._processes = run, device, processes
        self._recipe = spec.recipe
        self._data = load(spec, run.point.resolution)
        self._point = replace(run.point, num_classes=self._data.num_classes)
        self.training = Training(
            build(self._point),
            self._data.train,
            self._recipe,
            seed=run.seed,
            device=device,
            rank=processes.rank,
            world=processes.world,
        )
        # What a network draws while it trains (dropout) is each process's own.
        torch.manual_seed(run.seed + _PRIME * processes.rank)
        self._checkpoints = Checkpoints(run.directory)
        self._seconds = 0.0
        self._sum, self._count = torch.zeros((), device=device), 0
        self._epoch_sum, self._epoch_count = torch.zeros((), device=device), 0
        self._curves: dict[str, list[float]] = {"loss": [], "tested_epochs": [], "tested_top1": []}
        self._best: float | None = None
        self._take_up()

    def go(self, tell: Callable[[Row], None], interrupts: list[int]) -> None:
        """Train until the end or an interrupt."""
        training, run = self.training, self._run
        saved = told = training.step
        began = perf_counter()
        for loss in training.losses(training.steps):
            self._add(loss)
            at_end = training.step == training.steps
            ends_epoch = at_end or training.step % training.steps_per_epoch == 0
            tested = None
            # Processes can't stop alone: they ask each other where they speak to each other anyway.
            stop = bool(interrupts) and self._processes.world == 1
            if ends_epoch or training.step % run.log_every == 0:
                mean = self._processes.mean(self._sum) / self._count
                passed = perf_counter() - began
                self._seconds += passed
                self._sum, self._count = torch.zeros_like(self._sum), 0
                check_loss(mean, self._data.num_classes, self._place(), self._recipe)
                if ends_epoch:
                    tested = self._end_epoch(at_end)
                rate = (training.step - told) * self._recipe.batch_size / passed
                found = {} if tested is None else _found(tested)
                tell(Row(training.step, training.epoch, training.lr, mean, rate, self._seconds, **found))
                stop = self._processes.any(bool(interrupts), self._device)
                told, began = training.step, perf_counter()
            if stop or tested is not None or training.step - saved >= run.save_every:
                self._save()
                saved = training.step
            if stop:
                break

    def outcome(self) -> Outcome:
        """Where it stands."""
        data, training = self._data, self.training
        seen = self._processes.gather([*data.train.damaged, *data.test.damaged])
        damaged = tuple(dict.fromkeys(path for own in seen for path in own))
        return Outcome(training.step, training.steps, self._best, self._checkpoints.best, damaged)

    def record(self, damaged: tuple[str, ...]) -> Record:
        """The record of a training that ended: as a sweep's, but of any seed."""
        value = {
            "top1": self._curves["tested_top1"][-1],
            "seconds": self._seconds,
            "epochs": len(self._curves["loss"]),
            "damaged": list(damaged),
        }
        return Record(
            "training",
            self._run.point,
            training_protocol(self._run.spec, self._device, torch.get_num_threads(), self._run.seed),
            value=value,
            samples=self._curves,
            environment=environment(self._device),
        )

    def _add(self, loss: Tensor) -> None:
        self._sum += loss
        self._count += 1
        self._epoch_sum += loss
        self._epoch_count += 1

    def _end_epoch(self, at_end: bool) -> Evaluation | None:
        """Note the mean loss of the epoch, and test if it is time."""
        self._curves["loss"].append(self._processes.mean(self._epoch_sum) / self._epoch_count)
        self._epoch_sum, self._epoch_count = torch.zeros_like(self._epoch_sum), 0
        epochs = len(self._curves["loss"])
        if not at_end and epochs % self._run.test_every:
            return None
        with self._ready():
            tested = evaluate(
                self.training.tested,
                self._data.test,
                self._recipe.batch_size,
                self._device,
                rank=self._processes.rank,
                world=self._processes.world,
            )
            self._curves["tested_epochs"].append(epochs)
            self._curves["tested_top1"].append(tested.top1)
            if self._best is None or tested.top1 > self._best:
                self._best = tested.top1
                if self._processes.first:
                    self._checkpoints.save_best(self.training.tested, self._origin())
        return tested

    def _save(self) -> None:
        own = self.training.state()
        generators = self._processes.gather(own.pop("generators"))
        if not self._processes.first:
            with self._ready():  # it reads what the others read
                return
        state = {
            "identity": self._identity(),
            "threads": torch.get_num_threads(),
            "network": self.training.network.state_dict(),
            "training": own,
            "generators": generators,
            "sum": self._sum,
            "count": self._count,
            "epoch_sum": self._epoch_sum,
            "epoch_count": self._epoch_count,
            "seconds": self._seconds,
            "curves": self._curves,
            "best": self._best,
        }
        with self._ready():
            self._checkpoints.save(self.training.tested, self._origin(), state)

    def _take_up(self) -> None:
        """Go on where the directory was left, if it was."""
        state = self._checkpoints.state()
        if state is None:
            return
        if state["identity"] != self._identity():
            raise InputError(
                f"{self._run.directory} holds another training: give the same options, or another"
                " folder by --out"
            )
        own = state["generators"]
        if len(own) != self._processes.world:
            raise InputError(
                f"{self._run.directory} was trained by {len(own)} processes, and these are"
                f" {self._processes.world}: start as many"
            )
        if "threads" in state and not os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(state["threads"])
        self.training.network.load_state_dict(state["network"])
        self.training.load_state(state["training"] | {"generators": own[self._processes.rank]})
        self._sum, self._epoch_sum = (state[key].to(self._device) for key in ("sum", "epoch_sum"))
        self._count, self._epoch_count = state["count"], state["epoch_count"]
        self._seconds = state["seconds"]
        self._curves, self._best = state["curves"], state["best"]

    def _ready(self) -> Any:
        return ready_for_test(
            self.training.tested,
            self._data.train,
            self._recipe,
            seed=self._run.seed,
            device=self._device,
            world=self._processes.world,
        )

    def _origin(self) -> Origin:
        training = self.training
        tested = self._curves["tested_epochs"]
        current = bool(tested) and tested[-1] == len(self._curves["loss"]) == training.epoch
        return Origin(
            self._point,
            self._run.spec.source.text,
            self._data.classes,
            preparation(self._data.test),
            self._recipe.model_dump(mode="json"),
            self._run.seed,
            training.step,
            training.epoch,
            self._curves["tested_top1"][-1] if current else None,
        )

    def _identity(self) -> str:
        """What makes two runs the same training, as text."""
        content = {"point": self._point.to_dict(), "seed": self._run.seed, "data": self._run.spec.source.text}
        return json.dumps(content | self._recipe.model_dump(mode="json"), sort_keys=True)

    def _place(self) -> str:
        return f"before step {self.training.step} of {self.training.steps} (seed {self._run.seed})"


def _threads(run: TrainRun, device: str) -> int | None:
    return threads_of(run.spec, run.point.baseline()) if device == "cpu" else None


_PRIME = 1_000_003


def _found(tested: Evaluation) -> dict[str, float]:
    return {"test_loss": tested.loss, "top1": tested.top1, "top5": tested.top5}


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts that came so far, in the order they came; a second one ends the process as ever."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
