"""Which task runs where, and what becomes of those that are lost: on nodes whose time is simulated."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from wnexplore.design.latency_protocol import TimingDevice, latency_protocols
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec, TrainSpec
from wnexplore.errors import Notice, RunError
from wnexplore.measure.rounds import AT_ONCE
from wnexplore.results.record import Record
from wnexplore.study.dispatch import ATTEMPTS, Dispatcher, Fault, FaultKind, Handle, Node, Returned
from wnexplore.study.tasks import CountTask, Outcome, Task, TimingTask, TrainingTask

CPU = TimingDevice("cpu", "a processor", 2)
OTHER = TimingDevice("cpu", "another processor", 2)
POINTS = [DesignPoint.of("resnet18"), *(DesignPoint.of("resnet18", "weightnet", M, 1) for M in range(1, 60))]
SPEC = TrainSpec(data="digits", device="cpu", epochs=1)
PROTOCOL = next(latency_protocols(LatencySpec(), CPU))


@dataclass
class Begun:
    """A task that a simulated node was given."""

    task: Task
    node: Node
    at: float
    until: float = float("inf")


class Simulated:
    """Nodes on which a task takes a known time, of which nothing but a clock runs.

    `fate` says what becomes of a task: nothing, a fault, or "hangs".
    """

    def __init__(
        self,
        nodes: Callable[[float], Sequence[Node]],
        takes: Callable[[Task], float] = lambda task: 1.0,
        fate: Callable[[Task, Node], FaultKind | str | None] = lambda task, node: None,
        share: float = 0.5,
    ) -> None:
        self.now = 0.0
        self.begun: list[Begun] = []
        self.cancelled: list[Handle] = []
        self._nodes, self._takes, self._fate, self._share = nodes, takes, fate, share
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Returned | Fault]] = []

    def nodes(self) -> Sequence[Node]:
        return self._nodes(self.now)

    def share(self, task: Task, node: Node) -> float:
        return self._share

    def start(self, task: Task, node: Node) -> Handle:
        number, fate = next(self._numbers), self._fate(task, node)
        begun = Begun(task, node, self.now)
        self.begun.append(begun)
        if fate != "hangs":
            begun.until = self.now + self._takes(task)
            made = Returned(tuple(Outcome(replace(record, value={"made": 1})) for record in task.records))
            heapq.heappush(
                self._due,
                (begun.until, number, made if fate is None else Fault(fate, fate)),  # type: ignore[arg-type]
            )
        return number

    def wait(self, seconds: float) -> Iterable[tuple[Handle, Returned | Fault]]:
        until = self.now + seconds
        if not self._due or self._due[0][0] > until:
            self.now = until
            return
        self.now = max(self.now, self._due[0][0])
        while self._due and self._due[0][0] <= self.now:
            _, number, ended = heapq.heappop(self._due)
            if number not in self.cancelled:
                yield number, ended

    def cancel(self, handle: Handle) -> None:
        assert isinstance(handle, int)
        self.begun[handle].until = self.now
        self.cancelled.append(handle)

    def end(self, *, kill: bool) -> None: ...


def dispatcher(simulated: Simulated, **settings: float) -> Dispatcher:
    return Dispatcher(simulated, clock=lambda: simulated.now, **settings)  # type: ignore[arg-type]


def a_node(name: str = "a", machine: str | None = None, on: TimingDevice = CPU) -> Node:
    return Node(name, machine or name, 2, {"cpu": on})


def counting(number: int) -> CountTask:
    return CountTask(Record("complexity", POINTS[number], {}))


def training(number: int) -> TrainingTask:
    return TrainingTask(SPEC, Record("training", POINTS[number], {"device": "cpu", "seed": 0, "threads": 1}))


def timing(*numbers: int, batch_size: int = 1) -> TimingTask:
    protocol = replace(PROTOCOL, batch_size=batch_size)
    return TimingTask(tuple(Record("latency", POINTS[number], protocol) for number in numbers))


TASKS = st.lists(
    st.one_of(
        st.integers(0, 59).map(counting),
        st.integers(0, 59).map(training),
        st.tuples(st.lists(st.integers(0, 59), min_size=1, max_size=40, unique=True), st.integers(1, 64)).map(
            lambda drawn: timing(*drawn[0], batch_size=drawn[1])
        ),
    ),
    max_size=12,
    unique_by=lambda task: task.records[0].key,
)
FATES = st.lists(st.sampled_from([None, None, None, "died", "out_of_memory", "raised", "hangs"]), min_size=1)


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
@examples(60)
@given(
    TASKS,
    FATES,
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
    st.lists(st.floats(0.1, 30), min_size=1, max_size=5),
    st.sampled_from([1.0, 0.5, 0.25]),
)
def test_each_record_comes_once_and_nothing_runs_beside_a_timing(
    tasks: list[Task], fates: list[str | None], machines: list[int], lengths: list[float], share: float
) -> None:
    wanted = Counter(record.key for task in tasks for record in task.records)
    tasks = [task for task in tasks if all(wanted[record.key] == 1 for record in task.records)]
    nodes = [a_node(str(number), str(machine)) for number, machine in enumerate(machines)]
    fate, length = itertools.cycle(fates), itertools.cycle(lengths)
    simulated = Simulated(lambda now: nodes, lambda task: next(length), lambda task, node: next(fate), share)
    found = [outcome.record for outcome in dispatcher(simulated, task_hours=0.1).run(tasks)]
    assert Counter(record.key for record in found) == Counter(
        record.key for task in tasks for record in task.records
    )
    for record in found:
        assert record.environment["node"] in {node.name for node in nodes}
        assert 1 <= record.environment["attempts"] <= ATTEMPTS
        assert (record.status == "ok") == (record.value == {"made": 1})
    _check_alone(simulated.begun)
    for node in nodes:
        for moment in {begun.at for begun in simulated.begun}:
            at_once = [b for b in simulated.begun if b.node == node and b.at <= moment < b.until]
            assert len(at_once) * share <= 1 or len(at_once) == 1
    assert all(len(begun.task.records) <= AT_ONCE for begun in simulated.begun)


def _check_alone(begun: Sequence[Begun]) -> None:
    """Nothing runs on a machine while it times."""
    for one, other in itertools.permutations(begun, 2):
        if isinstance(one.task, TimingTask) and one.node.machine == other.node.machine:
            assert other.until <= one.at or one.until <= other.at, "beside a timing"


def _records(simulated: Simulated, tasks: Iterable[Task], **settings: float) -> list[Record]:
    return [outcome.record for outcome in dispatcher(simulated, **settings).run(tasks)]


def test_timings_come_first_on_the_hardware_that_they_are_of() -> None:
    nodes = [a_node("a"), a_node("b", on=OTHER)]
    simulated = Simulated(lambda now: nodes)
    _records(simulated, [counting(0), counting(1), training(0), timing(0, 1), timing(0, batch_size=16)])
    on_a = [type(begun.task) for begun in simulated.begun if begun.node.name == "a"]
    on_b = [type(begun.task) for begun in simulated.begun if begun.node.name == "b"]
    assert on_a[:2] == [TimingTask, TimingTask]
    assert TimingTask not in on_b
    assert len(on_a) + len(on_b) == 5


def test_a_dead_process_is_tried_again_elsewhere_and_said() -> None:
    fate = iter(["died", None])
    simulated = Simulated(lambda now: [a_node()], fate=lambda task, node: next(fate))
    with pytest.warns(Notice, match="started again: the training of resnet18 plain, seed 0, on a: died"):
        (record,) = _records(simulated, [training(0)])
    assert (record.status, record.environment["attempts"]) == ("ok", 2)


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
@pytest.mark.parametrize(
    ("kind", "begun", "status"),
    [("died", 3, "failed"), ("raised", 3, "failed"), ("out_of_memory", 1, "out_of_memory")],
)
def test_what_fails_each_time_becomes_a_record_and_the_others_go_on(
    kind: FaultKind, begun: int, status: str
) -> None:
    simulated = Simulated(
        lambda now: [a_node()], fate=lambda task, node: kind if task.records[0].point == POINTS[1] else None
    )
    first, second = sorted(_records(simulated, [training(1), training(2)]), key=lambda r: str(r.point))
    assert (first.status, second.status) == (status, "ok")
    assert sum(b.task.records[0].point == POINTS[1] for b in simulated.begun) == begun
    assert first.error is not None
    assert kind in first.error


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
def test_a_node_that_is_gone_does_not_use_up_the_attempts_of_a_task() -> None:
    """Known to be gone after 2 seconds; what it is given until then dies at once."""
    simulated = Simulated(
        lambda now: [a_node("gone")] if now < 2 else [a_node("b")],
        takes=lambda task: 0.01,
        fate=lambda task, node: "died" if node.name == "gone" else None,
    )
    records = _records(simulated, [training(number) for number in range(4)])
    assert {record.status for record in records} == {"ok"}


def test_a_hung_task_ends_at_its_time_and_is_not_tried_again() -> None:
    hung = Simulated(lambda now: [a_node()], fate=lambda task, node: "hangs" if task == training(1) else None)
    records = {record.point: record for record in _records(hung, [training(1), training(2)], task_hours=0.5)}
    assert records[POINTS[2]].status == "ok"
    assert records[POINTS[1]].error == "not done after 0.5 hours on a"
    assert hung.begun[0].until == pytest.approx(1800, abs=1)
    assert hung.cancelled == [0]


def test_a_node_with_a_full_disk_gets_no_more_and_the_others_do_its_work() -> None:
    nodes = [a_node("full"), a_node("b")]
    simulated = Simulated(lambda now: nodes, fate=lambda task, node: "disk" if node.name == "full" else None)
    with pytest.warns(Notice, match="full gets no more tasks: disk"):
        records = _records(simulated, [training(number) for number in range(8)])
    assert {(r.status, r.environment["node"], r.environment["attempts"]) for r in records} == {("ok", "b", 1)}
    assert len(records) == 8
    with (
        pytest.warns(Notice),
        pytest.raises(RunError, match=r"no node is left for the training of .*; full:"),
    ):
        _records(Simulated(lambda now: nodes[:1], fate=lambda task, node: "disk"), [training(0)])


def test_nodes_that_come_late_take_part_and_lost_ones_are_waited_for() -> None:
    """None for the first 20 seconds; for 70 the command gives up."""

    def nodes(now: float) -> list[Node]:
        return [] if now < 20 else [a_node("early")] if now < 22 else [a_node("early"), a_node("late")]

    simulated = Simulated(nodes)
    records = _records(simulated, [training(number) for number in range(20)])
    assert {record.environment["node"] for record in records} == {"early", "late"}
    with pytest.raises(RunError, match="no node is left"):
        _records(Simulated(lambda now: [] if now < 70 else [a_node()]), [training(0)])


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
def test_nodes_are_waited_for_again_at_each_outage() -> None:
    """Two of 50 seconds, with work between them."""

    def nodes(now: float) -> list[Node]:
        return [] if now < 50 or 60 < now < 110 else [a_node()]

    assert len(_records(Simulated(nodes), [training(number) for number in range(40)])) == 40


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
@pytest.mark.parametrize("kind", ["died", "out_of_memory"])
def test_one_network_that_kills_its_process_fails_alone(kind: FaultKind) -> None:
    simulated = Simulated(
        lambda now: [a_node()],
        fate=lambda task, node: kind if POINTS[2] in [record.point for record in task.records] else None,
    )
    records = {record.point: record.status for record in _records(simulated, [timing(1, 2, 3)])}
    failed = "failed" if kind == "died" else "out_of_memory"
    assert records == {POINTS[1]: "ok", POINTS[2]: failed, POINTS[3]: "ok"}


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
def test_a_broken_node_does_not_swallow_the_tasks_of_others() -> None:
    nodes = [a_node("broken"), a_node("b")]
    simulated = Simulated(
        lambda now: nodes,
        takes=lambda task: 0.01 if len(simulated.begun) % 2 else 20.0,
        fate=lambda task, node: "raised" if node.name == "broken" else None,
    )
    records = _records(simulated, [training(number) for number in range(30)])
    assert sum(record.status == "failed" for record in records) <= 2


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
def test_what_can_not_be_started_is_tried_again_and_fails_in_the_end() -> None:
    class Refusing(Simulated):
        def start(self, task: Task, node: Node) -> Handle:
            if task.records[0].point == POINTS[1]:
                raise OSError("no more processes")
            return super().start(task, node)

    records = {r.point: r for r in _records(Refusing(lambda now: [a_node()]), [training(1), training(2)])}
    assert records[POINTS[1]].error == "OSError: no more processes (3 attempts)"
    assert records[POINTS[2]].status == "ok"


def test_what_is_under_way_is_cancelled_when_the_caller_stops() -> None:
    simulated = Simulated(lambda now: [a_node()], takes=lambda task: 1 + 9 * (task == training(2)))
    running = dispatcher(simulated).run([training(1), training(2)])
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert simulated.cancelled == [1]


def test_after_a_lost_context_the_rest_of_a_group_is_timed_anew() -> None:
    """A process returned one of three latencies: the other two are timed by another."""

    class Losing(Simulated):
        def start(self, task: Task, node: Node) -> Handle:
            handle = super().start(task, node)
            at, number, ended = self._due[0]
            if len(task.records) == 3 and isinstance(ended, Returned):
                self._due[0] = at, number, Returned(ended.outcomes[:1])
            return handle

    simulated = Losing(lambda now: [a_node()])
    assert len(_records(simulated, [timing(0, 1, 2)])) == 3
    assert [len(begun.task.records) for begun in simulated.begun] == [3, 2]


def test_a_thousand_tasks_are_drawn_as_there_is_room_for_them() -> None:
    drawn = 0

    def tasks() -> Iterable[Task]:
        nonlocal drawn
        for number in range(5000):
            drawn += 1
            yield replace(
                training(0), record=replace(training(0).record, protocol={"device": "cpu", "seed": number})
            )

    running = dispatcher(Simulated(lambda now: [a_node()])).run(tasks())
    next(running)
    assert drawn < 1100
    assert sum(1 for _ in running) == 4999
