"""wnexplore published: compare our counts, or a run's order of accuracies, with the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.options import SkipDamaged


def published(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Run directory whose order of accuracies is compared."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="With DIR: what orders the run's designs: top1 or test_loss."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With DIR: .csv with every pair of designs, or a plot as .png, .svg or .pdf."),
    ] = None,
    skip_damaged: SkipDamaged = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Count every row of the published table, or set a run's order of accuracies beside the published one.

    Without DIR each row of the published table is counted and compared with its figures; for each multiplier
    M/G the legal (M, G) with the nearest counts is used.

    With DIR those designs of the run are compared pair by pair whose ImageNet accuracy was published: in the
    authors' table, or in the paper's figure for se, sk and condconv. The order of a pair is the same,
    reversed, unresolved (the 95 % interval of the difference over common seeds holds 0, or fewer than 3
    seeds give none), or tied as published (within the error of the published figures). Kendall's tau-b sums
    it up.
    """
    if directory is not None:
        _ranking(directory, column or "top1", out, skip_damaged, as_json)
        return
    from wnexplore.errors import InputError

    given = {"--column": column is not None, "--out": out is not None, "--skip-damaged": skip_damaged}
    for option, is_given in given.items():
        if is_given:
            raise InputError(f"{option} is for a run's order of accuracies: name its directory")
    _counts(as_json)


def _counts(as_json: bool) -> None:
    import json

    from wnexplore.study.published_counts import compare_published

    comparisons = list(compare_published())
    if as_json:
        typer.echo(json.dumps([comparison.to_dict() for comparison in comparisons], indent=2))
        return
    from wnexplore.cli.terminal import output
    from wnexplore.report.published_table import render_comparisons

    for part in render_comparisons(comparisons):
        output().print(part)


def _ranking(directory: Path, column: str, out: Path | None, skip_damaged: bool, as_json: bool) -> None:
    import json

    from wnexplore.cli.output import notify
    from wnexplore.cli.show import load_records, write_output
    from wnexplore.cli.terminal import output
    from wnexplore.files import check_writable
    from wnexplore.report.figure_files import check_figure_path, save
    from wnexplore.report.ranking_table import ranking_layouts, rankings_csv, rankings_dict, setting_texts
    from wnexplore.report.tables import ConsoleTable
    from wnexplore.results.published_ranking import published_rankings

    if out is not None:
        if out.suffix.lower() != ".csv":
            check_figure_path(out)
        check_writable(out)
    rankings = published_rankings(load_records(directory, skip_damaged), column)
    if as_json:
        found = rankings_dict(rankings, str(directory))
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        for ranking, setting in zip(rankings, setting_texts(rankings), strict=True):
            for layout in ranking_layouts(ranking, setting):
                output().print(ConsoleTable(layout))
    if out is not None:
        if out.suffix.lower() == ".csv":
            write_output(rankings_csv(rankings), out)
        else:
            from wnexplore.report.figures import published_order

            save(published_order(rankings), out)
        notify(f"written to {out}")
