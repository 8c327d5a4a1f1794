"""Tasks: the parts of a sweep that run on their own, in any process of any machine; records come out.

A task reads no run directory and writes none: who runs it keeps its records, and between two rungs of halving
its paused training.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import START, TrainSpec
from wnexplore.errors import RunError
from wnexplore.measure.complexity import measure_complexity
from wnexplore.measure.environment import environment
from wnexplore.measure.failure import NETWORK_ERRORS, Failure, release_memory
from wnexplore.measure.latency import measure_latencies
from wnexplore.measure.memory_bound import bound_memory
from wnexplore.measure.memory_fit import latency_misfit
from wnexplore.measure.saved_rounds import KeptRounds
from wnexplore.measure.torch_settings import precision_set, threads_set
from wnexplore.models import build
from wnexplore.results.record import Record, record_key
from wnexplore.training.setup import load, started, training_misfit
from wnexplore.training.starting_weights import check_start
from wnexplore.training.trainer import Callbacks, Trainer
from wnexplore.training.training_record import trained_record

WHOLE = 10**9
"""The epoch until which a complete training goes on."""


@dataclass(frozen=True)
class CountTask:
    """The counting of one network."""

    record: Record
    """Unfinished: point and protocol."""

    @property
    def records(self) -> tuple[Record, ...]:
        """The unfinished records."""
        return (self.record,)


@dataclass(frozen=True)
class TimingTask:
    """Latencies that are measured in the same rounds, with their plain network."""

    records: tuple[Record, ...]
    """Unfinished, of one plain network and protocol."""
    rounds: Path | None = None
    """The folder of unfinished rounds, from which it resumes; None: it begins anew."""

    @cached_property
    def protocol(self) -> LatencyProtocol:
        """That of all its records."""
        protocol = self.records[0].protocol
        assert isinstance(protocol, LatencyProtocol)
        return protocol


@dataclass(frozen=True)
class TrainingTask:
    """One training up to an epoch."""

    spec: TrainSpec
    record: Record
    """Unfinished: point and protocol."""
    until: int = WHOLE
    """The epoch at which to stop."""
    pauses: bool = False
    """Whether it may go on after `until`, and its state is wanted if it isn't complete then."""
    state: Callable[[], bytes | None] | bytes | None = None
    """That of the paused training from which it resumes, or what reads it; damaged: it begins anew, with the
    same result."""

    @property
    def records(self) -> tuple[Record, ...]:
        """The unfinished records."""
        return (self.record,)


Task = CountTask | TimingTask | TrainingTask


@dataclass(frozen=True)
class Outcome:
    """What became of one record of a task."""

    record: Record
    """With its figures, or failed. Of a training that is paused, as if it ended here."""
    state: bytes | None = None
    """That of a paused training."""
    lost: Failure | None = None
    """What lost the GPU's context: nothing more can run on it in that process."""
    died: bool = False
    """Whether its process died, each time that it was started."""


OnPart = Callable[[Record, float], None]
"""Called with the finished share of a task while it runs."""


class FullDiskError(RunError):
    """The machine's disk is full: another machine may do the task."""


def perform(task: Task, on_part: OnPart = lambda record, part: None) -> Iterator[Outcome]:
    """Do a task in this process, and yield the outcome of each of its records when it is known.

    A failure of its network becomes a failed record. Raises `FullDiskError`, and for latencies
    `ContextLostError` after the outcome of the network that lost the GPU's context.
    """
    bound_memory()
    if isinstance(task, CountTask):
        yield _count(task, on_part)
    elif isinstance(task, TimingTask):
        yield from _time(task, on_part)
    else:
        yield _train(task, on_part)


def as_sent(task: Task) -> Task:
    """`task` for another process or machine: with the state of a paused training, without files of here."""
    if isinstance(task, TimingTask):
        return replace(task, rounds=None)
    if isinstance(task, TrainingTask) and callable(task.state):
        return replace(task, state=task.state())
    return task


def failed(record: Record, failure: Failure, surroundings: dict[str, Any] | None = None) -> Record:
    """The record of a failure."""
    if surroundings is None:
        surroundings = environment(record.protocol.get("device", "cpu"))
    return replace(record, status=failure.status, error=failure.error, environment=surroundings)


def _count(task: CountTask, on_part: OnPart) -> Outcome:
    record = task.record
    on_part(record, 0.0)
    try:
        # Control flow that depends on random weights must be the same as in its skeleton.
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            complexity = measure_complexity(build(record.point), record.point.resolution)
    except NETWORK_ERRORS as error:
        _check_disk(error)
        return _failure(record, Failure.of(error))
    return Outcome(replace(record, value=complexity.to_dict(), environment=environment("cpu")))


