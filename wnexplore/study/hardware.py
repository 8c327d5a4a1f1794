"""What measures: this machine, or the nodes of a cluster, of which one kind measures latencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wnexplore.design.axes import ADAPTIVE
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
    most_threads: int | None = None
    """Of a training that any of the nodes has cores for; None: this machine has them."""


HERE = Hardware()


class Kind(NamedTuple):
    """A kind of hardware that measures latencies, which are comparable between nodes of one kind alone."""

    device: TimingDevice
    host: str
    """The processor, which starts what a GPU does."""

    @classmethod
    def of(cls, node: Node, device: str) -> Kind | None:
        """That of a node's device; None if it has none."""
        on = node.devices.get(device)
        return None if on is None else cls(on, node.devices["cpu"].name)

    def __str__(self) -> str:
        on = self.device
        if on.device == "cuda":
            return f"{on.name} with {self.host}"
        text = on.name if on.threads is None else f"{on.name}, {on.threads} thread{'s' * (on.threads > 1)}"
        text += "" if on.wait_policy in (None, ADAPTIVE) else f", {on.wait_policy}"
        return text if on.settles else f"{text}, allocator as it is"


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

    return Hardware(
        resolve,
        lambda device: kind_of(nodes, device, wanted).device,
        here=False,
        most_threads=min(node.cores for node in nodes),
    )


def kind_of(nodes: Sequence[Node], device: str, wanted: str | None) -> Kind:
    """The kind that measures latencies on `device`. Raises `InputError` for none, and for several of which
    none is `wanted`, with what there is."""
    kinds = Counter(kind for node in nodes if (kind := Kind.of(node, device)) is not None)
    listed = "; ".join(f"{kind} ({count} node{'s' * (count > 1)})" for kind, count in kinds.items())
    if wanted is not None:
        found = [kind for kind in kinds if wanted.lower() in str(kind).lower()]
        if len(found) == 1:
            return found[0]
        raise InputError(f"--latency-on {shown(wanted)} fits {len(found)} kinds of nodes, not one: {listed}")
    if len(kinds) != 1:
        raise InputError(
            f"latencies of different hardware can't be compared, and the nodes are {listed}: --latency-on"
            " NAME says which kind measures them"
        )
    return next(iter(kinds))
