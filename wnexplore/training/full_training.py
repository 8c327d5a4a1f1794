"""The full training of one design point in a run directory with log, checkpoints and record."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from wnexplore.design.external_names import is_external, source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import BEFORE, START, TrainSpec
from wnexplore.design.vision_tasks import TASKS
from wnexplore.errors import STOPS, InputError, shown
from wnexplore.measure.environment import environment, resolve_device
from wnexplore.measure.failure import context_watched
from wnexplore.measure.memory_bound import bound_memory
from wnexplore.measure.memory_fit import check_fits_somewhere
from wnexplore.measure.torch_settings import threads_set
from wnexplore.models.trial_run import try_out
from wnexplore.results.record import Record
from wnexplore.results.store import Store
from wnexplore.training.checkpoint import CheckpointMetadata
from wnexplore.training.checkpoint_folder import Checkpoints
from wnexplore.training.determinism import reproducible, seed_generators
from wnexplore.training.distributed import Processes, joined
from wnexplore.training.evaluate import preparation
from wnexplore.training.log import Row, TrainingLog
from wnexplore.training.loop import STATE_VERSION
from wnexplore.training.setup import check_trainable, load, started, threads_of, training_misfit
from wnexplore.training.starting_weights import start_hash
from wnexplore.training.trainer import Callbacks, Trainer
from wnexplore.training.training_record import trained_record, training_protocol


@dataclass(frozen=True)
class TrainRun:
    """What to train, how, and the run directory."""

    point: DesignPoint
    """The network; its number of classes is set to that of the data."""
    spec: TrainSpec
    """Data, recipe and device."""
    directory: Path
    seed: int = 0
    log_every: int = 50
    """Steps between two rows of the log; there is also one at the end of each epoch."""
    save_every: int = 1000
    """Most steps between two checkpoints; there is also one after each test."""
    test_every: int = 1
    """Epochs between two tests; there is also one after the last epoch."""


@dataclass(frozen=True)
class TrainingOutcome:
    """The state of a training when it ends."""

    step: int
    steps: int
    finished: bool
    """Whether it completed the recipe and its tests; otherwise it was stopped and saved."""
    best_score: float | None
    """Top-1 accuracy, or a detector's average precision, in percent."""
    best: Path
    """The weights with that score."""
    damaged: tuple[str, ...]
    """Paths of images that couldn't be read."""
    why_damaged: Mapping[str, str]
    """The reasons, where known, including images from before a stop."""
    skipped: int
    """Skipped steps: damaged images left too few in the batch."""


def train_fully(
    run: TrainRun, on_row: Callable[[Row, int], None] = lambda row, steps: None
) -> TrainingOutcome:
    """Train `run.point`, resuming from the last checkpoint of its directory if there is one.

    The result is bit-identical to that of an uninterrupted run on the same device with as many threads and
    processes. On an interrupt (Ctrl-C, SIGTERM, SIGHUP) the current step is completed and saved; a running
    test ends at once, and is repeated when the training resumes. `on_row` is called with each row of the log
    and the total number of steps. Under torchrun all processes call this and share each batch.

    Raises `InputError` for unusable data or directory, or if the directory holds another training, and
    `RunError` if the training diverges or the disk is full; saved checkpoints are kept.
    """
    device = resolve_device(run.spec.device)
    with ExitStack() as stack:
        stack.enter_context(context_watched(f"the training of {run.point}"))
        processes = stack.enter_context(joined(device))
        # A training that can't start leaves no run directory.
        load(run.spec, run.point.resolution)
        check_trainable(run.spec, run.point)
        check_fits_somewhere([training_misfit(run.spec, run.point, device, processes.world)])
        bound_memory()
        stack.enter_context(threads_set(_threads(run, device)))
        directory = _RunDirectory(run, device, processes, on_row)
        trainer = directory.trainer
        store = stack.enter_context(Store.create(run.directory)) if processes.first else None
        directory.resume()
        if store is not None:
            directory.log = stack.enter_context(TrainingLog(run.directory, trainer.training.step))
        directory.interrupts = stack.enter_context(_interrupts())
        trainer.advance(trainer.epochs, directory)
        if store is not None and trainer.finished:
            record, kept = directory.record(), store.keys()
            if record.key not in kept:
                store.append(record)
        return directory.outcome()


