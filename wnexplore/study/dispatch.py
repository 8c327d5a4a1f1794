"""Hands tasks to nodes: which runs where, what becomes of those that are lost, and how often they are tried.

A machine that times networks does nothing else meanwhile. Timings come first wherever they can be made: what
a machine has under way ends, then it times, then it counts or trains again.

A task whose process or node dies is started again, `ATTEMPTS` times in all; each of its records says how
often. One that lacks memory or time is not: that is its record.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Literal, Protocol

from wnexplore.design.latency_protocol import TimingDevice
from wnexplore.errors import Notice, RunError, shown
from wnexplore.measure.failure import Failure
from wnexplore.measure.rounds import AT_ONCE
from wnexplore.results.record import Record, Status
from wnexplore.study.tasks import CountTask, OnPart, Outcome, Task, TimingTask, TrainingTask, as_sent, failed

ATTEMPTS = 3
"""How often a task is started whose process or node dies."""

TASK_HOURS = 24.0
"""Hours after which a task that hasn't ended is taken for hung."""


@dataclass(frozen=True)
class Node:
    """Where tasks run: this machine's processes, or a node of a cluster."""

    name: str
    machine: str
    """Nodes with the same one share its processor and GPUs."""
    cores: int
    devices: Mapping[str, TimingDevice] = field(default_factory=dict)
    """"cpu", and "cuda" where it has a GPU; {}: those of the machine of the command."""
    times: bool = True
    """Whether it is of the kind that measures latencies."""

    def can(self, task: Task) -> bool:
        """Whether it has what `task` is for: the hardware whose latency it is, or the device and threads."""
        if not self.devices or isinstance(task, CountTask):
            return True
        protocol = task.records[0].protocol
        on = self.devices.get(protocol["device"])
        if on is None or (protocol.get("threads") or 0) > self.cores:
            return False
        return isinstance(task, TrainingTask) or (self.times and on.name == protocol["device_name"])


FaultKind = Literal["died", "out_of_memory", "disk", "raised"]


@dataclass(frozen=True)
class Fault:
    """Why a task has no outcome."""

    kind: FaultKind
    """Its process or node died; it was killed for its memory; the node's disk is full; it raised an error."""
    why: str


@dataclass(frozen=True)
class Returned:
    """What a task returned."""

    outcomes: tuple[Outcome, ...]
    """Of its records, or of those before the one that lost the GPU's context, and that one."""


Handle = Hashable


class Backend(Protocol):
    """Knows how to start a task on a node. All calls come from one thread."""

    def nodes(self) -> Sequence[Node]:
        """The nodes that are there now."""

    def share(self, task: Task, node: Node) -> float:
        """How much of `node` a task takes that is no timing: 1 for all of it."""

    def start(self, task: Task, node: Node) -> Handle:
        """Start `task` on `node`; a timing in a process that has done nothing before."""

    def wait(self, seconds: float) -> Iterable[tuple[Handle, Returned | Fault]]:
        """What has ended since the last call; waits up to `seconds` for the first."""

    def cancel(self, handle: Handle) -> None:
        """End a task that runs; it isn't returned."""

    def end(self, *, kill: bool) -> None:
        """Nothing runs on after this, if `kill`; otherwise nothing runs any more."""


@dataclass(frozen=True)
class AtWork:
    """A node, and what it does."""

    node: Node
    tasks: tuple[Task, ...]
    done: int
    """Records that it has returned."""
    failed: int
    """Those of them that failed."""


@dataclass
class _Running:
    task: Task
    node: Node
    began: float
    attempts: int
    share: float


