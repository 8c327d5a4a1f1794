"""Where tasks run: this process, several of this machine, or a Ray cluster; and what they are doing there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.output import notify
from wnexplore.errors import InputError

if TYPE_CHECKING:
    from wnexplore.design.sweep_file import SweepSpec
    from wnexplore.study.dispatch import AtWork, Dispatcher, Node
    from wnexplore.study.executor import LendExecutor
    from wnexplore.study.hardware import Hardware

WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=1024,
        help="Processes of this machine that count and train side by side; latencies are timed alone.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Use all nodes of a Ray cluster: HOST:PORT of its head, or that of this machine.",
    ),
]
LatencyOn = Annotated[
    str | None,
    typer.Option(
        "--latency-on",
        metavar="NAME",
        help="With --ray: which kind of nodes measures latencies, by part of its processor's or GPU's name.",
    ),
]
TaskHours = Annotated[
    float | None,
    typer.Option(
        "--task-hours", help="With --workers or --ray: hours after which a task is taken for hung (24)."
    ),
]


def with_address(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the address that a bare --ray stands for."""
    following = [*arguments, "-"][1:]
    return [
        "--ray=auto" if argument == "--ray" and after.startswith("-") else argument
        for argument, after in zip(arguments, following, strict=True)
    ]


@dataclass(frozen=True)
class Elsewhere:
    """Where the tasks of a command run."""

    hardware: Hardware
    lend: LendExecutor | None
    """None: in this process, and trainings as the sweep's `jobs` says."""
    at_once: int = 1
    dispatcher: Dispatcher | None = None


@contextmanager
def elsewhere(
    spec: SweepSpec,
    workers: int | None,
    ray: str | None,
    latency_on: str | None,
    task_hours: float | None,
    *,
    dry_run: bool = False,
) -> Iterator[Elsewhere]:
    """Where the tasks of `spec` run by these options; what was started for them ends with it.

    Raises `InputError` for options that don't fit together, and a cluster that can't be used.
    """
    from wnexplore.study.dispatch import TASK_HOURS, Dispatcher
    from wnexplore.study.executor import lends
    from wnexplore.study.hardware import HERE, of_nodes

    _check(workers, ray, latency_on, task_hours)
    hours = TASK_HOURS if task_hours is None else task_hours
    if workers is not None and not dry_run:
        from wnexplore.study.processes import Processes

        device = "cpu" if spec.train is None else HERE.resolve(spec.train.device)
        with _ended(Dispatcher(Processes(workers, device), task_hours=hours)) as dispatcher:
            yield Elsewhere(HERE, lends(dispatcher), workers, dispatcher)
    elif ray is not None:
        from wnexplore.study.ray_cluster import RayCluster, connected
        from wnexplore.study.remote import Needs

        needs = Needs.of(spec)
        with connected(ray):
            cluster = RayCluster(needs)
            nodes = cluster.survey()
            hardware = of_nodes(nodes, latency_on)
            _say_nodes(spec, nodes, hardware)
            with _ended(Dispatcher(cluster, task_hours=hours)) as dispatcher:
                at_once = sum(node.cores for node in nodes)
                yield Elsewhere(hardware, lends(dispatcher), at_once, dispatcher)
    else:
        yield Elsewhere(HERE, None)


@contextmanager
def _ended(dispatcher: Dispatcher) -> Iterator[Dispatcher]:
    """`dispatcher`, and what it has started ends with it: at once after an error."""
    try:
        yield dispatcher
    except BaseException:
        dispatcher.end(kill=True)
        raise
    dispatcher.end(kill=False)


def _check(workers: int | None, ray: str | None, latency_on: str | None, task_hours: float | None) -> None:
    if workers is not None and ray is not None:
        raise InputError("--workers are processes of this machine, and --ray is a cluster: give one of them")
    if latency_on is not None and ray is None:
        raise InputError("--latency-on chooses among the nodes of a cluster: give --ray too")
    if task_hours is not None:
        if workers is None and ray is None:
            raise InputError("--task-hours limits tasks elsewhere: give --workers or --ray too")
        if not 0 < task_hours < _MOST_HOURS:
            raise InputError(f"--task-hours is {task_hours:g}: expected a number above 0, below 100,000")


_MOST_HOURS = 100_000


def _say_nodes(spec: SweepSpec, nodes: Sequence[Node], hardware: Hardware) -> None:
    """What the nodes are, and which of them measure latencies."""
    from wnexplore.study.hardware import described

    on = None
    if spec.latency is not None:
        on = hardware.timing(hardware.resolve(spec.latency.device))
    for node in nodes:
        kinds = ", ".join(described(kind) for kind in node.devices.values())
        times = on is not None and node.devices.get(on.device) == on
        notify(f"node {node.name}: {kinds}{'; measures latencies' if times else ''}")


@contextmanager
def nodes_shown(place: Elsewhere, show: Callable[[Sequence[AtWork]], None]) -> Iterator[None]:
    """Call `show` inside with the nodes and what they do, whenever that changes."""
    if place.dispatcher is None:
        yield
        return
    place.dispatcher.on_nodes = show
    try:
        yield
    finally:
        place.dispatcher.on_nodes = lambda nodes: None
