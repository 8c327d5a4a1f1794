"""Runs the trainings of a sweep: one after another, or several at once in separate processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import psutil
import torch
from torch import nn

from wnexplore.design.protocol import TrainSpec
from wnexplore.errors import STOPS, InputError, Notice, RunError, print_notices
from wnexplore.measure.environment import environment, free_memory
from wnexplore.measure.failure import NETWORK_ERRORS, ContextLostError, Failure, release_memory
from wnexplore.measure.torch_settings import threads_set
from wnexplore.models import build
from wnexplore.results.record import Record
from wnexplore.training.checkpoint import read_state, save_state
from wnexplore.training.determinism import require_cublas_workspace
from wnexplore.training.setup import load, training_misfit
from wnexplore.training.trainer import Callbacks, Trainer
from wnexplore.training.training_record import TrainingFigure, trained_record


@dataclass(frozen=True)
class Task:
    """One training up to an epoch."""

    spec: TrainSpec
    record: Record
    """The unfinished record: point and protocol."""
    until: int
    """The epoch at which to stop."""
    file: Path | None = None
    """The file in which it is paused if it continues after `until`, and from which it resumes; None: it
    doesn't."""


@dataclass(frozen=True)
class Done:
    """The result of a task."""

    figure: TrainingFigure | None = None
    failure: Failure | None = None
    """Without a failure and a figure it wasn't started, as its process had lost the GPU."""
    environment: Mapping[str, Any] = field(default_factory=dict)


OnPart = Callable[[Record, float], None]
"""Called with the finished share of a task while it runs."""


class Workers:
    """Runs tasks one after another in this process, or `jobs` at once in separate processes."""

    def __init__(
        self,
        jobs: int,
        on_part: OnPart,
        device: str = "cpu",
        *,
        wait_and_see: bool = False,
        pool: Executor | None = None,
    ) -> None:
        self._jobs, self._on_part, self._device, self._wait_and_see = jobs, on_part, device, wait_and_see
        self._pool = pool
        self.ahead = 0
        """Trainings to come after those that are run, for which processes are kept too."""
        self._spent_s = self._trained = 0.0
        """Time and number of the trainings in this process so far."""
        if jobs > 1 and not wait_and_see and pool is None:
            self._start(jobs)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Done]]:
        """Yield every task with its result when it is known.

        Raises `RunError` if a process dies, and `ContextLostError` after the task that lost the GPU's
        context.
        """
        left = list(tasks)
        while left and self._pool is None:
            done = self._run_here(left[0], len(left))
            if done is not None:
                task = left.pop(0)
                yield task, done
                _check_context(task, done)
        if left:
            yield from self._run_there(left)

    def report_to(self, on_part: OnPart) -> None:
        """Report the parts of the next tasks to `on_part`."""
        self._on_part = on_part

    def end(self, *, kill: bool) -> None:
        """End the processes, at once with `kill`."""
        if self._pool is None:
            return
        self._pool.shutdown(wait=not kill, cancel_futures=kill)
        for process in multiprocessing.active_children() if kill else ():
            # Not terminated by signals: the main process handles those that ask it to end.
            process.kill()

    def _run_here(self, task: Task, left: int) -> Done | None:
        """Run the first of `left` tasks in this process; None if the processes have been started instead."""
        record, began = task.record, perf_counter()
        # Of a training that is paused, as a share of the whole.
        share = min(1.0, task.until / (task.spec.epochs or _WHOLE))

        def on_part(part: float) -> None:
            self._on_part(record, part)
            if self._jobs == 1:
                return
            spent, trained = self._spent_s + perf_counter() - began, self._trained + part / share
            to_come = (self._trained + left + self.ahead - trained) * spent / trained
            if spent > _LOOK_S and to_come * (1 - 1 / self._jobs) > _WORTH_S:
                raise _Handed

        self._on_part(record, 0.0)
        try:
            done = _run(task, on_part)
        except _Handed:
            self._jobs = _jobs_in_memory(self._jobs)
            if self._jobs > 1:
                self._start(self._jobs)
            return None
        self._spent_s, self._trained = self._spent_s + perf_counter() - began, self._trained + 1
        return done

    def _run_there(self, tasks: list[Task]) -> Iterator[tuple[Task, Done]]:
        assert self._pool is not None
        left = {task.record.key: task for task in tasks}
        try:
            futures: dict[Future[Done], Task] = {
                self._pool.submit(_run_in_worker, task): task for task in tasks
            }
            for future in as_completed(futures):
                task, done = futures[future], future.result()
                if done.figure is None and done.failure is None:
                    continue  # The task that lost the context is still to come.
                self._on_part(task.record, 0.0)
                del left[task.record.key]
                yield task, done
                _check_context(task, done)
            return
        except BrokenProcessPool:
            if not self._wait_and_see:
                raise RunError(
                    "a training process died, perhaps out of memory: earlier results are kept, and --jobs 1"
                    " trains in one process"
                ) from None
        # Nobody asked for several processes: what can be trained in one is.
        self._pool, self._jobs = None, 1
        warnings.warn(
            "a training process died, perhaps out of memory: training goes on in one process, as with"
            " --jobs 1",
            Notice,
            stacklevel=1,
        )
        yield from self.run(list(left.values()))

    def _start(self, jobs: int) -> None:
        # Not forked: torch's threads and a GPU's context don't survive that.
        context = multiprocessing.get_context("spawn")
        _start_tracker()
        begun = context.Value("i", 0) if self._device == "cuda" else None
        self._pool = ProcessPoolExecutor(jobs, context, _begin, (begun,))