class Dispatcher:
    """The executor of a `Backend`.

    `on_nodes` is called with the nodes and their work when that changes.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        on_nodes: Callable[[Sequence[AtWork]], None] = lambda nodes: None,
        task_hours: float = TASK_HOURS,
        attempts: int = ATTEMPTS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._backend, self._clock = backend, clock
        self.on_nodes = on_nodes
        self._limit_s, self._attempts = 3600 * task_hours, attempts
        self._running: dict[Handle, _Running] = {}
        self._not_begun: list[tuple[_Running, Fault]] = []
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._full: dict[str, str] = {}
        """Node -> why it gets no task any more."""
        self._rests: dict[str, float] = {}
        """Node -> until when it gets none: one that is gone would use up a task's attempts at once."""
        self._faults: Counter[str] = Counter()
        """Node -> faults since it last returned something."""
        self._told: list[AtWork] | None = None
        self._stuck_since: float | None = None

    def run(self, tasks: Iterable[Task], on_part: OnPart = lambda record, part: None) -> Iterator[Outcome]:
        """As `Executor.run`. What is under way when the caller stops is cancelled."""
        source = iter(tasks)
        timings: deque[tuple[Task, int]] = deque()
        others: deque[tuple[Task, int]] = deque()
        """Those to be started, with the attempts before."""
        exhausted = False
        try:
            while True:
                while not exhausted and len(others) < _AHEAD:
                    # Timings are found wherever they stand; states of paused trainings are read when sent.
                    task = next(source, None)
                    exhausted = task is None
                    if isinstance(task, TimingTask):
                        timings.extend((part, 0) for part in _parts(task))
                    elif task is not None:
                        others.append((task, 0))
                nodes = self._backend.nodes()
                self._start([node for node in nodes if self._may_start(node)], timings, others, on_part)
                self._tell(nodes)
                if not (self._running or self._not_begun):
                    if exhausted and not timings and not others:
                        return
                    self._check_possible(nodes, [task for task, _ in (*timings, *others)])
                else:
                    self._stuck_since = None
                ended = [*self._not_begun, *self._ended()]
                self._not_begun.clear()
                for ran, result in ended:
                    outcomes, again = self._received(ran, result)
                    # Behind the others, which it may be another node's turn for.
                    (timings if isinstance(ran.task, TimingTask) else others).extend(again)
                    yield from outcomes
                yield from self._overdue()
        finally:
            for handle in list(self._running):
                with suppress(Exception):
                    self._backend.cancel(handle)
            self._running.clear()

    def end(self, *, kill: bool) -> None:
        """End what the backend has started, at once with `kill`."""
        self._backend.end(kill=kill)

    def _start(
        self,
        nodes: Sequence[Node],
        timings: deque[tuple[Task, int]],
        others: deque[tuple[Task, int]],
        on_part: OnPart,
    ) -> None:
        """Start what there is room for."""
        timing = {ran.node.machine for ran in self._running.values() if isinstance(ran.task, TimingTask)}
        for node in nodes:
            at = None if node.machine in timing else _first(timings, node)
            if at is None:
                continue
            # The machine starts nothing else until it is free for it.
            timing.add(node.machine)
            if all(ran.node.machine != node.machine for ran in self._running.values()):
                self._begin(*_taken(timings, at), node, on_part)
        used = {node.name: 0.0 for node in nodes}
        for ran in self._running.values():
            used[ran.node.name] = used.get(ran.node.name, 0.0) + ran.share
        for node in nodes:
            while node.machine not in timing:
                at = _first(others, node)
                if at is None or used[node.name] + self._backend.share(others[at][0], node) > 1 + _TINY:
                    break
                used[node.name] += self._begin(*_taken(others, at), node, on_part)

    def _ended(self) -> Iterator[tuple[_Running, Returned | Fault]]:
        for handle, result in self._backend.wait(_LOOK_S):
            ran = self._running.pop(handle, None)
            if ran is not None:
                yield ran, result

    def _may_start(self, node: Node) -> bool:
        return node.name not in self._full and self._clock() >= self._rests.get(node.name, 0.0)

    def _begin(self, task: Task, attempts: int, node: Node, on_part: OnPart) -> float:
        """Start a task; returns its share of the node."""
        share = 1.0 if isinstance(task, TimingTask) else self._backend.share(task, node)
        running = _Running(task, node, self._clock(), attempts + 1, share)
        try:
            handle = self._backend.start(as_sent(task), node)
        except (OSError, RuntimeError, ValueError) as error:
            # No process could be started, or what the task holds not be sent.
            self._not_begun.append((running, Fault("raised", f"{type(error).__name__}: {error}")))
            return share
        self._running[handle] = running
        on_part(task.records[0], 0.0)
        return share

    def _received(
        self, ran: _Running, ended: Returned | Fault
    ) -> tuple[list[Outcome], list[tuple[Task, int]]]:
        """The outcomes, and what is to be started again."""
        if isinstance(ended, Returned) and ended.outcomes:
            outcomes = [replace(o, record=_placed(o.record, ran), lost=None) for o in ended.outcomes]
            self._faults[ran.node.name] = 0
            self._done[ran.node.name] += len(outcomes)
            self._failed[ran.node.name] += sum(outcome.record.status != "ok" for outcome in outcomes)
            known = {outcome.record.key for outcome in outcomes}
            left = tuple(record for record in ran.task.records if record.key not in known)
            if not left or not isinstance(ran.task, TimingTask):
                return outcomes, []
            # After a network that lost the GPU's context its fellows are timed in another process.
            return outcomes, [(replace(ran.task, records=left), 0)]
        if isinstance(ended, Returned):
            ended = Fault("raised", "it returned nothing")
        if ended.kind == "disk":
            self._full[ran.node.name] = ended.why
            _warn(f"{ran.node.name} gets no more tasks: {ended.why}")
            return [], [(ran.task, ran.attempts - 1)]
        again = ended.kind != "out_of_memory" and ran.attempts < self._attempts
        if not again and len(ran.task.records) > 1 and isinstance(ran.task, TimingTask):
            # One of its networks may be why: the others are timed without it.
            alone = [replace(ran.task, records=(record,)) for record in ran.task.records]
            return [], [(task, self._attempts - 1) for task in alone]
        if ended.kind == "out_of_memory":
            return self._failures(ran, "out_of_memory", ended.why), []
        self._rests[ran.node.name] = self._clock() + _REST_S * 2 ** min(self._faults[ran.node.name], 6)
        self._faults[ran.node.name] += 1
        if again:
            _warn(f"started again: {named(ran.task)} on {ran.node.name}: {ended.why}")
            return [], [(ran.task, ran.attempts)]
        often = f" ({ran.attempts} attempts)" if ran.attempts > 1 else ""
        found = self._failures(ran, "failed", f"{ended.why}{often}")
        return [replace(outcome, died=ended.kind == "died") for outcome in found], []

    def _overdue(self) -> Iterator[Outcome]:
        now = self._clock()
        for handle, ran in list(self._running.items()):
            if now - ran.began > self._limit_s:
                self._backend.cancel(handle)
                del self._running[handle]
                why = f"not done after {self._limit_s / 3600:.3g} hours on {ran.node.name}"
                yield from self._failures(ran, "failed", why)

    def _failures(self, ran: _Running, status: Status, why: str) -> list[Outcome]:
        for counted in (self._done, self._failed):
            counted[ran.node.name] += len(ran.task.records)
        failure = Failure(status, shown(why, _LONGEST))
        return [Outcome(_placed(failed(record, failure, {}), ran)) for record in ran.task.records]

    def _check_possible(self, nodes: Sequence[Node], left: Sequence[Task]) -> None:
        """Raise `RunError` if no node can do any of the tasks `left`: at once if full disks are why,
        otherwise after a while, since a node may join."""
        usable = [node for node in nodes if node.name not in self._full]
        if any(node.can(task) for node in usable for task in left):
            self._stuck_since = None
            return
        now = self._clock()
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if now - self._stuck_since < _PATIENCE_S and (usable or not self._full):
            return
        why = "".join(f"; {name}: {reason}" for name, reason in self._full.items())
        raise RunError(f"no node is left for {named(left[0])}{why}; all earlier results are kept")

    def _tell(self, nodes: Sequence[Node]) -> None:
        under_way: dict[str, list[Task]] = {}
        for ran in self._running.values():
            under_way.setdefault(ran.node.name, []).append(ran.task)
        now = [
            AtWork(node, tuple(under_way.get(node.name, ())), self._done[node.name], self._failed[node.name])
            for node in nodes
        ]
        if now != self._told:
            self._told = now
            self.on_nodes(now)


