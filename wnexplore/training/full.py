"""One design point trained in full: a run directory with its log, its checkpoints and its record."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.design.external_names import is_brought, source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.errors import InputError, shown
from wnexplore.measure.environment import environment, resolve_device
from wnexplore.measure.failure import context_watched
from wnexplore.measure.switches import threads_set
from wnexplore.models import build
from wnexplore.models.trial import try_out
from wnexplore.results.record import Record
from wnexplore.results.store import Store
from wnexplore.training.checkpoint import Origin
from wnexplore.training.determinism import reproducible, seed_generators
from wnexplore.training.distributed import Processes, joined
from wnexplore.training.evaluate import preparation
from wnexplore.training.kept_checkpoints import Checkpoints
from wnexplore.training.log import Row, TrainingLog
from wnexplore.training.loop import STATE_VERSION, Training, check_loss, check_trained
from wnexplore.training.network_state import Snapshot
from wnexplore.training.setup import check_trainable, load, threads_of
from wnexplore.training.testing import Evaluation, StoppedError, evaluate, ready_for_test
from wnexplore.training.training_record import training_protocol


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
    finished: bool
    """Whether it went through the whole recipe, its tests too; otherwise it was stopped and is kept."""
    best_top1: float | None
    best: Path
    """The weights that had it."""
    damaged: tuple[str, ...]
    """Paths of images that couldn't be read."""
    skipped: int
    """Steps without training: damaged images left too few in their batch."""


