"""Benchmarks every formulation of each layer of a network."""

from __future__ import annotations

from collections.abc import Callable

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.measure.distinct_layers import distinct_layers
from wnexplore.measure.environment import environment
from wnexplore.measure.layer_benchmark import benchmark_layer
from wnexplore.measure.memory_bound import bound_memory
from wnexplore.measure.torch_settings import precision_set, threads_set
from wnexplore.models import build
from wnexplore.results.formulation_timings import LayerBenchmark, NetworkBenchmark
from wnexplore.study.sweep import check_sizes, plan

Progress = Callable[[str, int, int], None]
"""Called with the next benchmark's name, the number of finished benchmarks and their total."""


def benchmark_formulations(
    point: DesignPoint,
    latency: LatencySpec,
    layer: str | None = None,
    on_benchmark: Progress = lambda name, done, total: None,
) -> NetworkBenchmark:
    """The result of `wnexplore race` for `point`: every distinct layer, or only `layer`, at each batch size.

    `latency` has one value on each axis except batch sizes. Raises `InputError` if the network has no such
    layer, or the machine no such device.
    """
    spec = SweepSpec(points=(PointSpec.model_validate(point.to_dict()),), latency=latency)
    planned = plan(spec)
    check_sizes(spec, planned, planned.measurements)
    bound_memory()
    protocols = [m.timing for m in planned.measurements if m.figure == "latency"]
    protocols.sort(key=lambda protocol: protocol.batch_size)
    found = distinct_layers(build(point), point.resolution, layer)
    layers = []
    for number, distinct in enumerate(found):
        benchmarks: list[LayerBenchmark] = []
        for protocol in protocols:
            done = number * len(protocols) + len(benchmarks)
            on_benchmark(f"{distinct.name}, batch {protocol.batch_size}", done, len(found) * len(protocols))
            benchmarks.append(benchmark_layer(distinct, protocol))
        layers.append(distinct.with_benchmarks(benchmarks))
    with threads_set(protocols[0].threads), precision_set(protocols[0].dtype):
        measured_in = environment(protocols[0].device)
    return NetworkBenchmark(point, protocols[0], tuple(layers), measured_in)
