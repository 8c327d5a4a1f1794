"""wnexplore plot: the figures of a run directory as plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.options import RunDirectory, SkipDamaged, SpaceFile, Strict, Where
from wnexplore.cli.output import say

if TYPE_CHECKING:
    from wnexplore.results.record import Figure, Record


def plot(
    directory: RunDirectory,
    x: Annotated[str | None, typer.Option(help="Column of the horizontal axis, such as flops.")] = None,
    y: Annotated[str | None, typer.Option(help="Column of the vertical axis, such as latency_ms.")] = None,
    color: Annotated[str, typer.Option(help="Column that defines the series.")] = "method",
    pareto: Annotated[bool, typer.Option("--pareto", help="Draw the Pareto front.")] = False,
    strict: Strict = False,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="Ranks in the two columns, with Kendall's tau-b.")
    ] = False,
    curves: Annotated[
        bool, typer.Option("--curves", help="Losses and top-1 over the epochs of the trainings.")
    ] = False,
    logx: Annotated[bool, typer.Option("--logx", help="Logarithmic horizontal axis.")] = False,
    where: Where = None,
    space: SpaceFile = None,
    skip_damaged: SkipDamaged = False,
    out: Annotated[
        Path | None, typer.Option(help="File (.png, .svg, .pdf), or a folder for the standard set.")
    ] = None,
) -> None:
    """Plot a run: one column against another, or without --x and --y the standard set.

    The standard set: accuracy against FLOPs and parameters, latency against FLOPs, their ranks, a heat
    map over M and G, learning curves, as far as measured; PNGs in the run directory unless --out is given.
    Points off the Pareto front that may be optimal within their intervals are ringed; --strict omits the
    rings. With --space one plot also has the points of a sweep file with their predicted latencies: hollow,
    with intervals and a front of their own.
    """
    from wnexplore.cli.show import load_records, rows_of, with_predicted_rows
    from wnexplore.errors import InputError
    from wnexplore.report.figure_files import save
    from wnexplore.report.figures import learning_curves, rank_disagreement, scatter
    from wnexplore.results.columns import column

    column(color)
    one = ranks or x is not None or y is not None
    wrong = {
        "--pareto is for one plot: give --x or --y with it": pareto and not one,
        "--logx is for one plot: give --x or --y with it": logx and not one,
        "--color is for one plot: give --x, --y or --ranks with it": color != "method" and not one,
        "--pareto is not for --ranks, which draws no front": pareto and ranks,
        "--logx is not for --ranks: ranks have no logarithmic axis": logx and ranks,
        "--curves is a separate plot: leave --x, --y and --ranks out": curves and one,
        "--space is for one plot: give --x or --y with it": space is not None
        and (ranks or curves or not one),
        "--strict is about the Pareto front: give --pareto with it": strict
        and (one or curves)
        and not pareto,
    }
    for line, applies in wrong.items():
        if applies:
            raise InputError(line)
    if out is not None:
        _check_target(out, one or curves)
    samples_of: list[Figure] = ["training"] if space is None else ["training", "latency"]
    records = load_records(directory, skip_damaged, samples_of=samples_of)
    if not (one or curves):
        _standard_set(records, directory, out, where, strict=strict)
        return
    rows = rows_of(records, where, None)
    if space is not None:
        rows = with_predicted_rows(directory, records, rows, space, where)
    if curves:
        path = directory / "learning_curves.png"
        save(learning_curves(rows, records), out or path)
        say(out or path)
        return
    x, y = x or "flops", y or "latency_ms"
    if ranks:
        path, figure = directory / f"ranks_{y}_{x}.png", rank_disagreement(rows, x, y, color=color)
    else:
        path = directory / f"{y}_{x}.png"
        figure = scatter(rows, x, y, color=color, pareto=pareto, strict=strict, logx=logx)
    save(figure, out or path)
    say(out or path)


def _standard_set(
    records: Sequence[Record], directory: Path, out: Path | None, where: str | None, *, strict: bool
) -> None:
    """Write the standard set of `records` into the run's folder, or to `out`, each figure as it is drawn."""
    from wnexplore.cli.show import rows_of
    from wnexplore.files import write_atomically
    from wnexplore.report.figures import standard_files
    from wnexplore.report.second_process import second_process

    suffix, folder, prefix = ".png", out or directory, ""
    if out is not None and out.suffix:
        suffix, folder, prefix = out.suffix, out.parent, f"{out.stem}_"
    with second_process(len(records)) as helper:
        rows = rows_of(records, where, None)
        for name, file in standard_files(rows, records, suffix.lower(), strict=strict, helper=helper):
            path = folder / f"{prefix}{name}{suffix}"
            write_atomically(path, file)
            say(path)


def _check_target(out: Path, one: bool) -> None:
    """Raise `InputError` if no figure can be written to `out`, before any is drawn.

    For the standard set `out` is a folder, or the prefix of each file's name.
    """
    from wnexplore.files import check_folder, check_writable
    from wnexplore.report.figure_files import check_figure_path

    if one or out.suffix:
        check_figure_path(out)
    elif out.is_dir():
        check_folder(out)
    else:
        check_writable(out / "accuracy.png")
