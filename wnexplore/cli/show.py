"""Loads records, and prints and writes reports."""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wnexplore.cli.output import notify

if TYPE_CHECKING:
    import pandas as pd

    from wnexplore.design.sweep_file import SweepSpec
    from wnexplore.results.record import Figure, Record


def load_records(directory: Path, skip_damaged: bool, samples_of: Collection[Figure] = ()) -> list[Record]:
    """The records of a run directory; `skip_damaged` omits damaged ones with a message.

    Samples are loaded only for the figures `samples_of`.
    """
    from wnexplore.results.store import read_records

    damaged: list[str] | None = [] if skip_damaged else None
    records = read_records(directory, damaged, samples_of=samples_of)
    report_damaged(damaged or [])
    # They live as long as the command: the search for garbage need not go through them again and again.
    gc.freeze()
    return records


def report_damaged(damaged: Sequence[str]) -> None:
    """Report on standard error how many records are omitted, and why the first one is."""

    if damaged:
        notify(f"left out {len(damaged)} damaged records: {damaged[0]}")


def load_rows(directory: Path, where: str | None, sort: str | None, skip_damaged: bool) -> pd.DataFrame:
    """The rows of a run directory that satisfy `where`, ordered by `sort`."""
    return rows_of(load_records(directory, skip_damaged), where, sort)


def rows_of(records: Sequence[Record], where: str | None, sort: str | None) -> pd.DataFrame:
    """The rows of `records` that satisfy `where`, ordered by `sort`."""
    from wnexplore.results import filters
    from wnexplore.results.frame import frame

    rows = frame(records)
    gc.freeze()
    if where is not None:
        rows = filters.where(rows, where)
    return rows if sort is None else filters.sort(rows, sort)


def with_predicted_rows(
    directory: Path, records: Sequence[Record], rows: pd.DataFrame, space: str, where: str | None
) -> pd.DataFrame:
    """`rows`, and the points of the sweep file `space` with the latencies that `records`, with their samples,
    predict."""
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep
    from wnexplore.space.expansion import with_predicted

    return with_predicted(rows, load_sweep(find_sweep(space)), records, str(directory), where)


def print_table(rows: pd.DataFrame, pareto: Sequence[str] | None = None, *, strict: bool = False) -> None:
    """The table of `rows` on standard output, as wide as the terminal."""
    from wnexplore.cli.terminal import output
    from wnexplore.report.tables import table

    output().print(table(rows, pareto=pareto, strict=strict))


def write_output(content: str | bytes, out: Path | None) -> None:
    """Write `content` atomically to a file, or to standard output."""
    import sys

    from wnexplore.files import write_atomically

    data = content.encode() if isinstance(content, str) else content
    if out is None:
        sys.stdout.buffer.write(data)
    else:
        write_atomically(out, data)


def write_results(
    directory: Path, rows: pd.DataFrame, records: Sequence[Record]
) -> tuple[list[Path], list[str]]:
    """Write the CSV of `rows`, made from `records`, and their plots into a run directory.

    Returns the written files, and a line per failure: the records are safe in any case.
    """
    from wnexplore.errors import WnexploreError, shown

    written: list[Path] = []
    try:
        _write_results(directory, rows, records, written)
    except WnexploreError as error:
        return written, [f"not everything could be written or drawn: {error}"]
    except Exception as error:  # a font, a figure beyond matplotlib's bounds, no memory
        return written, [f"not everything could be drawn: {type(error).__name__}: {shown(error)}"]
    return written, []


def _write_results(
    directory: Path, rows: pd.DataFrame, records: Sequence[Record], written: list[Path]
) -> None:
    from wnexplore.files import write_atomically
    from wnexplore.report.export import export

    path = directory / "results.csv"
    content = export(rows, "csv")
    write_atomically(path, content.encode() if isinstance(content, str) else content)
    written.append(path)
    if not rows[["flops", "latency_ms", "top1", "ap"]].notna().to_numpy().any():
        return
    from wnexplore.report.figure_files import save
    from wnexplore.report.figures import standard_set

    for name, figure in standard_set(rows, records).items():
        path = directory / f"{name}.png"
        save(figure, path)
        written.append(path)


def keep_sweep(directory: Path, spec: SweepSpec) -> None:
    """Write the sweep file of a run; an existing file of another sweep is kept, and this one gets another
    name.

    A run may be resumed with other options, and its first file may have been written by hand.
    """
    from wnexplore.files import write_atomically

    path, content = directory / "sweep.yaml", spec.to_yaml().encode()
    number = 1
    while path.exists():
        if path.read_bytes() == content:
            return
        number += 1
        path = directory / f"sweep-{number}.yaml"
    write_atomically(path, content)
    if number > 1:
        notify(f"{directory} was started by another sweep: this one is in {path.name}")
