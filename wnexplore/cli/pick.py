"""wnexplore pick: choose one point of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from wnexplore.cli.options import RunDirectory, SkipDamaged, SpaceFile, Where, comma_list
from wnexplore.cli.output import say


def pick(
    directory: RunDirectory,
    objective: Annotated[
        str, typer.Option(help="Column to be best in: top1, ap, test_loss, latency_ms, params, flops, ...")
    ],
    where: Where = None,
    prefer: Annotated[
        str | None,
        typer.Option(help="Columns that decide between indistinguishable points: latency_ms,params."),
    ] = None,
    space: SpaceFile = None,
    skip_damaged: SkipDamaged = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Choose a point of a run: which one, why, the runner-up, and how to build it in Python.

    It is the best in the objective among the points that satisfy --where. Points whose 95 % intervals overlap
    its interval are indistinguishable from it: --prefer decides among them, column by column; without it the
    best mean is taken and the others are listed. With --space the points of a sweep file take part with their
    predicted latencies, which it says are such. The last line of the output is the line of Python.
    """
    import json

    from wnexplore.cli.show import load_records, rows_of, with_predicted_rows
    from wnexplore.cli.terminal import output
    from wnexplore.report.pick_table import pick_dict, pick_layout
    from wnexplore.report.tables import ConsoleTable
    from wnexplore.results.pick import pick as pick_point

    records = load_records(directory, skip_damaged, () if space is None else ["latency"])
    rows = rows_of(records, None, None)
    if space is not None:
        rows = with_predicted_rows(directory, records, rows, space, where)
    preferred = () if prefer is None else comma_list(prefer)
    found = pick_point(rows, objective, where=where, prefer=preferred)
    if as_json:
        typer.echo(json.dumps(pick_dict(found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        output().print(ConsoleTable(pick_layout(found)))
        # Not by rich, which would wrap it at the terminal's width.
        say("")
        say(found.line)
