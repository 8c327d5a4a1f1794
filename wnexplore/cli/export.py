"""wnexplore export: the figures of a run directory as a file."""

from __future__ import annotations

from typing import Annotated

import typer

from wnexplore.cli.options import Out, RunDirectory, SkipDamaged, Sort, Strict, Where


def export(
    directory: RunDirectory,
    format: Annotated[str, typer.Option(help="csv, json, parquet, markdown or latex.")] = "csv",
    out: Out = None,
    where: Where = None,
    sort: Sort = None,
    strict: Strict = False,
    skip_damaged: SkipDamaged = False,
) -> None:
    """Export every figure of a run: by default CSV on standard output.

    csv, json and parquet hold all columns unrounded; markdown and latex are tables for a paper, with the
    marks of wnexplore table.
    """
    import sys

    from wnexplore.cli.show import load_rows, write_output
    from wnexplore.errors import InputError, unknown
    from wnexplore.files import check_writable
    from wnexplore.report.export import FORMATS, MARKED
    from wnexplore.report.export import export as export_rows

    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if strict and format not in MARKED:
        raise InputError(f"--strict is about Pareto marks, and {format} has none: use markdown or latex")
    if format == "parquet" and out is None and sys.stdout.isatty():
        raise InputError("parquet is binary: give --out FILE or redirect the output to a file")
    if out is not None:
        check_writable(out)
    write_output(export_rows(load_rows(directory, where, sort, skip_damaged), format, strict=strict), out)
