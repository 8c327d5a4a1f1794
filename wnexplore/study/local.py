"""Tasks in this process, and trainings in several once these are worth their start."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter

import psutil

from wnexplore.errors import Notice
from wnexplore.measure.environment import free_memory
from wnexplore.results.record import Record
from wnexplore.study.dispatch import ATTEMPTS, Dispatcher
from wnexplore.study.executor import Executor, Inline, LendExecutor, check_context, ending
from wnexplore.study.processes import Processes
from wnexplore.study.tasks import OnPart, Outcome, Task, TrainingTask, perform


class Local:
    """Runs trainings in `jobs` processes.

    `wait_and_see`: this process trains until it is seen that the trainings are long enough to be worth the
    start of others, which are fewer where memory lacks; and it trains what these died of.
    """

    def __init__(self, jobs: int, device: str = "cpu", *, wait_and_see: bool = False) -> None:
        self._jobs, self._device, self._wait_and_see = jobs, device, wait_and_see
        self._there: Dispatcher | None = None
        self.ahead = 0
        """Trainings to come after those that are run, for which processes are kept too."""
        self._spent_s = self._trained = 0.0
        """Time and number of the trainings in this process so far."""
        if jobs > 1 and not wait_and_see:
            self._start(jobs)

    def run(self, tasks: Iterable[Task], on_part: OnPart) -> Iterator[Outcome]:
        """As `Executor.run`."""
        left = list(tasks)
        while left and self._there is None:
            outcomes = self._run_here(left[0], len(left), on_part)
            if outcomes is not None:
                left.pop(0)
                for outcome in outcomes:
                    yield outcome
                    check_context(outcome)
        if left:
            yield from self._run_there(left, on_part)

    def end(self, *, kill: bool) -> None:
        """End the processes, at once with `kill`."""
        if self._there is not None:
            self._there.end(kill=kill)

    def _run_here(self, task: Task, left: int, on_part: OnPart) -> list[Outcome] | None:
        """Run the first of `left` tasks in this process; None if the processes have been started instead."""
        if self._jobs == 1 or not isinstance(task, TrainingTask):
            return list(perform(task, on_part))
        began = perf_counter()
        # Of a training that is paused, as a share of the whole.
        share = min(1.0, task.until / (task.spec.epochs or task.until))

        def watched(record: Record, part: float) -> None:
            on_part(record, part)
            spent, trained = self._spent_s + perf_counter() - began, self._trained + part / share
            if spent <= _LOOK_S or trained == 0:
                return
            to_come = (self._trained + left + self.ahead - trained) * spent / trained
            if to_come * (1 - 1 / self._jobs) > _WORTH_S:
                raise _Handed

        try:
            outcomes = list(perform(task, watched))
        except _Handed:
            self._jobs = _jobs_in_memory(self._jobs)
            if self._jobs > 1:
                self._start(self._jobs)
            return None
        self._spent_s, self._trained = self._spent_s + perf_counter() - began, self._trained + 1
        return outcomes

    def _run_there(self, tasks: list[Task], on_part: OnPart) -> Iterator[Outcome]:
        assert self._there is not None
        by_key = {record.key: task for task in tasks for record in task.records}
        left = []
        for outcome in self._there.run(tasks, on_part):
            if outcome.died and self._wait_and_see:
                left.append(by_key[outcome.record.key])
            else:
                yield outcome
        if not left:
            return
        # Nobody asked for several processes: what can be trained in one is, with all memory for itself.
        self._there.end(kill=False)
        self._there, self._jobs = None, 1
        warnings.warn(
            "a training process died, perhaps out of memory: training goes on in one process, as with"
            " --jobs 1",
            Notice,
            stacklevel=1,
        )
        yield from self.run(left, on_part)

    def _start(self, jobs: int) -> None:
        # What died of memory in a process that nobody asked for has more of it here.
        attempts = 1 if self._wait_and_see else ATTEMPTS
        self._there = Dispatcher(Processes(jobs, self._device), attempts=attempts)


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


@contextmanager
def locally(ahead: Callable[[], int] = lambda: 0) -> Iterator[LendExecutor]:
    """Lends executors of this machine that go on from one use to the next: their processes are started once.

    `ahead` returns the trainings to come after the present use, for which starting processes may be worth it.
    Others are started only for another number of jobs, or device; one job needs none. All end with this.
    """
    kept: dict[tuple[int, str, bool], Local] = {}
    with ExitStack() as stack:

        @contextmanager
        def lend(jobs: int = 1, device: str = "cpu", *, wait_and_see: bool = False) -> Iterator[Executor]:
            if jobs == 1:
                yield Inline()
                return
            wanted = jobs, device, wait_and_see
            if wanted not in kept:
                stack.close()
                kept.clear()
                kept[wanted] = stack.enter_context(ending(Local(jobs, device, wait_and_see=wait_and_see)))
            kept[wanted].ahead = ahead()
            yield kept[wanted]

        yield lend
