"""wnexplore profile: one design point, counted and timed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.axes import latency_spec, legal_point, point_options, timing_options
from wnexplore.cli.output import notify


@point_options()
@timing_options(after="latency")
def profile(
    context: typer.Context,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Measure latency.")] = True,
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
    spec = latency_spec(context.params)
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
