"""Benchmarks every formulation of each layer of a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.measure.distinct_layers import distinct_layers
from wnexplore.measure.environment import environment
from wnexplore.measure.layer_benchmark import LayerBenchmark, benchmark_layer, crossover
from wnexplore.measure.memory_bound import bound_memory
from wnexplore.measure.torch_settings import precision_set, threads_set
from wnexplore.models import build
from wnexplore.study.sweep import check_sizes, plan

Progress = Callable[[str, int, int], None]
"""Called with the next benchmark's name, the number of finished benchmarks and their total."""


def benchmark_formulations(
    point: DesignPoint,
    latency: LatencySpec,
    layer: str | None = None,
    on_benchmark: Progress = lambda name, done, total: None,
) -> dict[str, Any]:
    """The result of `wnexplore race` for `point`, as JSON values.

    The point's axes at the top level; `protocol`, without the batch size; `layers`, a list with one entry per
    distinct layer (or only `layer`), with its `races` by batch size and its `crossover`, the batch sizes at
    which the fastest formulation changes; `regret` of the choice of "auto": its geometric mean over all
    benchmarks and the worst one. `latency` has one value on each axis except batch sizes. Raises
    `InputError` if the network has no such layer, or the machine no such device.
    """
    spec = SweepSpec(points=(PointSpec.model_validate(point.to_dict()),), latency=latency)
    planned = plan(spec)
    check_sizes(spec, planned, planned.measurements)
    bound_memory()
    protocols = [m.timing for m in planned.measurements if m.figure == "latency"]
    protocols.sort(key=lambda protocol: protocol.batch_size)
    raced = distinct_layers(build(point), point.resolution, layer)
    layers = []
    for number, distinct in enumerate(raced):
        benchmarks: list[LayerBenchmark] = []
        for protocol in protocols:
            done = number * len(protocols) + len(benchmarks)
            on_benchmark(f"{distinct.name}, batch {protocol.batch_size}", done, len(raced) * len(protocols))
            benchmarks.append(benchmark_layer(distinct, protocol))
        entries = [benchmark.to_dict() for benchmark in benchmarks]
        layers.append({**distinct.to_dict(), "races": entries, "crossover": crossover(benchmarks)})
    shared = {name: value for name, value in protocols[0].items() if name != "batch_size"}
    with threads_set(shared["threads"]), precision_set(shared["dtype"]):
        measured_in = environment(shared["device"])
    return {
        **point.to_dict(),
        "protocol": shared,
        "layers": layers,
        "regret": _regret(layers),
        "environment": measured_in,
    }


def _regret(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The regret over all benchmarks in which both the picked and the fastest formulation were timed."""
    cells = [
        (benchmark["regret"], layer["name"], benchmark) for layer in layers for benchmark in layer["races"]
    ]
    cells = [cell for cell in cells if cell[0] is not None]
    if not cells:
        return {"geometric_mean": None, "worst": None}
    names = ("batch_size", "picked", "fastest", "regret", "regret_low", "regret_high")
    _, layer, worst = max(cells, key=lambda cell: cell[0])
    return {
        "geometric_mean": math.exp(sum(math.log(value) for value, _, _ in cells) / len(cells)),
        "worst": {"layer": layer, **{name: worst[name] for name in names}},
    }
