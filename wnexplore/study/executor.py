"""Executors run tasks: here, in other processes, or on other machines. A task goes in, its records come out.

`Inline` runs them here; a `Dispatcher` hands them to a `Backend`, which knows how to start a task somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from wnexplore.measure.failure import ContextLostError
from wnexplore.study.tasks import OnPart, Outcome, Task, perform


class Executor(Protocol):
    """Runs tasks."""

    def run(self, tasks: Iterable[Task], on_part: OnPart) -> Iterator[Outcome]:
        """Yield the outcome of each record of `tasks`, once, when it is known; `tasks` are drawn as they are
        needed.

        Raises `ContextLostError` after the outcome of what lost the context of this process's GPU, and
        `RunError` if nothing can be run any more.
        """


class LendExecutor(Protocol):
    """Lends an executor for some tasks. Its settings of processes are those of the executor that is here."""

    def __call__(
        self, jobs: int = 1, device: str = "cpu", *, wait_and_see: bool = False
    ) -> AbstractContextManager[Executor]:
        """`jobs`, `device` and `wait_and_see` are those of trainings in processes of this machine, where
        nothing else was asked for."""


class Inline:
    """Runs one task after another in this process."""

    def run(self, tasks: Iterable[Task], on_part: OnPart) -> Iterator[Outcome]:
        """As `Executor.run`."""
        for task in tasks:
            outcomes = []
            for outcome in perform(task, on_part):
                outcomes.append(outcome)
                yield outcome
            # A plain network that loses the context fails all that are timed beside it.
            for outcome in outcomes:
                check_context(outcome)


def check_context(outcome: Outcome) -> None:
    """Raise `ContextLostError` if `outcome` is what lost it."""
    if outcome.lost is not None:
        record = outcome.record
        seed = f", seed {record.protocol['seed']}" if "seed" in record.protocol else ""
        raise ContextLostError(f"{record.point}{seed}", outcome.lost)


class Ends(Protocol):
    """Has started something."""

    def end(self, *, kill: bool) -> None:
        """End it, at once with `kill`."""


Ending = TypeVar("Ending", bound=Ends)


@contextmanager
def ending(executor: Ending) -> Iterator[Ending]:
    """`executor`, and what it has started ends with the context: at once after an error."""
    try:
        yield executor
    except BaseException:
        executor.end(kill=True)
        raise
    executor.end(kill=False)


@contextmanager
def _lend_one(executor: Executor) -> Iterator[Executor]:
    yield executor


def lends(executor: Executor) -> LendExecutor:
    """Lends `executor` for everything."""

    def lend(
        jobs: int = 1, device: str = "cpu", *, wait_and_see: bool = False
    ) -> AbstractContextManager[Executor]:
        return _lend_one(executor)

    return lend
