"""A network's races in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from wnexplore.design.methods import FORMULATIONS
from wnexplore.results.columns import COLUMNS, point_title, with_interval
from wnexplore.results.escape import visible

PICKED = "→"


def render(result: Mapping[str, Any]) -> Iterator[Table | Text]:
    """The parts of a race (as `wnexplore race --json` has it), to be printed one by one."""
    yield Text(visible(point_title(result)), style="bold")
    yield _times(result["layers"])
    yield _protocol(result["protocol"])
    if any(len(layer["races"]) > 1 for layer in result["layers"]):
        yield Text()
        yield _crossovers(result["layers"])
    yield from (Text(visible(line)) for line in ("", *_regret(result["regret"]), *problems(result)))


def problems(result: Mapping[str, Any]) -> list[str]:
    """A line for each formulation that computes something else, and for each that failed."""
    return [
        f"✗ {layer['name']}, batch {benchmark['batch_size']}: {name} {problem}"
        for layer in result["layers"]
        for benchmark in layer["races"]
        for name, entry in benchmark["formulations"].items()
        if (problem := _problem(entry)) is not None
    ]


def crossover_words(crossover: Sequence[tuple[int, str]], batch_sizes: Sequence[int]) -> str:
    """ "kernel up to 4, shared from 16": which formulation is the fastest at which of `batch_sizes`.

    `crossover` is as `wnexplore.measure.layer_benchmark.crossover` gives it, both in ascending order.
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


def _times(layers: Sequence[Mapping[str, Any]]) -> Table:
    raced = {name for layer in layers for benchmark in layer["races"] for name in benchmark["formulations"]}
    names = [name for name in FORMULATIONS if name in raced]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("×", justify="right", no_wrap=True)
    table.add_column("shape")
    for heading in ("batch", "plain ms", *names, "regret"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        head_cells = (layer["name"], str(layer["count"]), _shape(layer))
        for benchmark in layer["races"]:
            cells = (_cell(benchmark, name) for name in names)
            plain, regret = _figure(benchmark, "plain_ms"), _figure(benchmark, "regret")
            table.add_row(*head_cells, str(benchmark["batch_size"]), plain, *cells, regret)
            head_cells = ("", "", "")
    return table


def _shape(layer: Mapping[str, Any]) -> str:
    """ "64→128 3×3 /2 g1, 56×56": channels, kernel, stride, groups, size of the input."""
    shape = layer["shape"]
    (high, wide), (down, across) = shape["kernel_size"], shape["stride"]
    stride = "" if down == across == 1 else f" /{down}" if down == across else f" /{down}×{across}"
    channels = f"{shape['in_channels']}→{shape['out_channels']}"
    return f"{channels} {high}×{wide}{stride} g{shape['groups']}, {layer['height']}×{layer['width']}"


def _cell(benchmark: Mapping[str, Any], name: str) -> Text:
    entry = benchmark["formulations"].get(name)
    if entry is None:
        return Text()
    text = _figure(entry, "latency_ratio") if entry["error"] is None else entry["status"].replace("_", " ")
    mark = f"{PICKED} " if name == benchmark["picked"] else ""
    return Text(f"{mark}{text}", style="bold" if name == benchmark["fastest"] else "")


_COLUMNS = {
    "plain_ms": COLUMNS["latency_ms"],
    "latency_ratio": COLUMNS["latency_ratio"],
    "regret": COLUMNS["latency_ratio"],
}


def _figure(values: Mapping[str, Any], name: str) -> str:
    return with_interval(values[name], values[f"{name}_low"], values[f"{name}_high"], _COLUMNS[name])


def _protocol(protocol: Mapping[str, Any]) -> Text:
    names = ("device_name", "dtype", "mode", "memory_format", "threads")
    text = " · ".join(COLUMNS[name].say(protocol[name]) for name in names if protocol[name] is not None)
    return Text(
        f"{text}\nratios to a plain convolution of the same shape; {PICKED} auto picks it; bold: the fastest;"
        " regret: time of the one picked over that of the fastest",
        style="dim",
    )


def _crossovers(layers: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("layer", "shape", "fastest at batch size"):
        table.add_column(heading, no_wrap=heading == "layer")
    for layer in layers:
        batch_sizes = [benchmark["batch_size"] for benchmark in layer["races"]]
        table.add_row(layer["name"], _shape(layer), crossover_words(layer["crossover"], batch_sizes))
    return table


def _regret(regret: Mapping[str, Any]) -> Iterator[str]:
    worst = regret["worst"]
    if worst is None:
        return
    yield f"regret of auto: geometric mean {regret['geometric_mean']:.3f}"
    if worst["picked"] != worst["fastest"]:
        yield (
            f"worst: {_figure(worst, 'regret')} in {worst['layer']}, batch {worst['batch_size']}:"
            f" {worst['picked']} picked, {worst['fastest']} the fastest"
        )


def _problem(entry: Mapping[str, Any]) -> str | None:
    if entry["error"] is not None:
        return f"{entry['status'].replace('_', ' ')}: {entry['error']}"
    if entry["agrees"]:
        return None
    by = (
        "is no number"
        if entry["difference"] is None
        else f"differs by {entry['difference']:.1e} of the largest"
    )
    return f"disagrees: its output {by} from the published formulation's in float64"
