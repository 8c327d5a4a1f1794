"""wnexplore profile: one design point, counted and timed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.axes import legal_point, point_options
from wnexplore.cli.options import comma_list, latency_spec
from wnexplore.cli.output import notify


@point_options()
def profile(
    context: typer.Context,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Measure latency.")] = True,
    batch_size: Annotated[str, typer.Option(help="Batch sizes: 1,16.")] = "1",
    dtype: Annotated[str, typer.Option(help="Dtypes: float32,tf32,bfloat16,float16.")] = "float32",
    runtime: Annotated[str, typer.Option(help="Runtimes: eager,compile,cudagraph,onnxruntime.")] = "eager",
    memory_format: Annotated[
        str, typer.Option(help="Memory formats: contiguous,channels_last.")
    ] = "contiguous",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[str | None, typer.Option(help="Numbers of threads on a CPU: 1,2.")] = None,
    cache: Annotated[str, typer.Option(help="Caches: warm,cold (flushed before each pass).")] = "warm",
    mode: Annotated[str, typer.Option(help="What to time: inference,train (a training step).")] = "inference",
    target: Annotated[
        float | None,
        typer.Option(help="Relative half-width of the interval at which a timing stops: 0.01 for ±1 %."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time limit of one latency in seconds.")] = 5.0,
    layers: Annotated[bool, typer.Option("--layers", help="Add a table by layer.")] = False,
    roofline: Annotated[
        Path | None,
        typer.Option(
            help="Draw the layers on the device's roofline: .png, .svg or .pdf. The device's peaks are "
            "measured once and kept in ~/.cache/wnexplore (or $XDG_CACHE_HOME); delete them to measure again."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Count and time one design point: parameters, FLOPs, latency, and each layer's share."""
    import json

    point = legal_point(context.params)
    spec = latency_spec(
        {
            "batch_sizes": comma_list(batch_size),
            "dtypes": comma_list(dtype),
            "runtimes": comma_list(runtime),
            "memory_formats": comma_list(memory_format),
            "device": device,
            "threads": None if threads is None else comma_list(threads),
            "caches": comma_list(cache),
            "modes": comma_list(mode),
            "target": target,
            "seconds": seconds,
        }
    )
    if roofline is not None:
        from wnexplore.report.figure_files import check_figure_path

        # Before anything is measured.
        check_figure_path(roofline)

    from wnexplore.study.profile import profile as profile_point

    result = profile_point(point, spec, timed=latency, layers=layers or roofline is not None)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from wnexplore.cli.terminal import output
        from wnexplore.report.profile_table import render

        for part in render(result):
            output().print(part)
    if roofline is not None and result.table is not None:
        from wnexplore.report.figure_files import save
        from wnexplore.report.roofline_figure import render_roofline, roofline_info

        save(render_roofline(roofline_info(point, result.table)), roofline)
        notify(f"wrote {roofline}")
    if any(record.error for record in result.latencies):
        raise typer.Exit(1)
