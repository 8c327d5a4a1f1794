"""wnexplore compare: the same points in two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.options import SkipDamaged, Where
from wnexplore.cli.output import notify


def compare(
    directory_a: Annotated[Path, typer.Argument(metavar="DIR_A", help="Run directory to compare with.")],
    directory_b: Annotated[Path, typer.Argument(metavar="DIR_B", help="Run directory to compare.")],
    column: Annotated[
        str,
        typer.Option(help="What to compare: latency_ratio, params, flops, top1, ap, test_loss, ..."),
    ] = "latency_ms",
    where: Where = None,
    fail_above: Annotated[
        float | None,
        typer.Option(help="Exit with 1 if B is certainly worse somewhere, by more than this factor: 1.05."),
    ] = None,
    skip_damaged: SkipDamaged = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compare two runs point by point: two GPUs, two versions, eager and compiled.

    Rows are matched if they have the same design point and agree in every part of the protocol that varies
    within a run; parts that are constant within each run (device, runtime, dtype, ...) may differ between the
    two, except batch size, mode and data set. B/A comes with an interval from B's lower bound over A's upper
    one to the reverse; B is faster or slower only where the 95 % intervals of A and B don't overlap. Between
    machines compare latency_ratio, in which the machine's speed cancels.
    """
    import json
    import math

    from wnexplore.cli.show import load_records
    from wnexplore.cli.terminal import output
    from wnexplore.errors import InputError
    from wnexplore.report.compare_table import failures, lonely_lines, versus_dict, versus_layout
    from wnexplore.report.tables import ConsoleTable
    from wnexplore.results import filters
    from wnexplore.results.compare import software, versus
    from wnexplore.results.frame import frame

    if fail_above is not None and not (math.isfinite(fail_above) and fail_above >= 1):
        raise InputError(f"--fail-above is {fail_above:g}: expected a factor of at least 1, such as 1.05")
    directories = (directory_a, directory_b)
    records = [load_records(directory, skip_damaged) for directory in directories]
    frames = [frame(record) for record in records]
    if where is not None:
        frames = [filters.where(frame, where) for frame in frames]
    found = versus(frames[0], frames[1], column)
    described = (
        found,
        software(records[0], records[1], column),
        (str(directory_a), str(directory_b)),
        fail_above,
    )
    if as_json:
        typer.echo(json.dumps(versus_dict(*described), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        output().print(ConsoleTable(versus_layout(*described)))
    for line in lonely_lines(found):
        notify(line)
    failed = [] if fail_above is None else failures(found, fail_above)
    for line in failed:
        notify(line)
    if failed:
        raise typer.Exit(1)
