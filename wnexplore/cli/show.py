"""Printing what the report room makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from wnexplore.design.record import Record


def load_rows(directory: Path, where: str | None, sort: str | None) -> pd.DataFrame:
    """The rows of a run directory that `where` keeps, ordered by `sort`."""
    from wnexplore.store import read_records

    return rows_of(read_records(directory), where, sort)


def rows_of(records: Sequence[Record], where: str | None, sort: str | None) -> pd.DataFrame:
    """The rows of `records` that `where` keeps, ordered by `sort`."""
    from wnexplore.report import filters
    from wnexplore.report.frame import frame

    rows = frame(records)
    if where is not None:
        rows = filters.where(rows, where)
    return rows if sort is None else filters.sort(rows, sort)


def print_table(rows: pd.DataFrame, pareto: Sequence[str] | None = None, *, strict: bool = False) -> None:
    """The table of `rows` on standard output, as wide as the terminal."""
    from wnexplore.report.tables import table

    console().print(table(rows, pareto=pareto, strict=strict))


def console() -> Console:
    """Standard output for rich; a pipe, which has no width of its own, gets room for every cell."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=200)


def write_output(content: str | bytes, out: Path | None) -> None:
    """`content` to a file, which appears whole, or to standard output."""
    import sys

    from wnexplore.files import write_whole

    data = content.encode() if isinstance(content, str) else content
    if out is None:
        sys.stdout.buffer.write(data)
    else:
        write_whole(out, data)


def write_results(directory: Path, rows: pd.DataFrame, records: Sequence[Record]) -> list[Path]:
    """The CSV of `rows`, made from `records`, and their plots into a run directory: the files written."""
    from wnexplore.files import write_whole
    from wnexplore.report.export import export
    from wnexplore.report.figures import save, standard_set

    written = [directory / "results.csv"]
    content = export(rows, "csv")
    write_whole(written[0], content.encode() if isinstance(content, str) else content)
    measured = bool(rows[["flops", "latency_ms", "top1"]].notna().to_numpy().any())
    for name, figure in standard_set(rows, records).items() if measured else ():
        written.append(directory / f"{name}.png")
        save(figure, written[-1])
    return written