class _Handed(BaseException):
    """The training of this process is handed to another; no error that a network's training may handle."""


_LOOK_S = 1.0
"""Seconds of training after which it is decided whether processes are worth their start."""
_WORTH_S = 6.0
"""Seconds that they must save: importing torch takes each of them 2 to 3 seconds of a core."""


def _jobs_in_memory(jobs: int) -> int:
    """`jobs`, or as many as memory has room for beside this process, judged by its own training."""
    each = _ROOM * psutil.Process().memory_info().rss
    return max(1, min(jobs, int(free_memory("cpu") / each)))


_ROOM = 1.5
"""Networks with more kernels to generate need more memory than the first, which is plain."""


def _check_context(task: Task, done: Done) -> None:
    if done.failure is not None and done.failure.context_lost:
        raise ContextLostError(f"{task.record.point}, seed {task.record.protocol['seed']}", done.failure)


@contextmanager
def workers(
    jobs: int,
    on_part: OnPart = lambda record, part: None,
    device: str = "cpu",
    *,
    wait_and_see: bool = False,
) -> Iterator[Workers]:
    """`jobs` processes, which share the available GPUs; only this process for one.

    `wait_and_see`: this process trains until it is seen that the trainings are long enough to be worth the
    start of others, which are fewer where memory lacks; and it goes on alone if one of them dies.
    """
    found = Workers(jobs, on_part, device, wait_and_see=wait_and_see)
    try:
        yield found
        found.end(kill=False)
    except BaseException:
        found.end(kill=True)
        raise


class LendWorkers(Protocol):
    """How trainings get their processes: `workers`, or those that `kept_workers` keeps."""

    def __call__(
        self, jobs: int, on_part: OnPart = ..., device: str = ..., *, wait_and_see: bool = ...
    ) -> AbstractContextManager[Workers]:
        """As `workers`."""


@contextmanager
def kept_workers(ahead: Callable[[], int] = lambda: 0) -> Iterator[LendWorkers]:
    """Lends workers that go on from one use to the next: their processes are started once.

    `ahead` returns the trainings to come after the present use, for which starting processes may be worth it.
    Others are started only for another number of jobs, or device; one job needs none.
    """
    kept: dict[tuple[int, str, bool], Workers] = {}
    with ExitStack() as stack:

        @contextmanager
        def lend(
            jobs: int,
            on_part: OnPart = lambda record, part: None,
            device: str = "cpu",
            *,
            wait_and_see: bool = False,
        ) -> Iterator[Workers]:
            if jobs == 1:
                yield Workers(1, on_part, device)
                return
            wanted = jobs, device, wait_and_see
            if wanted not in kept:
                stack.close()
                kept.clear()
                kept[wanted] = stack.enter_context(workers(jobs, on_part, device, wait_and_see=wait_and_see))
            kept[wanted].report_to(on_part)
            kept[wanted].ahead = ahead()
            yield kept[wanted]

        yield lend


