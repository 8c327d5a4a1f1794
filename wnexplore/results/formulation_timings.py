"""The benchmark of every formulation of a network's layers with generated kernels, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.results.intervals import MedianInterval
from wnexplore.results.record import Status


@dataclass(frozen=True)
class TimedFormulation:
    """The result of one formulation."""

    latency_ms: MedianInterval
    ratio: MedianInterval
    """Latency over the plain convolution's, round by round."""
    rounds: int
    stopped_by: Literal["target", "budget"]
    difference: float
    """Largest distance of its output from the published formulation's in float64, relative to the largest
    value of that; NaN where it holds NaN, infinite where the shapes differ."""
    agrees: bool
    """Whether rounding explains the difference."""

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values; a NaN difference is None."""
        return {
            "status": "ok",
            "error": None,
            **_bounds("latency_ms", self.latency_ms),
            **_bounds("latency_ratio", self.ratio),
            "rounds": self.rounds,
            "stopped_by": self.stopped_by,
            "difference": self.difference if math.isfinite(self.difference) else None,
            "agrees": self.agrees,
        }


@dataclass(frozen=True)
class FailedFormulation:
    """Why a formulation wasn't timed."""

    status: Status
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Both, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LayerBenchmark:
    """The results of one layer's formulations at one batch size."""

    batch_size: int
    plain_ms: MedianInterval | None
    """Latency of the plain convolution; None where nothing could be timed."""
    formulations: Mapping[str, TimedFormulation | FailedFormulation]
    """All formulations legal for the layer, in the order of `FORMULATIONS`."""
    picked: str | None
    """The formulation that "auto" runs; None where not even the images could be allocated."""
    fastest: str | None
    """The formulation with the smallest ratio to the plain convolution among those that agree."""
    regret: MedianInterval | None
    """Latency of the picked formulation over the fastest one's, round by round; None if either was not
    timed."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "batch_size": self.batch_size,
            **_bounds("plain_ms", self.plain_ms),
            "picked": self.picked,
            "fastest": self.fastest,
            **_bounds("regret", self.regret),
            "formulations": {name: found.to_dict() for name, found in self.formulations.items()},
        }


@dataclass(frozen=True)
class ConvNumbers:
    """The shape of a convolution with generated kernels."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    generator_groups: int
    inputs_per_group: int


@dataclass(frozen=True)
class BenchmarkedLayer:
    """A layer, standing for all of the same shape and input size: a benchmark per batch size, ascending."""

    name: str
    """Of the first such layer."""
    count: int
    """How many such layers the network has."""
    height: int
    width: int
    """Of the layer's input."""
    shape: ConvNumbers
    benchmarks: tuple[LayerBenchmark, ...]

    @property
    def crossover(self) -> list[tuple[int, str]]:
        """The batch sizes at which the fastest formulation changes, with its name; the first one included."""
        found: list[tuple[int, str]] = []
        for benchmark in self.benchmarks:
            if benchmark.fastest is not None and (not found or found[-1][1] != benchmark.fastest):
                found.append((benchmark.batch_size, benchmark.fastest))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "name": self.name,
            "count": self.count,
            "height": self.height,
            "width": self.width,
            "shape": asdict(self.shape),
            "races": [benchmark.to_dict() for benchmark in self.benchmarks],
            "crossover": self.crossover,
        }


class Worst(NamedTuple):
    """The benchmark with the largest regret."""

    layer: str
    benchmark: LayerBenchmark
    regret: MedianInterval


@dataclass(frozen=True)
class NetworkBenchmark:
    """The benchmarks of one design point's layers."""

    point: DesignPoint
    protocol: LatencyProtocol
    """Of the smallest batch size; the others differ only in that."""
    layers: tuple[BenchmarkedLayer, ...]
    environment: Mapping[str, Any]

    @property
    def mean_regret(self) -> float | None:
        """Geometric mean of the regrets where both formulations were timed; None if there are none."""
        values = [regret.median for _, _, regret in self._regrets]
        return math.exp(sum(math.log(value) for value in values) / len(values)) if values else None

    @property
    def worst(self) -> Worst | None:
        """The largest regret; None if none was timed."""
        return max(self._regrets, key=lambda cell: cell.regret.median, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values: the point's axes at the top level."""
        worst = self.worst
        return {
            **self.point.to_dict(),
            "protocol": {name: value for name, value in self.protocol.items() if name != "batch_size"},
            "layers": [layer.to_dict() for layer in self.layers],
            "regret": {
                "geometric_mean": self.mean_regret,
                "worst": None
                if worst is None
                else {
                    "layer": worst.layer,
                    "batch_size": worst.benchmark.batch_size,
                    "picked": worst.benchmark.picked,
                    "fastest": worst.benchmark.fastest,
                    **_bounds("regret", worst.regret),
                },
            },
            "environment": dict(self.environment),
        }

    @property
    def _regrets(self) -> list[Worst]:
        return [
            Worst(layer.name, benchmark, benchmark.regret)
            for layer in self.layers
            for benchmark in layer.benchmarks
            if benchmark.regret is not None
        ]


def _bounds(name: str, interval: MedianInterval | None) -> dict[str, float | None]:
    """An interval as columns of a record."""
    median, low, high = interval or (None, None, None)
    return {name: median, f"{name}_low": low, f"{name}_high": high}
