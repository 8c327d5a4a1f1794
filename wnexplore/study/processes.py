"""Tasks in separate processes of this machine, each with a GPU of its own in turn."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

import torch

from wnexplore.errors import STOPS, print_notices, printed_notices
from wnexplore.measure.environment import usable_cores
from wnexplore.study.dispatch import Fault, Node, Returned
from wnexplore.study.remote import ignore_stops_and_follow_parent, machine_id, perform_there
from wnexplore.study.tasks import CountTask, Task, TimingTask
from wnexplore.training.determinism import require_cublas_workspace


class Processes:
    """A backend of `count` processes; on a GPU (device "cuda") each takes the next one in turn.

    A process that dies is replaced. A timing gets a process of its own, beside which nothing runs.
    """

    def __init__(self, count: int, device: str = "cpu") -> None:
        _start_tracker()
        self._node, self._count = Node("this machine", machine_id(), usable_cores()), count
        self._numbers: list[int | None] = list(range(count)) if device == "cuda" else [None] * count
        self._free: list[_Process] = []
        self._running: dict[Future[Returned | Fault], _Process] = {}

    def nodes(self) -> Sequence[Node]:
        """This machine."""
        return (self._node,)

    def share(self, task: Task, node: Node) -> float:
        """As `Backend.share`: of the processes, or of the cores if its training asks for more of these."""
        threads = 1 if isinstance(task, CountTask) else task.records[0].protocol.get("threads") or 1
        return max(1 / self._count, min(1.0, threads / node.cores) if threads > 1 else 0.0)

    def start(self, task: Task, node: Node) -> Future[Returned | Fault]:
        """As `Backend.start`."""
        while True:
            if isinstance(task, TimingTask):
                process = _Process(None, once=True)
            else:
                process = self._free.pop() if self._free else _Process(self._numbers.pop(0))
            try:
                future = process.pool.submit(perform_there, task)
            except BrokenProcessPool:
                # It died while it had nothing to do.
                self._replace(process)
                continue
            self._running[future] = process
            return future

    def wait(self, seconds: float) -> Iterable[tuple[Future[Returned | Fault], Returned | Fault]]:
        """As `Backend.wait`."""
        if not self._running:
            time.sleep(seconds)
        ended, _ = wait(self._running, seconds, FIRST_COMPLETED)
        for future in ended:
            process = self._running.pop(future)
            result = _result(future)
            lost = isinstance(result, Returned) and any(outcome.lost for outcome in result.outcomes)
            if process.once:
                process.pool.shutdown(wait=False)
            elif lost or (isinstance(result, Fault) and result.kind == "died"):
                self._replace(process)
            else:
                self._free.append(process)
            yield future, result

    def cancel(self, handle: Any) -> None:
        """As `Backend.cancel`."""
        process = self._running.pop(handle, None)
        if process is not None:
            self._replace(process)

    def end(self, *, kill: bool) -> None:
        """As `Backend.end`."""
        for process in (*self._free, *self._running.values()):
            if kill:
                process.kill()
            else:
                process.pool.shutdown()
        self._free.clear()
        self._running.clear()

    def _replace(self, process: _Process) -> None:
        """End a process; another one takes its place when it is needed."""
        process.kill()
        if not process.once:
            self._numbers.append(process.gpu)


class _Process:
    """One process, which does one task after another; a pool of its own, since a process that dies takes its
    pool with it."""

    def __init__(self, gpu: int | None, *, once: bool = False) -> None:
        # Not forked: torch's threads and a GPU's context don't survive that.
        context = multiprocessing.get_context("spawn")
        self.gpu, self.once = gpu, once
        self.pool = ProcessPoolExecutor(1, context, _begin, (gpu, printed_notices()))
        with _stops_blocked():
            self._pid = self.pool.submit(os.getpid)

    def kill(self) -> None:
        """End it at once, or as soon as it has begun."""
        # Not terminated by signals: the main process handles those that ask it to end.
        self._pid.add_done_callback(_kill)
        self.pool.shutdown(wait=True, cancel_futures=True)


def _kill(pid: Future[int]) -> None:
    with suppress(Exception):
        os.kill(pid.result(), signal.SIGKILL)


def _result(future: Future[Returned | Fault]) -> Returned | Fault:
    try:
        return future.result()
    except BrokenProcessPool:
        return Fault("died", "its process died, perhaps out of memory")
    except Exception as error:  # what the task holds or returns can't be pickled
        return Fault("raised", f"{type(error).__name__}: {error}")


def _begin(gpu: int | None, printed: frozenset[str]) -> None:
    """Prepare a process, for the GPU in turn if it has a number; `printed` notices are not repeated."""
    # The main process handles Ctrl-C and similar signals and ends this one.
    ignore_stops_and_follow_parent()
    print_notices(printed)
    if gpu is not None:
        require_cublas_workspace()
        torch.cuda.set_device(gpu % torch.cuda.device_count())


def _start_tracker() -> None:
    """Start multiprocessing's resource tracker such that a closed terminal doesn't end it."""
    with _stops_blocked():
        resource_tracker.ensure_running()


@contextmanager
def _stops_blocked() -> Iterator[None]:
    """Processes that are started inside don't get Ctrl-C and similar signals, from their first moment on: the
    main process handles them and ends the others."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(STOPS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
