"""The benchmark of a network's formulations in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.methods import FORMULATIONS
from wnexplore.results.columns import COLUMNS, Column, point_title, with_interval
from wnexplore.results.escape import visible
from wnexplore.results.formulation_timings import (
    BenchmarkedLayer,
    FailedFormulation,
    LayerBenchmark,
    NetworkBenchmark,
    TimedFormulation,
)
from wnexplore.results.intervals import MedianInterval

PICKED = "→"


def render(network: NetworkBenchmark) -> Iterator[Table | Text]:
    """The parts of a benchmark, to be printed one by one."""
    yield Text(visible(point_title(network.point.to_dict())), style="bold")
    yield _times(network.layers)
    yield _protocol(network.protocol)
    if any(len(layer.benchmarks) > 1 for layer in network.layers):
        yield Text()
        yield _crossovers(network.layers)
    yield from (Text(visible(line)) for line in ("", *_regret(network), *problems(network)))


def problems(network: NetworkBenchmark) -> list[str]:
    """A line per formulation with a wrong output, and per failed one."""
    return [
        f"✗ {layer.name}, batch {benchmark.batch_size}: {name} {problem}"
        for layer in network.layers
        for benchmark in layer.benchmarks
        for name, outcome in benchmark.formulations.items()
        if (problem := _problem(outcome)) is not None
    ]


def crossover_words(crossover: Sequence[tuple[int, str]], batch_sizes: Sequence[int]) -> str:
    """ "kernel up to 4, shared from 16": which formulation is the fastest at which of `batch_sizes`.

    `crossover` is as `BenchmarkedLayer` has it, both in ascending order.
    """
    if len(crossover) < 2:
        return "".join(f"{name} throughout" for _, name in crossover)
    words = []
    ends = [max(size for size in batch_sizes if size < start) for start, _ in crossover[1:]]
    for number, ((start, name), end) in enumerate(zip(crossover, [*ends, None], strict=True)):
        if end is None:
            words.append(f"{name} from {start}")
        elif number == 0:
            words.append(f"{name} up to {end}")
        else:
            words.append(f"{name} at {start}" if start == end else f"{name} from {start} to {end}")
    return ", ".join(words)


def _times(layers: Sequence[BenchmarkedLayer]) -> Table:
    timed = {name for layer in layers for benchmark in layer.benchmarks for name in benchmark.formulations}
    names = [name for name in FORMULATIONS if name in timed]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("×", justify="right", no_wrap=True)
    table.add_column("shape")
    for heading in ("batch", "plain ms", *names, "regret"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        head_cells = (layer.name, str(layer.count), _shape(layer))
        for benchmark in layer.benchmarks:
            cells = (_cell(benchmark, name) for name in names)
            plain, regret = _figure(benchmark.plain_ms, _MS), _figure(benchmark.regret, _RATIO)
            table.add_row(*head_cells, str(benchmark.batch_size), plain, *cells, regret)
            head_cells = ("", "", "")
    return table


def _shape(layer: BenchmarkedLayer) -> str:
    """ "64→128 3×3 /2 g1, 56×56": channels, kernel, stride, groups, size of the input."""
    shape = layer.shape
    (high, wide), (down, across) = shape.kernel_size, shape.stride
    stride = "" if down == across == 1 else f" /{down}" if down == across else f" /{down}×{across}"
    channels = f"{shape.in_channels}→{shape.out_channels}"
    return f"{channels} {high}×{wide}{stride} g{shape.groups}, {layer.height}×{layer.width}"


def _cell(benchmark: LayerBenchmark, name: str) -> Text:
    outcome = benchmark.formulations.get(name)
    if outcome is None:
        return Text()
    if isinstance(outcome, FailedFormulation):
        text = outcome.status.replace("_", " ")
    else:
        text = _figure(outcome.ratio, _RATIO)
    mark = f"{PICKED} " if name == benchmark.picked else ""
    return Text(f"{mark}{text}", style="bold" if name == benchmark.fastest else "")


_MS, _RATIO = COLUMNS["latency_ms"], COLUMNS["latency_ratio"]


def _figure(interval: MedianInterval | None, column: Column) -> str:
    return "" if interval is None else with_interval(*interval, column)


def _protocol(protocol: LatencyProtocol) -> Text:
    names = ("device_name", "dtype", "mode", "memory_format", "threads")
    text = " · ".join(COLUMNS[name].say(protocol[name]) for name in names if protocol[name] is not None)
    return Text(
        f"{text}\nratios to a plain convolution of the same shape; {PICKED} auto picks it; bold: the"
        " fastest; regret: time of the picked one over the fastest",
        style="dim",
    )


def _crossovers(layers: Sequence[BenchmarkedLayer]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("layer", "shape", "fastest at batch size"):
        table.add_column(heading, no_wrap=heading == "layer")
    for layer in layers:
        batch_sizes = [benchmark.batch_size for benchmark in layer.benchmarks]
        table.add_row(layer.name, _shape(layer), crossover_words(layer.crossover, batch_sizes))
    return table


def _regret(network: NetworkBenchmark) -> Iterator[str]:
    worst = network.worst
    if worst is None:
        return
    yield f"regret of auto: geometric mean {network.mean_regret:.3f}"
    benchmark = worst.benchmark
    if benchmark.picked != benchmark.fastest:
        yield (
            f"worst: {_figure(worst.regret, _RATIO)} in {worst.layer}, batch {benchmark.batch_size}:"
            f" {benchmark.picked} picked, {benchmark.fastest} the fastest"
        )


def _problem(outcome: TimedFormulation | FailedFormulation) -> str | None:
    if isinstance(outcome, FailedFormulation):
        return f"{outcome.status.replace('_', ' ')}: {outcome.error}"
    if outcome.agrees:
        return None
    by = (
        f"differs by {outcome.difference:.1e} of the largest"
        if math.isfinite(outcome.difference)
        else "is no number"
    )
    return f"disagrees: its output {by} from the published formulation's in float64"