def train_fully(run: TrainRun, on_row: Callable[[Row, int], None] = lambda row, steps: None) -> Outcome:
    """Train `run.point`, from the last checkpoint of its directory if there is one.

    The result is that of a run that was never stopped, to the last bit on the same device with as many
    threads and processes. On an interrupt (Ctrl-C, SIGTERM) the step under way is the last, and is kept; a
    test under way ends at once, and is made anew when the training goes on.
    `on_row` is told every row of the log as it is written, and the steps in all. Under torchrun all
    processes call this and share each batch.

    Raises `InputError` for data or a directory that can't be used, or one that holds another training,
    and `RunError` if the training diverges or the disk is full; what was kept before stays.
    """
    device = resolve_device(run.spec.device)
    with ExitStack() as stack:
        stack.enter_context(context_watched(f"the training of {run.point}"))
        processes = stack.enter_context(joined(device))
        # What can't begin leaves no run directory.
        load(run.spec, run.point.resolution)
        check_trainable(run.spec, run.point)
        stack.enter_context(threads_set(_threads(run, device)))
        stack.enter_context(reproducible(run.seed, device))
        under_way = _UnderWay(run, device, processes)
        store = stack.enter_context(Store.create(run.directory)) if processes.first else None
        under_way.take_up()
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
        # Taken with the file as it is run.
        brought = is_brought(self._point.backbone)
        self._source = source_hash(self._point.backbone) if brought else None
        network = build(self._point)
        self.training = Training(
            network,
            self._data.train,
            self._recipe,
            seed=run.seed,
            device=device,
            rank=processes.rank,
            world=processes.world,
            skips=brought and processes.world > 1 and _skips(network, self._point),
        )
        # What can't be kept is refused before anything is written.
        self.training.state()
        # What a network draws while it trains (dropout) is each process's own.
        seed_generators(run.seed + _PRIME * processes.rank)
        self._checkpoints = Checkpoints(run.directory)
        self._seconds = 0.0
        self._sum, self._count = torch.zeros((), device=device), 0
        self._epoch_sum, self._epoch_count = torch.zeros((), device=device), 0
        self._curves: dict[str, list[float]] = {"loss": [], "tested_epochs": [], "tested_top1": []}
        self._best: float | None = None
        self._untold: dict[str, float] | None = None
        """Loss and speed of the row for the end of an epoch, while its test is not behind it."""
        self._interrupts: list[int] = []
        self._damaged_before: tuple[str, ...] = ()
        self._lacks_weights = False
        """Whether it was killed between the state and the weights of the last step."""

    def go(self, tell: Callable[[Row], None], interrupts: list[int]) -> None:
        """Train until the end or an interrupt."""
        training, run, self._interrupts = self.training, self._run, interrupts
        if self._untold is not None and not self._end_epoch(tell):
            return
        saved = told = training.step
        began = perf_counter()
        for loss in training.losses(training.steps):
            self._add(loss)
            ends_epoch = training.step == training.steps or training.step % training.steps_per_epoch == 0
            # Processes can't stop alone: they ask each other where they speak to each other anyway.
            stop = bool(interrupts) and self._processes.world == 1
            if ends_epoch or (training.step % run.log_every == 0 and self._count):
                mean = self._mean_loss()
                passed = perf_counter() - began
                self._seconds += passed
                check_loss(mean, self._data.num_classes, self._place(), self._recipe)
                rate = (training.step - told) * self._recipe.batch_size / passed
                self._untold = {"loss": mean, "rate": rate}
                if ends_epoch:
                    self._curves["loss"].append(self._mean_loss_of_epoch())
                if ends_epoch and self._is_tested():
                    if not self._end_epoch(tell):
                        return
                    saved = training.step
                else:
                    self._tell(tell)
                stop = self._processes.any(bool(interrupts), self._device)
                told, began = training.step, perf_counter()
            if training.step > saved and (stop or training.step - saved >= run.save_every):
                self._save()
                saved = training.step
            if stop:
                return
        if self._lacks_weights:
            self._save()

    def outcome(self) -> Outcome:
        """Where it stands."""
        training = self.training
        damaged = self._damaged()
        best = self._checkpoints.best
        finished = training.step == training.steps and self._untold is None
        return Outcome(training.step, training.steps, finished, self._best, best, damaged, training.skipped)

    def record(self, damaged: tuple[str, ...]) -> Record:
        """The record of a training that ended: as a sweep's, but of any seed."""
        value = {
            "top1": self._curves["tested_top1"][-1],
            "seconds": self._seconds,
            "epochs": len(self._curves["loss"]),
            "damaged": list(damaged),
            "skipped": self.training.skipped,
        }
        return Record(
            "training",
            self._run.point,
            training_protocol(
                self._run.spec, self._device, torch.get_num_threads(), self._run.seed, self._data.listing
            ),
            value=value,
            samples=self._curves,
            environment=environment(self._device),
        )

    def take_up(self) -> None:
        """Go on where the directory was left, if it was. Raises `InputError` if it can't be."""
        if self._processes.first:
            self._checkpoints.clean()
        state = self._checkpoints.state()
        if state is None:
            return
        try:
            self._check_same(state)
            self._load(state)
        except InputError:
            raise
        except Exception as error:  # what a damaged file leads to
            reason = f"{type(error).__name__}: {shown(error)}"
            raise InputError(f"checkpoint {self._checkpoints.last} is damaged: {reason}") from error

    def _check_same(self, state: dict[str, Any]) -> None:
        directory = self._run.directory
        self._check_images(state)
        if state["identity"] != self._identity():
            raise InputError(
                f"{directory} holds another training: give the same options, or another folder by --out"
            )
        self._check_source(state)
        if state["training"].get("version") != STATE_VERSION:
            raise InputError(
                f"{directory} was trained by another version of wnexplore: go on with that one, or give"
                " another folder by --out"
            )
        processes = len(state["generators"])
        if processes != self._processes.world:
            raise InputError(
                f"{directory} was trained by {processes} processes, and these are"
                f" {self._processes.world}: start as many"
            )

    def _load(self, state: dict[str, Any]) -> None:
        if not os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(state["threads"])
        own = state["generators"][self._processes.rank]
        self.training.load_state(state["training"] | {"generators": own})
        self._sum, self._epoch_sum = (state[key].to(self._device) for key in ("sum", "epoch_sum"))
        self._count, self._epoch_count = state["count"], state["epoch_count"]
        self._seconds = state["seconds"]
        self._curves, self._best, self._untold = state["curves"], state["best"], state["untold"]
        self._damaged_before = tuple(state["damaged"])
        step = self.training.step
        self._lacks_weights = step == self.training.steps and not self._checkpoints.has_weights(step)

    def _damaged(self) -> tuple[str, ...]:
        """Paths of images that none of the processes could read: all of them must ask."""
        seen = self._processes.gather([*self._data.train.damaged, *self._data.test.damaged])
        return tuple(dict.fromkeys(path for own in (self._damaged_before, *seen) for path in own))

    def _add(self, loss: Tensor | None) -> None:
        if loss is not None:
            self._sum += loss
            self._count += 1
            self._epoch_sum += loss
            self._epoch_count += 1

    def _mean_loss(self) -> float:
        """Of the steps since the last row; of the epoch, if all of those were skipped."""
        if not self._count:
            check_trained(self._epoch_count, self.training.skipped, self._data.train)
            return self._processes.mean(self._epoch_sum) / self._epoch_count
        mean = self._processes.mean(self._sum) / self._count
        self._sum, self._count = torch.zeros_like(self._sum), 0
        return mean

    def _mean_loss_of_epoch(self) -> float:
        mean = self._processes.mean(self._epoch_sum) / self._epoch_count
        self._epoch_sum, self._epoch_count = torch.zeros_like(self._epoch_sum), 0
        return mean

    def _is_tested(self) -> bool:
        """Whether the epoch that has just ended has a test."""
        epochs = len(self._curves["loss"])
        return self.training.step == self.training.steps or epochs % self._run.test_every == 0

    def _end_epoch(self, tell: Callable[[Row], None]) -> bool:
        """Test, keep and tell what was found; False if an interrupt ended the test early."""
        try:
            tested = self._test()
        except StoppedError:
            self._save_state()
            return False
        self._tell(tell, test_loss=tested.loss, top1=tested.top1, top5=tested.top5)
        self._save()
        return True

    def _test(self) -> Evaluation:
        network = self.training.network

        def stop() -> bool:
            return bool(self._interrupts)

        with self._ready(stop):
            before = Snapshot(network)
            tested = evaluate(
                network,
                self._data.test,
                self._recipe.batch_size,
                self._device,
                rank=self._processes.rank,
                world=self._processes.world,
                stop=stop,
            )
            before.put_back()
            self._curves["tested_epochs"].append(len(self._curves["loss"]))
            self._curves["tested_top1"].append(tested.top1)
            if self._best is None or tested.top1 > self._best:
                self._best = tested.top1
                if self._processes.first:
                    self._checkpoints.save_best(network, self._origin(), self._beside())
        return tested

    def _tell(self, tell: Callable[[Row], None], **tested: float) -> None:
        """Write the row that `_untold` is of."""
        training, found = self.training, self._untold
        assert found is not None
        self._untold = None
        tell(
            Row(
                training.step,
                training.epoch,
                training.lr,
                found["loss"],
                found["rate"],
                self._seconds,
                **tested,
            )
        )

    def _save(self) -> None:
        """Keep the step: all that going on needs first, as training left it, and then the weights to test.

        After an interrupt these are left out if they take long to make ready.
        """
        self._save_state()
        since: list[float] = []

        def stop() -> bool:
            if self._interrupts:
                since.append(perf_counter())
            return bool(since) and since[-1] - since[0] > _PATIENCE

        with self._ready(stop) as whole:
            if self._processes.first and whole:
                self._checkpoints.save(self.training.network, self._origin(), self._beside())

    def _save_state(self) -> None:
        own = self.training.state()
        generators, damaged = self._processes.gather(own.pop("generators")), self._damaged()
        if not self._processes.first:
            return
        state = {
            "identity": self._identity(),
            "source": self._source,
            "images": self._data.listing,
            "threads": torch.get_num_threads(),
            "training": own,
            "generators": generators,
            "sum": self._sum,
            "count": self._count,
            "epoch_sum": self._epoch_sum,
            "epoch_count": self._epoch_count,
            "seconds": self._seconds,
            "curves": self._curves,
            "best": self._best,
            "untold": self._untold,
            "damaged": list(damaged),
        }
        self._checkpoints.save_state(self.training.step, state)

    def _beside(self) -> dict[str, Any]:
        return self.training.beside.changed(self.training.network)

    def _ready(self, stop: Callable[[], bool]) -> AbstractContextManager[bool]:
        return ready_for_test(
            self.training.network,
            self._data.train,
            self._recipe,
            seed=self._run.seed,
            device=self._device,
            world=self._processes.world,
            average=self.training.average,
            stop=stop,
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
            self._source,
        )

    def _identity(self) -> str:
        """What makes two runs the same training, as text."""
        content = {"point": self._point.to_dict(), "seed": self._run.seed, "data": self._run.spec.source.text}
        return json.dumps(content | self._recipe.model_dump(mode="json"), sort_keys=True)

    def _check_source(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` if the file of the network is not what it was when the training began."""
        # Those of before files were looked at say nothing of theirs.
        before = state.get("source")
        if before not in (None, self._source):
            raise InputError(
                f"the file of backbone '{shown(self._point.backbone)}' has changed since"
                f" {self._run.directory} was trained (SHA-256 {shown(before)}, now {self._source}): put it"
                " back, or give another folder by --out"
            )

    def _check_images(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` if the data set is the same folder, and its files are other ones.

        With another number of them the training has other steps, and with other names other labels.
        """
        # Those of before files were looked at say nothing of theirs.
        before, data = state.get("images"), self._run.spec.source.text
        if before not in (None, self._data.listing) and json.loads(state["identity"])["data"] == data:
            raise InputError(
                f"the image files of '{shown(data, 300)}' are not those that {self._run.directory} was"
                " trained on, by their names and classes: put them back, or give another folder by --out"
            )

    def _place(self) -> str:
        return f"before step {self.training.step} of {self.training.steps} (seed {self._run.seed})"


def _threads(run: TrainRun, device: str) -> int | None:
    return threads_of(run.spec, run.point.baseline()) if device == "cpu" else None


def _skips(network: nn.Module, point: DesignPoint) -> bool:
    """Whether some parameters of a network may get no gradient in a step."""
    if source_hash(point.backbone) is not None:
        # Anybody's code: it may leave out layers by chance, which one step doesn't show.
        return True
    try:
        return bool(try_out(network, point.resolution, training=True).without_gradient)
    except RuntimeError:
        return True


_PRIME = 1_000_003
_PATIENCE = 5.0
"""Seconds after an interrupt to make weights ready for a test."""


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