def named(task: Task) -> str:
    """A task, for messages."""
    record = task.records[0]
    if isinstance(task, TimingTask):
        others = f" and {len(task.records) - 1} more" if len(task.records) > 1 else ""
        return f"the latency of {record.point}{others}"
    if isinstance(task, TrainingTask):
        return f"the training of {record.point}, seed {record.protocol['seed']},"
    return f"the counting of {record.point}"


_AHEAD = 1000
"""Tasks that are drawn before there is room for them."""
_LOOK_S = 0.5
"""Seconds after which the nodes are looked at again."""
_PATIENCE_S = 60.0
"""Seconds for which a node that can go on is waited for."""
_REST_S = 3.0
"""Seconds for which a node gets no task after a fault, doubled for each one that follows."""
_LONGEST = 2000
_TINY = 1e-9


def _first(tasks: Iterable[tuple[Task, int]], node: Node) -> int | None:
    """The place of the first task that `node` can do."""
    return next((at for at, (task, _) in enumerate(tasks) if node.can(task)), None)


def _taken(tasks: deque[tuple[Task, int]], at: int) -> tuple[Task, int]:
    found = tasks[at]
    del tasks[at]
    return found


def _parts(task: TimingTask) -> Iterator[TimingTask]:
    """`task` in parts of as many networks as are timed beside the same passes of the plain one anyway."""
    for at in range(0, len(task.records), AT_ONCE):
        yield replace(task, records=task.records[at : at + AT_ONCE])


def _placed(record: Record, ran: _Running) -> Record:
    """`record` with where it was made, and how often that was tried."""
    added = {"node": ran.node.name, "attempts": ran.attempts}
    return replace(record, environment={**record.environment, **added})


def _warn(line: str) -> None:
    warnings.warn(line, Notice, stacklevel=1)
