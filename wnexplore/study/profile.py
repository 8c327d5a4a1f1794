"""The profile of one design point: counts, latencies and layers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError, RunError
from wnexplore.measure.environment import device_name, resolve_device
from wnexplore.measure.failure import ContextLostError, Failure
from wnexplore.measure.layer_profile import measure_layers
from wnexplore.measure.roofline import device_peaks
from wnexplore.models import build
from wnexplore.results.record import Record
from wnexplore.study.sweep import check_sizes, measure, plan


def profile(point: DesignPoint, latency: LatencySpec, *, timed: bool, layers: bool) -> dict[str, Any]:
    """The result of `wnexplore profile` for `point`, as JSON values.

    The point's axes, `params`, `flops` and what else `Complexity` has at the top level;
    `latency` a list with one entry for each protocol of `latency`, a failed one with its error;
    `layers`, where asked for, of eager inference at the first dtype, batch size, memory format and
    number of threads, which `layers_protocol` tells with the device's `peaks`. Raises `RunError` if the
    network can't be built and counted, or its layers not timed.
    """
    spec = SweepSpec(points=(PointSpec.model_validate(point.to_dict()),), latency=latency if timed else None)
    planned = plan(spec)
    if not planned.points:
        raise InputError(f"{point}: {planned.expansion.skipped[0][1]}")
    check_sizes(spec, planned, planned.measurements)
    try:
        complexity, *latencies = measure(spec, planned.measurements)
    except ContextLostError as error:
        # Nothing is saved that the same command could resume from.
        raise ContextLostError(error.culprit, error.failure, resumes=False) from None
    if complexity.error is not None:
        raise RunError(f"{point}: {complexity.error}")
    result = {
        **point.to_dict(),
        **complexity.value,
        "latency": [_entry(record) for record in latencies],
    }
    if layers:
        try:
            result |= _layers(point, latency)
        except (RuntimeError, MemoryError) as error:
            failure = Failure.of(error)
            if failure.context_lost:
                raise ContextLostError(point, failure, resumes=False) from None
            raise RunError(f"{point}: its layers can't be timed: {' '.join(str(error).split())}") from None
    return {**result, "environment": dict((latencies or [complexity])[-1].environment)}


def _layers(point: DesignPoint, latency: LatencySpec) -> dict[str, Any]:
    device = resolve_device(latency.device)
    dtype = latency.dtypes[0]
    threads = latency.threads[0] if latency.threads and device == "cpu" else None
    peaks = device_peaks(device, dtype, threads)
    # Control flow that depends on random weights must be the same as when the network was counted.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = build(point)
    layers = measure_layers(
        model,
        resolution=point.resolution,
        batch_size=latency.batch_sizes[0],
        dtype=dtype,
        device=device,
        peaks=peaks,
        memory_format=latency.memory_formats[0],
        threads=threads,
        seconds=latency.seconds,
    )
    protocol = {
        "device": device,
        "device_name": device_name(device),
        "dtype": dtype,
        "batch_size": latency.batch_sizes[0],
        "memory_format": latency.memory_formats[0],
        "threads": (threads or torch.get_num_threads()) if device == "cpu" else None,
        **asdict(peaks),
    }
    return {"layers_protocol": protocol, "layers": [layer.to_dict() for layer in layers]}


def _entry(record: Record) -> dict[str, Any]:
    return {**record.protocol, **record.value, "status": record.status, "error": record.error}
