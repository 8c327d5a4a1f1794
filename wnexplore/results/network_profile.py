"""The profile of one design point: counts, latencies and layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.results.record import Record


@dataclass(frozen=True)
class Complexity:
    """The counts of one network for one image of its resolution."""

    params: int
    flops: int
    """Multiply-adds of convolutions, linear and recurrent layers and matrix products, as
    `wnexplore.models.multiply_adds` counts them."""
    fvcore_flops: int | None
    """fvcore's total by its conventions, which include batch normalisation. None where it fails."""
    operators: dict[str, int] = field(default_factory=dict)
    """Operator -> its share of `fvcore_flops`."""
    uncounted: dict[str, int] = field(default_factory=dict)
    """Operators in neither figure -> how often they run: elementwise and pooling work."""
    uncounted_products: dict[str, int] = field(default_factory=dict)
    """Those that may multiply matrices: their work is missing from `flops`."""
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of a detector: backbone, pyramid and head -> params and flops of each."""

    def to_dict(self) -> dict[str, Any]:
        """The counts as a record's value."""
        content = asdict(self)
        return content if self.parts else {name: content[name] for name in content if name != "parts"}


@dataclass(frozen=True)
class Peaks:
    """The measured peaks of a device: a large copy and a large matrix product."""

    bytes_per_s: float
    """Bytes read and written."""
    multiply_adds_per_s: float

    @property
    def ridge(self) -> float:
        """Multiply-adds per byte above which arithmetic is the limit, and below which memory is."""
        return self.multiply_adds_per_s / self.bytes_per_s

    def least_ms(self, multiply_adds: float, bytes_moved: float) -> float:
        """The least time by the roofline: the longer of arithmetic and memory traffic."""
        seconds = max(multiply_adds / self.multiply_adds_per_s, bytes_moved / self.bytes_per_s)
        return seconds * 1e3


OWN_WORK = " (its own products)"


@dataclass(frozen=True)
class LayerProfile:
    """One row of the layer table."""

    name: str
    kind: str
    """Class of the module; followed by `OWN_WORK` in the row of a composite module's own work."""
    formulation: str | None
    """The formulation that ran, of several calls on the largest input; None for a layer without."""
    depthwise: bool
    """Whether it is a depthwise convolution."""
    params: int
    flops: int
    """Multiply-adds per image."""
    time_ms: float
    """Median over the passes."""
    time_share: float
    """`time_ms` over that of a pass; the rest of the pass is in no layer (shuffles, additions)."""
    bytes: int
    """The least bytes that one pass of the batch moves, in any formulation: inputs and weights read once,
    outputs written once, each in its dtype; 0 where the input is returned unchanged."""
    intensity: float
    """Multiply-adds per byte: half the value of papers that count a multiply-add as two operations."""
    roofline_share: float
    """The roofline's least time for the layer over `time_ms`: 1 is the limit. Not clipped: above 1 its data
    was still in a cache, or the device was slower when its peaks were measured. Far below 1, in a layer of
    microseconds on a GPU, launching its kernels took longer than running them."""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LayerTable:
    """The layers of a network in the order of its modules, in eager inference, caches warm."""

    protocol: LatencyProtocol
    peaks: Peaks
    """Of the device for the protocol's dtype."""
    layers: tuple[LayerProfile, ...]

    def to_dict(self) -> dict[str, Any]:
        """Protocol and rows, as JSON values."""
        names = ("device", "device_name", "dtype", "batch_size", "memory_format", "threads")
        protocol = {name: self.protocol[name] for name in names} | asdict(self.peaks)
        return {"layers_protocol": protocol, "layers": [layer.to_dict() for layer in self.layers]}


@dataclass(frozen=True)
class Profile:
    """The figures of one design point."""

    point: DesignPoint
    complexity: Complexity
    latencies: tuple[Record, ...]
    """One per protocol, including failed ones."""
    table: LayerTable | None
    """None if not requested."""
    environment: Mapping[str, Any]
    post_processing: tuple[float, float, float] | None = None
    """Of a detector that is timed: milliseconds in which a batch's boxes are chosen, at most, with an
    interval's bounds, for the first protocol."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values: the point's axes and the counts at the top level."""
        return {
            **self.point.to_dict(),
            **self.complexity.to_dict(),
            "latency": [
                {**record.protocol, **record.value, "status": record.status, "error": record.error}
                for record in self.latencies
            ],
            **({} if self.table is None else self.table.to_dict()),
            **(
                {}
                if self.post_processing is None
                else {"post_processing_ms": dict(zip(_ENDS, self.post_processing, strict=True))}
            ),
            "environment": dict(self.environment),
        }


_ENDS = ("median", "low", "high")
