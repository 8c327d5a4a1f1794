"""The profile of one design point: counts, latencies and layers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from wnexplore.design.latency_protocol import latency_protocols
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError, Notice, RunError, WnexploreError
from wnexplore.measure.environment import resolve_device, timing_device
from wnexplore.measure.failure import NETWORK_ERRORS, ContextLostError, Failure
from wnexplore.measure.layer_profile import measure_layers
from wnexplore.measure.roofline import device_peaks
from wnexplore.models import build
from wnexplore.results.intervals import MedianInterval
from wnexplore.results.network_profile import Complexity, LayerTable, Profile
from wnexplore.study.sweep import check_sizes, measure, plan


def profile(point: DesignPoint, latency: LatencySpec, *, timed: bool, layers: bool) -> Profile:
    """The result of `wnexplore profile` for `point`: counts, and if requested latencies and layers.

    The layers are those of eager inference at the first dtype, batch size, memory format and number of
    threads. Raises `RunError` if the network can't be built and counted, or its layers not timed.
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
    table = None
    if layers:
        try:
            table = _layers(point, latency)
        except WnexploreError:
            raise
        except NETWORK_ERRORS as error:
            failure = Failure.of(error)
            if failure.context_lost:
                raise ContextLostError(point, failure, resumes=False) from None
            raise RunError(f"{point}: its layers can't be timed: {failure.error}") from None
    measured_in = (latencies or [complexity])[-1].environment
    chosen = None
    if point.task == "detection" and latencies and latencies[0].error is None:
        try:
            chosen = _post_processing(point, latency)
        except NETWORK_ERRORS as error:
            reason = Failure.of(error).error
            warnings.warn(f"post-processing can't be timed: {reason}", Notice, stacklevel=1)
    return Profile(point, Complexity(**complexity.value), tuple(latencies), table, measured_in, chosen)


def _post_processing(point: DesignPoint, latency: LatencySpec) -> MedianInterval:
    from wnexplore.measure.post_processing import measure_post_processing
    from wnexplore.models.detector import Detector

    protocol = next(latency_protocols(latency, timing_device(resolve_device(latency.device))))
    detector = build(point)
    assert isinstance(detector, Detector)
    return measure_post_processing(detector, point, protocol)


def _layers(point: DesignPoint, latency: LatencySpec) -> LayerTable:
    on = timing_device(resolve_device(latency.device))
    first = next(latency_protocols(latency, on))
    protocol = replace(first, runtime="eager", cache="warm", mode="inference")
    peaks = device_peaks(protocol.device, protocol.dtype, protocol.threads)
    # Control flow that depends on random weights must be the same as when the network was counted.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = build(point)
    layers = measure_layers(
        model,
        resolution=point.resolution,
        batch_size=protocol.batch_size,
        dtype=protocol.dtype,
        device=protocol.device,
        peaks=peaks,
        memory_format=protocol.memory_format,
        threads=protocol.threads,
        seconds=protocol.seconds,
    )
    return LayerTable(protocol, peaks, tuple(layers))
