"""Tasks as jobs of SLURM by submitit, a timing with its node to itself. A sweep runs so:

jobs = SlurmJobs(Path("shared"), 16, Needs.of(spec), timeout_min=240, slurm_partition="gpu")
planned = plan(spec, hardware=of_nodes(jobs.nodes(), None))
run(spec, remaining(planned, store.keys()), store, planned=planned, lend=lends(Dispatcher(jobs)))
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wnexplore.errors import InputError
from wnexplore.study.dispatch import Fault, Handle, Node, Returned
from wnexplore.study.remote import Needs, Survey, perform_there, survey
from wnexplore.study.tasks import Task, TimingTask


class SlurmJobs:
    """A backend of at most `at_once` jobs, whose files are in `folder`, which all nodes share.

    `parameters` are those of submitit's `AutoExecutor`; `cluster` "local" runs the jobs on this machine.
    Raises `InputError` if submitit isn't installed, or the nodes lack something.
    """

    def __init__(
        self, folder: Path, at_once: int, needs: Needs, *, cluster: str | None = None, **parameters: Any
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise InputError('jobs of SLURM need submitit: pip install "wnexplore[slurm]"') from None
        self._needs = needs
        self._submits, self._times = (
            submitit.AutoExecutor(folder / "jobs" / "%j", cluster=cluster) for _ in range(2)
        )
        self._submits.update_parameters(**parameters)
        self._times.update_parameters(**parameters)
        if self._times.cluster == "slurm":
            self._times.update_parameters(slurm_exclusive=True)
        self._running: set[Any] = set()
        found: Survey = self._submits.submit(survey, needs).result()
        if found.lacks is not None:
            raise InputError(f"node {found.host} can't run tasks as this machine would: {found.lacks}")
        # Whichever node a job gets, nothing is on it beside a timing.
        self._nodes = tuple(
            Node(f"job {number + 1}", f"job {number + 1}", found.cores, found.devices)
            for number in range(at_once)
        )

    def nodes(self) -> Sequence[Node]:
        """As `Backend.nodes`: places for one job each, all of the kind that the first job found."""
        return self._nodes

    def share(self, task: Task, node: Node) -> float:
        """As `Backend.share`."""
        return 1.0

    def start(self, task: Task, node: Node) -> Handle:
        """As `Backend.start`."""
        executor = self._times if isinstance(task, TimingTask) else self._submits
        job: Any = executor.submit(perform_there, task, self._needs.folder)
        self._running.add(job)
        handle: Handle = job
        return handle

    def wait(self, seconds: float) -> Iterable[tuple[Handle, Returned | Fault]]:
        """As `Backend.wait`."""
        until = time.monotonic() + seconds
        while not (ended := [job for job in self._running if job.done()]) and time.monotonic() < until:
            time.sleep(_POLL_S)
        for job in ended:
            self._running.discard(job)
            yield job, _result(job)

    def cancel(self, handle: Any) -> None:
        """As `Backend.cancel`."""
        self._running.discard(handle)
        handle.cancel()

    def end(self, *, kill: bool) -> None:
        """As `Backend.end`."""
        for job in list(self._running):
            self.cancel(job)


_POLL_S = 0.2


def _result(job: Any) -> Returned | Fault:
    error = job.exception()
    if error is None:
        found: Returned | Fault = job.result()
        return found
    kind = "out_of_memory" if "OUT_OF_ME" in str(job.state) else "died"
    return Fault(kind, f"its job ended: {type(error).__name__}, {job.state}")  # type: ignore[arg-type]