def _time(task: TimingTask, on_part: OnPart) -> Iterator[Outcome]:
    plain, protocol = task.records[0].point.baseline(), task.protocol
    misfit = latency_misfit(plain, protocol)
    if misfit is not None:
        yield from (_failure(record, Failure("out_of_memory", misfit)) for record in task.records)
        return
    by_point = {record.point: record for record in task.records}
    keep = None if task.rounds is None else _kept_rounds(task.rounds, task)
    latencies = measure_latencies(
        {point: partial(build, point) for point in by_point},
        plain,
        partial(build, plain),
        protocol,
        plain.resolution,
        lambda point, spent: on_part(by_point[point], spent * len(task.records)),
        keep=keep,
    )
    with threads_set(protocol.threads), precision_set(protocol.dtype):
        surroundings = environment(protocol.device)
    try:
        for point, latency in latencies:
            record = replace(by_point[point], environment=surroundings)
            if isinstance(latency, Failure):
                yield _failure(record, latency)
            else:
                yield Outcome(replace(record, value=latency.to_dict(), samples=latency.samples()))
    finally:
        if keep is not None:
            keep.close()
    if keep is not None:
        keep.remove()


def _kept_rounds(folder: Path, task: TimingTask) -> KeptRounds[DesignPoint]:
    """The file of the rounds of `task`, for this torch and device."""
    plain, protocol = task.records[0].point.baseline(), task.protocol
    baseline = record_key("latency", plain, protocol)
    conditions = {
        "device_name": protocol.device_name,
        "threads": protocol.threads,
        "torch": torch.__version__,
    }
    names = {plain: baseline} | {record.point: record.key for record in task.records}
    return KeptRounds(folder / f"{baseline}.jsonl", {"baseline": baseline, "environment": conditions}, names)


def _train(task: TrainingTask, on_part: OnPart) -> Outcome:
    """Train until the epoch of `task`."""
    surroundings: dict[str, Any] = {}
    record, device = task.record, task.record.protocol["device"]
    on_part(record, 0.0)
    outcome = failure = None
    try:
        with threads_set(record.protocol["threads"]):
            outcome = _trained(task, surroundings, on_part)
    except NETWORK_ERRORS as error:
        _check_disk(error)
        failure = Failure.of(error)
    # Only here, outside the handler, are its tensors freed; and cached GPU memory is released for other
    # processes.
    if failure is not None or device == "cuda":
        release_memory(device)
    if failure is not None:
        return _failure(record, failure, surroundings or None)
    assert outcome is not None
    return outcome


def _trained(task: TrainingTask, surroundings: dict[str, Any], on_part: OnPart) -> Outcome:
    record = task.record
    data = load(task.spec, record.point.resolution)
    check_start(task.spec.start_from, record.point, record.protocol.get(START))
    misfit = training_misfit(task.spec, record.point, record.protocol["device"])
    if misfit is not None:
        raise MemoryError(misfit)
    network = replace(record.point, num_classes=data.num_classes)

    def make() -> nn.Module:
        # Called with the training's switches set.
        surroundings.update(environment(record.protocol["device"]))
        return started(task.spec, network)

    def begun() -> Trainer:
        return Trainer(
            make,
            data,
            task.spec.recipe,
            seed=record.protocol["seed"],
            device=record.protocol["device"],
            test_every=task.spec.test_every,
        )

    trainer, state = begun(), task.state() if callable(task.state) else task.state
    if state is not None:
        try:
            trainer.load_state(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))
        except Exception:  # damaged, or of another version: anything may be raised
            trainer = begun()
    trainer.advance(task.until, _Progress(record, on_part))
    paused = task.pauses and task.until < trainer.epochs
    made = trained_record(record, trainer.figure, surroundings, task.until if task.pauses else None)
    return Outcome(made, _state_bytes(trainer.state()) if paused else None)


def _state_bytes(state: dict[str, Any]) -> bytes:
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()


class _Progress(Callbacks):
    """Reports the finished share of a training after each step."""

    def __init__(self, record: Record, on_part: OnPart) -> None:
        self._record, self._on_part = record, on_part

    def on_step(self, step: int, steps: int) -> None:
        """Report it."""
        self._on_part(self._record, step / steps)


def _failure(record: Record, failure: Failure, surroundings: dict[str, Any] | None = None) -> Outcome:
    lost = failure if failure.context_lost else None
    return Outcome(failed(record, failure, surroundings), lost=lost)


def _check_disk(error: BaseException | None) -> None:
    """Raise `FullDiskError` if that is what `error` says."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FullDiskError(f"no space left on the disk: {error}") from error
        error = error.__cause__ or error.__context__
