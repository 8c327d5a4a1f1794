"""Latency protocols: how a latency is measured on one machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wnexplore.design.axes import TIMING_AXES, TIMING_ORDER
from wnexplore.design.axis_types import TimingAxes
from wnexplore.design.protocol import LatencySpec

DEFAULT_TARGETS = {"cpu": 0.03, "cuda": 0.01}
"""Relative half-width of the ratio's 95 % interval at which a network's timing stops."""


@dataclass(frozen=True)
class TimingDevice:
    """The defaults of a `LatencySpec` on the machine."""

    device: str
    """cpu or cuda."""
    name: str
    threads: int | None = None
    """Torch's default number; None on a GPU."""
    wait_policy: str | None = None
    """How torch's threads wait for each other; None on a GPU."""
    settles: bool = False
    """Whether its allocator of memory can be settled."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LatencyProtocol(TimingAxes, Mapping[str, Any]):
    """How networks are timed: the settings that they must share for comparable ratios.

    A mapping like the protocol of any record, in the order in which it is stored; equal to the mapping that
    the store returns.
    """

    device: str
    device_name: str
    wait_policy: str | None = None
    target: float = 0.03
    """Relative half-width of the ratio's 95 % interval at which a measurement ends."""
    seconds: float = 5.0
    """Seconds per network, including its share of the baseline's passes, without warm-up."""
    source: str | None = None
    """The hash of the network's file; left out where there is none."""

    def __getitem__(self, name: str) -> Any:
        if name in self._names():
            return getattr(self, name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __hash__(self) -> int:
        return hash(tuple(self.values()))

    def _names(self) -> list[str]:
        return [*TIMING_ORDER, *(["source"] if self.source is not None else [])]


def latency_protocols(spec: LatencySpec, on: TimingDevice) -> Iterator[LatencyProtocol]:
    """Every protocol of `spec`: the axes crossed, without duplicates."""
    axes = latency_axes(spec, on)
    made: dict[LatencyProtocol, None] = {}
    for values in itertools.product(*axes.values()):
        protocol = LatencyProtocol(
            device=on.device,
            device_name=on.name,
            wait_policy=on.wait_policy,
            target=spec.target or DEFAULT_TARGETS[on.device],
            seconds=spec.seconds,
            **dict(zip(axes, values, strict=True)),
        )
        # Who trains has the batch normalisations.
        made[protocol if protocol.mode == "inference" else replace(protocol, baseline="trained")] = None
    return iter(made)


def latency_axes(spec: LatencySpec, on: TimingDevice) -> dict[str, Sequence[Any]]:
    """The distinct values of each field of the protocols of `spec`."""
    axes: dict[str, Sequence[Any]] = {
        name: getattr(spec, TIMING_AXES[name].sweep_key)
        for name in TIMING_ORDER
        if TIMING_AXES[name].part == "timing"
    }
    axes["threads"] = (axes["threads"] or (on.threads,)) if on.device == "cpu" else (None,)
    if on.device != "cpu":
        axes["allocator"] = (None,)
    elif not on.settles:
        axes["allocator"] = ("as_is",)
    else:
        # Once settled, a process's allocator stays so.
        axes["allocator"] = sorted(axes["allocator"])
    return {name: tuple(dict.fromkeys(values)) for name, values in axes.items()}