class _RunDirectory(Callbacks):
    """A training with its run directory of log and checkpoints."""

    def __init__(
        self, run: TrainRun, device: str, processes: Processes, on_row: Callable[[Row, int], None]
    ) -> None:
        spec = run.spec
        self._run, self._device, self._processes, self._on_row = run, device, processes, on_row
        self._data = load(spec, run.point.resolution)
        self._point = replace(run.point, num_classes=self._data.num_classes)
        # The hash of the file as it is run.
        external = is_external(self._point.backbone)
        self._source = source_hash(self._point.backbone) if external else None
        self._start = start_hash(spec.start_from, self._point)

        def make() -> nn.Module:
            network = started(spec, self._point)
            # Random numbers during training (dropout) differ by process.
            seed_generators(run.seed + _PRIME * processes.rank)
            return network

        self.trainer = Trainer(
            make,
            self._data,
            spec.recipe,
            seed=run.seed,
            device=device,
            log_every=run.log_every,
            save_every=run.save_every,
            test_every=run.test_every,
            processes=processes,
            skips=lambda network: external and processes.world > 1 and _skips(network, self._point),
        )
        # State that can't be saved is refused before anything is written.
        self.trainer.state()
        self._checkpoints = Checkpoints(run.directory)
        self._lacks_weights = False
        """Whether the process was killed between saving the state and the weights of the last step."""
        self.log: TrainingLog | None = None
        self.interrupts: list[int] = []

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one. Raises `InputError` if it can't be used."""
        if self._processes.first:
            self._checkpoints.clean()
        state = self._checkpoints.state()
        if state is None:
            return
        try:
            self._check_same(state)
            if not os.environ.get("OMP_NUM_THREADS"):
                torch.set_num_threads(state["threads"])
            self.trainer.load_state(state)
        except InputError:
            raise
        except Exception as error:  # what a damaged file leads to
            reason = f"{type(error).__name__}: {shown(error)}"
            raise InputError(f"checkpoint {self._checkpoints.last} is damaged: {reason}") from error
        training = self.trainer.training
        ended = training.step == training.steps
        self._lacks_weights = ended and not self._checkpoints.has_weights(training.step)

    def outcome(self) -> TrainingOutcome:
        """The state of the training."""
        trainer, training, figure = self.trainer, self.trainer.training, self.trainer.figure
        return TrainingOutcome(
            training.step,
            training.steps,
            trainer.finished,
            figure.best,
            self._checkpoints.best,
            figure.damaged,
            figure.why_damaged,
            figure.skipped,
        )

    def record(self) -> Record:
        """The record of a finished training, like a sweep's but for any seed."""
        run, device = self._run, self._device
        listing = self._data.listing
        protocol = training_protocol(run.spec, device, torch.get_num_threads(), run.seed, listing)
        protocol |= self._start
        with reproducible(run.seed, device):
            surroundings = environment(device)
        return trained_record(Record("training", run.point, protocol), self.trainer.figure, surroundings)

    def on_row(self, row: Row) -> None:
        """Write it, in the first process."""
        if self.log is not None:
            self.log.write(row)
            self._on_row(row, self.trainer.training.steps)

    def on_test(self) -> None:
        """Save the weights if they are the best so far."""
        *before, score = self.trainer.figure.tested_scores
        if self._processes.first and score > max(before, default=-math.inf):
            self._checkpoints.save_best(self.trainer.training.network, self._metadata(), self._side_state())

    def on_end(self) -> None:
        """Save the weights if they are lacking."""
        if self._lacks_weights:
            self.save(weights=True)

    def save(self, weights: bool) -> None:
        """Save the step: first the state for resuming, then the weights to test.

        After an interrupt the weights are omitted if they take long to prepare.
        """
        state = self.trainer.state()
        if self._processes.first:
            run = {
                "identity": self._identity(),
                "source": self._source,
                **self._start,
                "images": self._data.listing,
                "threads": torch.get_num_threads(),
            }
            self._checkpoints.save_state(self.trainer.training.step, run | state)
        if not weights:
            return
        since: list[float] = []

        def stop() -> bool:
            if self.interrupts:
                since.append(perf_counter())
            return bool(since) and since[-1] - since[0] > _PATIENCE

        with self.trainer.ready_for_test(stop) as complete:
            if self._processes.first and complete:
                self._checkpoints.save(self.trainer.training.network, self._metadata(), self._side_state())

    def stop(self) -> bool:
        """Whether an interrupt was received."""
        return bool(self.interrupts)

    def _side_state(self) -> dict[str, Any]:
        training = self.trainer.training
        return training.side_state.changed(training.network)

    def _metadata(self) -> CheckpointMetadata:
        training, figure, spec = self.trainer.training, self.trainer.figure, self._run.spec
        tested = figure.tested_epochs
        current = bool(tested) and tested[-1] == len(figure.losses) == training.epoch
        score = {TASKS[self._point.task].score: figure.score} if current else {}
        return CheckpointMetadata(
            self._point,
            spec.source.text,
            self._data.classes,
            preparation(self._data.test),
            spec.recipe.model_dump(mode="json"),
            self._run.seed,
            training.step,
            training.epoch,
            source=self._source,
            **score,
        )

    def _identity(self) -> str:
        """The identity of a training, as text."""
        run = self._run
        content = {"point": self._point.stored(), "seed": run.seed, "data": run.spec.source.text}
        return json.dumps(content | run.spec.recipe.identity, sort_keys=True)

    def _check_same(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` if `state` is of another training."""
        directory = self._run.directory
        self._check_images(state)
        if state["identity"] != self._identity():
            raise InputError(
                f"{directory} holds another training ({_differences(state['identity'], self._identity())}):"
                " give the same options, or another folder by --out"
            )
        # Older states don't have a hash.
        source = state.get("source")
        if source not in (None, self._source):
            raise InputError(
                f"the file of backbone '{shown(self._point.backbone)}' has changed since"
                f" {directory} was trained (SHA-256 {shown(source)}, now {self._source}): put it"
                " back, or give another folder by --out"
            )
        # Older states don't have this hash either.
        if state.get(START) is not None and {START: state[START]} != self._start:
            raise InputError(
                f"the checkpoint of start_from has changed since {directory} was trained (SHA-256"
                f" {shown(state[START])}, now {self._start.get(START)}): put it back, or give another folder"
                " by --out"
            )
        if state["training"].get("version") != STATE_VERSION:
            raise InputError(
                f"{directory} was trained by another version of wnexplore: resume with that one, or give"
                " another folder by --out"
            )
        processes = len(state["generators"])
        if processes != self._processes.world:
            raise InputError(
                f"{directory} was trained by {processes} processes, not {self._processes.world}: start"
                f" {processes}"
            )

    def _check_images(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` if the data set is the same folder with different files.

        Another number of files changes the steps, other names change the labels, and other contents make it
        the training of two data sets.
        """
        # Older states have a hash of the names alone, and still older ones none.
        before, data, now = state.get("images"), self._run.spec.source.text, self._data.listing
        if before is None or json.loads(state["identity"])["data"] != data:
            return
        if now is None or not now.startswith(before):
            same_names = (now or "").partition("-")[0] == before.partition("-")[0]
            by = "their contents" if same_names else "their names and classes"
            raise InputError(
                f"the image files of '{shown(data, 300)}' are not those that {self._run.directory} was"
                f" trained on, by {by}: put them back, or give another folder by --out"
            )


def _differences(before: str, now: str) -> str:
    """The first few fields in which two trainings differ, by their identities: "lr 0.1, now 0.05"."""
    fields = [_flat(identity) for identity in (before, now)]
    names = [name for name in fields[0] | fields[1] if len({str(one.get(name)) for one in fields}) > 1]
    texts = [f"{name} {shown(fields[0].get(name))}, now {shown(fields[1].get(name))}" for name in names[:3]]
    return "; ".join([*texts, *(["..."] if len(names) > 3 else [])])


def _flat(identity: str) -> dict[str, Any]:
    content: dict[str, Any] = BEFORE | json.loads(identity)
    return {**content.pop("point"), **content}


def _threads(run: TrainRun, device: str) -> int | None:
    return threads_of(run.spec, run.point.baseline()) if device == "cpu" else None


def _skips(network: nn.Module, point: DesignPoint) -> bool:
    """Whether some parameters of a network may lack a gradient in a step."""
    if source_hash(point.backbone) is not None:
        # Arbitrary code may skip layers at random, which one step doesn't show.
        return True
    try:
        return bool(try_out(network, point.resolution, training=True).without_gradient)
    except RuntimeError:
        return True


_PRIME = 1_000_003
_PATIENCE = 5.0
"""Seconds after an interrupt to prepare weights for a test."""


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts received so far, in order; a second one ends the process as usual.

    But not a second SIGHUP, which a shell sends once more when its terminal is closed; and one that the
    caller has ignored (nohup) stays ignored.
    """
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in STOPS}
    before = {n: handler for n, handler in before.items() if n == signal.SIGINT or handler != signal.SIG_IGN}

    def note(number: int, frame: Any) -> None:
        came.append(number)
        again = before[signal.Signals(number)]
        signal.signal(number, again if number in (signal.SIGINT, signal.SIGTERM) else signal.SIG_IGN)

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
