"""wnexplore plot: the figures of a run directory as plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.options import RunDirectory, Where


def plot(
    directory: RunDirectory,
    x: Annotated[str | None, typer.Option(help="Column of the horizontal axis, such as flops.")] = None,
    y: Annotated[str | None, typer.Option(help="Column of the vertical axis, such as latency_ms.")] = None,
    color: Annotated[str, typer.Option(help="Column that tells the series apart.")] = "method",
    pareto: Annotated[bool, typer.Option("--pareto", help="Draw the Pareto front.")] = False,
    logx: Annotated[bool, typer.Option("--logx", help="Logarithmic horizontal axis.")] = False,
    where: Where = None,
    out: Annotated[
        Path | None, typer.Option(help="File (.png, .svg, .pdf), or a folder for the standard set.")
    ] = None,
) -> None:
    """Plot a run: one column against another, or without --x and --y the standard set.

    The standard set: accuracy against FLOPs and parameters, latency against FLOPs, a heat map over M
    and G, as far as they were measured; PNGs in the run directory unless --out says otherwise.
    """
    from wnexplore.cli.show import load_rows
    from wnexplore.errors import InputError
    from wnexplore.report.columns import column
    from wnexplore.report.figures import save, scatter, standard_set

    column(color)
    rows = load_rows(directory, where, None)
    if x is None and y is None:
        for option, given in (("--pareto", pareto), ("--logx", logx), ("--color", color != "method")):
            if given:
                raise InputError(f"{option} is for one plot: give --x or --y with it")
        figures = standard_set(rows)
        suffix, folder = ".png", out or directory
        if out is not None and out.suffix:
            suffix, folder = out.suffix, out.parent
        for name, figure in figures.items():
            stem = name if out is None or not out.suffix else f"{out.stem}_{name}"
            save(figure, folder / f"{stem}{suffix}")
            typer.echo(folder / f"{stem}{suffix}")
        return
    x, y = x or "flops", y or "latency_ms"
    path = out or directory / f"{y}_{x}.png"
    save(scatter(rows, x, y, color=color, pareto=pareto, logx=logx), path)
    typer.echo(path)
