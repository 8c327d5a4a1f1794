"""What measures: this machine, or the nodes of a cluster, of which one kind measures latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wnexplore.design.latency_protocol import TimingDevice
from wnexplore.design.protocol import DEVICES
from wnexplore.errors import InputError, shown, unknown
from wnexplore.measure.environment import resolve_device, timing_device
from wnexplore.study.dispatch import Node


@dataclass(frozen=True)
class Hardware:
    """The devices of a sweep."""

    resolve: Callable[[str], str] = resolve_device
    """"auto", "cpu" or "cuda" -> "cpu" or "cuda"; raises `InputError` where there is none."""
    timing: Callable[[str], TimingDevice] = timing_device
    """"cpu" or "cuda" -> what its latencies' protocols say of it."""
    here: bool = True
    """Whether that is this machine, whose memory is known."""


HERE = Hardware()


def of_nodes(nodes: Sequence[Node], wanted: str | None) -> Hardware:
    """That of `nodes`; `wanted` is part of the name of the kind that measures latencies, if there are
    several."""

    def resolve(name: str) -> str:
        if name not in DEVICES:
            raise unknown("device", name, DEVICES)
        there = {device for node in nodes for device in node.devices}
        if name == "auto":
            return "cuda" if "cuda" in there else "cpu"
        if name not in there:
            raise InputError(f"device '{name}' isn't available: no node of the cluster has it")
        return name

    return Hardware(resolve, lambda device: _kind(nodes, device, wanted), here=False)


def described(on: TimingDevice) -> str:
    """A kind of hardware, for messages."""
    if on.threads is None:
        return on.name
    return f"{on.name}, {on.threads} thread{'s' if on.threads > 1 else ''}"


def _kind(nodes: Sequence[Node], device: str, wanted: str | None) -> TimingDevice:
    """The hardware that measures latencies: one kind. Raises `InputError` for none, and for several of which
    none is `wanted`, with what there is."""
    kinds: dict[TimingDevice, int] = {}
    for node in nodes:
        if device in node.devices:
            kinds[node.devices[device]] = kinds.get(node.devices[device], 0) + 1
    listed = "; ".join(
        f"{described(kind)} ({count} node{'s' if count > 1 else ''})" for kind, count in kinds.items()
    )
    if wanted is not None:
        found = [kind for kind in kinds if wanted.lower() in described(kind).lower()]
        if len(found) == 1:
            return found[0]
        raise InputError(f"--latency-on {shown(wanted)} fits {len(found)} kinds of nodes, not one: {listed}")
    if len(kinds) != 1:
        raise InputError(
            f"latencies of different hardware can't be compared, and the nodes are {listed}: --latency-on"
            " NAME says which kind measures them"
        )
    return next(iter(kinds))