def _start_tracker() -> None:
    """Start multiprocessing's resource tracker such that a closed terminal doesn't end it.

    It inherits the signals blocked here; Python itself only blocks Ctrl-C and SIGTERM.
    """
    if not hasattr(signal, "SIGHUP"):
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def finished(record: Record, done: Done, dropped_at: int | None = None) -> Record:
    """The record of a finished training."""
    if done.failure is not None:
        return replace(
            record, status=done.failure.status, error=done.failure.error, environment=done.environment
        )
    assert done.figure is not None
    return trained_record(record, done.figure, done.environment, dropped_at)


def train_in_full(spec: TrainSpec, records: Iterable[Record], at_work: Workers) -> Iterator[Record]:
    """Train each of `records` by the complete recipe, and yield it with its figures."""
    tasks = [Task(spec, record, _WHOLE) for record in records]
    for task, done in at_work.run(tasks):
        yield finished(task.record, done)


_WHOLE = 10**9


def _run(task: Task, on_part: Callable[[float], None] = lambda part: None) -> Done:
    """Train until the epoch of `task`; a failure is returned, not raised."""
    surroundings: dict[str, Any] = {}
    device = task.record.protocol["device"]
    try:
        with threads_set(task.record.protocol["threads"]):
            done = _train(task, surroundings, on_part)
    except NETWORK_ERRORS as error:
        done = Done(failure=Failure.of(error))
    # Only here, outside the handler, are its tensors freed; and cached GPU memory is released for other
    # processes.
    if done.failure is not None or device == "cuda":
        release_memory(device)
    return replace(done, environment=surroundings or environment(device))


def _run_in_worker(task: Task) -> Done:
    """As `_run`, but nothing is started in a process that has lost its GPU."""
    if _lost_with:
        return Done()
    done = _run(task)
    if done.failure is not None and done.failure.context_lost:
        _lost_with.append(task)
    return done


_lost_with: list[Task] = []
"""The task that lost this process's GPU context."""


def _train(task: Task, surroundings: dict[str, Any], on_part: Callable[[float], None]) -> Done:
    record = task.record
    data = load(task.spec, record.point.resolution)
    misfit = training_misfit(task.spec, record.point, record.protocol["device"])
    if misfit is not None:
        raise MemoryError(misfit)
    network = replace(record.point, num_classes=data.num_classes)

    def make() -> nn.Module:
        # Called with the training's switches set.
        surroundings.update(environment(record.protocol["device"]))
        return build(network, init=task.spec.init)

    def begun() -> Trainer:
        return Trainer(
            make,
            data,
            task.spec.recipe,
            seed=record.protocol["seed"],
            device=record.protocol["device"],
            test_every=task.spec.test_every,
        )

    trainer = begun()
    left = _left(task.file)
    if left is not None:
        try:
            trainer.load_state(left)
        except Exception:  # a damaged file, or one of another version, may raise anything
            # It is trained again from the start, with the same result.
            trainer = begun()
    trainer.advance(task.until, _Progress(on_part))
    if task.file is not None and task.until < trainer.epochs:
        save_state(task.file, trainer.state())
    return Done(trainer.figure)


class _Progress(Callbacks):
    """Reports the finished share of a training after each step."""

    def __init__(self, on_part: Callable[[float], None]) -> None:
        self._on_part = on_part

    def on_step(self, step: int, steps: int) -> None:
        """Report it."""
        self._on_part(step / steps)


def _left(file: Path | None) -> dict[str, Any] | None:
    """The state of a paused training; None for one that starts."""
    if file is None or not file.exists():
        return None
    with suppress(InputError):
        return read_state(file)
    # Damaged: it is trained again from the start, with the same result.
    return None


def _begin(begun: Any) -> None:
    """Prepare a training process, on a GPU if `begun` counts the prepared processes."""
    # The main process handles Ctrl-C and similar signals and ends this one; if it is killed, this one ends
    # itself.
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    print_notices()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if begun is not None:
        _take_gpu(begun)


def _take_gpu(begun: Any) -> None:
    """Use the next GPU in turn: the shared counter `begun` is the number of processes that have one."""
    require_cublas_workspace()
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    torch.cuda.set_device(number % torch.cuda.device_count())
