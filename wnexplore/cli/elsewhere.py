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
    from wnexplore.study.executor import ending, lends
    from wnexplore.study.hardware import HERE, kind_of, of_nodes

    _check(workers, ray, latency_on, task_hours)
    hours = TASK_HOURS if task_hours is None else task_hours
    if workers is not None and not dry_run:
        from wnexplore.study.processes import Processes

        device = "cpu" if spec.train is None else HERE.resolve(spec.train.device)
        with ending(Dispatcher(Processes(workers, device), task_hours=hours)) as dispatcher:
            yield Elsewhere(HERE, lends(dispatcher), workers, dispatcher)
    elif ray is not None:
        from wnexplore.study.ray_cluster import RayCluster, connected
        from wnexplore.study.remote import Needs

        needs = Needs.of(spec)
        with connected(ray):
            cluster = RayCluster(needs)
            nodes = cluster.survey()
            hardware = of_nodes(nodes, latency_on)
            if spec.latency is not None:
                cluster.measure_latencies_on(
                    kind_of(nodes, hardware.resolve(spec.latency.device), latency_on)
                )
            _say_nodes(cluster.nodes(), times=spec.latency is not None)
            with ending(Dispatcher(cluster, task_hours=hours)) as dispatcher:
                at_once = sum(node.cores for node in nodes)
                yield Elsewhere(hardware, lends(dispatcher), at_once, dispatcher)
    else:
        yield Elsewhere(HERE, None)


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


def _say_nodes(nodes: Sequence[Node], *, times: bool) -> None:
    """What the nodes are, and which of them measure latencies."""
    from wnexplore.study.hardware import Kind

    for node in nodes:
        kinds = "; ".join(str(Kind.of(node, device)) for device in node.devices)
        notify(f"node {node.name}: {kinds}{'; measures latencies' if times and node.times else ''}")


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
