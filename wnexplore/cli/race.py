"""wnexplore race: benchmark every formulation of a network's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from wnexplore.cli.axes import latency_spec, legal_point, point_options
from wnexplore.results.escape import one_line


@point_options(method="weightnet")
def race(
    context: typer.Context,
    layer: Annotated[
        str | None,
        typer.Option(help="Benchmark only this layer: layer1.0.conv1, as named by profile --layers."),
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Batch sizes: 1,16.")] = "1,16,64",
    dtype: Annotated[str, typer.Option(help="float32, tf32, bfloat16 or float16.")] = "float32",
    memory_format: Annotated[str, typer.Option(help="contiguous or channels_last.")] = "contiguous",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Number of threads on a CPU.")] = None,
    mode: Annotated[str, typer.Option(help="inference, or train (forward and backward).")] = "inference",
    target: Annotated[
        float | None,
        typer.Option(help="Relative half-width of the interval at which a timing stops: 0.01 for ±1 %."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(help="Time limit per formulation and batch size in seconds; at least 10 rounds."),
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Time every legal formulation of each layer against a plain convolution, and check that they agree.

    Layers of equal shape are timed once. Shows the fastest formulation by batch size, and the regret of the
    choice of "auto": its time over the fastest one's. Exit code 1 if a formulation's output differs from the
    published one's, or if one fails or runs out of memory.
    """
    import json

    point = legal_point(context.params)
    # One dtype, memory format and mode: no lists of them.
    once = {"dtype": [dtype], "memory_format": [memory_format], "mode": [mode]}
    spec = latency_spec(context.params | once)

    from wnexplore.report.formulation_table import problems, render
    from wnexplore.study.formulation_benchmark import benchmark_formulations

    with _progress() as on_benchmark:
        result = benchmark_formulations(point, spec, layer, on_benchmark)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from wnexplore.cli.terminal import output

        for part in render(result):
            output().print(part)
    if problems(result):
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar over the benchmarks on standard error; nothing if that is not a terminal."""
    from rich.markup import escape
    from rich.progress import Progress

    from wnexplore.cli.terminal import PlainConsole

    console = PlainConsole(stderr=True)
    off = not console.is_terminal
    # Drawn between benchmarks, not by a background thread that would run while they are timed.
    with Progress(console=console, disable=off, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("", total=None)

        def on_benchmark(name: str, done: int, total: int) -> None:
            progress.update(
                bar, description=escape(one_line(name)), completed=done, total=total, refresh=True
            )

        yield on_benchmark
