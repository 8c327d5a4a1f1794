"""wnexplore table: the figures of a run directory in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from wnexplore.cli.options import RunDirectory, SkipDamaged, Sort, Strict, Where, comma_list
from wnexplore.cli.output import say


def table(
    directory: RunDirectory,
    sort: Sort = None,
    where: Where = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Only Pareto-optimal rows.")] = False,
    objectives: Annotated[
        str | None, typer.Option(help="Objectives of Pareto optimality: top1,latency_ms.")
    ] = None,
    strict: Strict = False,
    skip_damaged: SkipDamaged = False,
) -> None:
    """Show the figures of a run as a table, Pareto-optimal rows marked.

    The default objectives are accuracy and FLOPs where something was trained; choose with --objectives. A row
    stays marked unless another is certainly better, with disjoint 95 % intervals; --strict compares values.
    Below the table of a complete run: what halving dropped, and the rank correlation of early and final
    accuracy, and with a target which differences to plain are known.
    """
    from wnexplore.cli.show import load_records, print_table, rows_of
    from wnexplore.errors import InputError
    from wnexplore.report.known_differences import seed_lines
    from wnexplore.report.rungs import lines
    from wnexplore.results.fronts import default_objectives, pareto_rows

    records = load_records(directory, skip_damaged, samples_of=["training"])
    rows = rows_of(records, where, sort)
    chosen = default_objectives(rows) if objectives is None else tuple(comma_list(objectives))
    if pareto:
        if not chosen:
            raise InputError(
                "nothing was trained in this run, so there is no accuracy to compare: choose objectives,"
                " such as --objectives params,latency_ms"
            )
        rows = rows[pareto_rows(rows, chosen, strict=strict)]
    print_table(rows, chosen, strict=strict)
    # They are about all trainings, not about selected rows.
    if where is None and not pareto:
        for line in (*seed_lines(records), *lines(records)):
            say(line)
