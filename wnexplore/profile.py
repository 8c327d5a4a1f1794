"""A profile: one design point, counted, timed and taken apart layer by layer."""

from __future__ import annotations

from typing import Any

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.record import Record
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import RunError
from wnexplore.measure.environment import resolve_device
from wnexplore.measure.layers import measure_layers
from wnexplore.models import build
from wnexplore.sweep import measure, plan


def profile(point: DesignPoint, latency: LatencySpec, *, timed: bool, layers: bool) -> dict[str, Any]:
    """What `wnexplore profile` shows of `point`, as JSON can hold it.

    The point's axes, `params`, `flops`, `fvcore_flops`, `operators` and `uncounted` at the top level;
    `latency` a list with one entry for each dtype and batch size of `latency`, a failed one with its
    error; `layers`, where asked for, timed at the first dtype and batch size. Raises `RunError` if
    the network can't be built and counted, or its layers not timed.
    """
    spec = SweepSpec(points=(PointSpec.model_validate(point.to_dict()),), latency=latency if timed else None)
    complexity, *latencies = measure(spec, plan(spec).measurements)
    if complexity.error is not None:
        raise RunError(f"{point}: {complexity.error}")
    result = {
        **point.to_dict(),
        **complexity.value,
        "latency": [_entry(record) for record in latencies],
    }
    if layers:
        try:
            taken_apart = measure_layers(
                build(point),
                resolution=point.resolution,
                batch_size=latency.batch_sizes[0],
                dtype=latency.dtypes[0],
                device=resolve_device(latency.device),
                threads=latency.threads,
                seconds=latency.seconds,
            )
        except (RuntimeError, MemoryError) as error:
            raise RunError(f"{point}: its layers can't be timed: {' '.join(str(error).split())}") from None
        result["layers"] = [layer.to_dict() for layer in taken_apart]
    return {**result, "environment": dict((latencies or [complexity])[-1].environment)}


def _entry(record: Record) -> dict[str, Any]:
    return {**record.protocol, **record.value, "status": record.status, "error": record.error}
