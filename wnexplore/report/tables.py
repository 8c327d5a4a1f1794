"""The table in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from wnexplore.report.ascii import to_ascii
from wnexplore.report.layout import TableLayout, layout
from wnexplore.results.escape import visible


def table(
    frame: pd.DataFrame,
    *,
    pareto: Sequence[str] | None = None,
    strict: bool = False,
    title: str | None = None,
) -> ConsoleTable:
    """`frame` as a table of about 100 characters, to be printed by a rich console.

    Values common to all rows are in the title (the backbone, unless `title` is given) and the caption; empty
    columns are left out. ★ marks the rows that may be Pareto-optimal in the columns `pareto` (None: accuracy
    and FLOPs if trained; (): no marks) within their intervals or, if `strict`, by their values; ± is the
    larger side of the 95 % interval. ≈ marks rows whose accuracy is indistinguishable from the plain
    network's, ⚠ rows whose latency has warnings; rows of failed measurements are dim and marked ✗ with the
    number of the explanation below. Raises `InputError` for a column that can't be an objective.
    """
    return ConsoleTable(layout(frame, pareto=pareto, strict=strict, title=title))


class ConsoleTable:
    """A layout for a rich console: as wide as the console, in ASCII if it can't encode more.

    Rich sets `few` rows at most, which takes it a millisecond each, and of larger tables the head.
    """

    def __init__(self, contents: TableLayout, few: int = 1000) -> None:
        self._contents = contents
        self._few = few

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def encode(text: str) -> str:
            return to_ascii(visible(text)) if options.ascii_only else visible(text)

        everything = self._contents.mapped(encode)
        # How wide a table is follows from the widest cell of each column alone.
        widest, spare = _widest(everything), everything.spare
        for padding, count in itertools.product((1, 0), range(len(spare) + 1)):
            missing = spare[:count]
            body = _table(widest.without(missing), padding)
            if Measurement.get(console, options.update_width(_UNBOUNDED), body).maximum <= options.max_width:
                break
        contents = everything.without(missing)
        # Not rich's table title and caption, which are wrapped to the table's width.
        if contents.title:
            yield Text(contents.title, style="bold")
        lines = _lines(console, options, contents, padding) if len(contents.rows) > self._few else None
        yield from [_table(contents, padding)] if lines is None else lines
        yield from (Text(encode(line)) for line in contents.caption)


_UNBOUNDED = 10_000


def _widest(contents: TableLayout) -> TableLayout:
    """The table of one row that is as wide as `contents`."""
    row = tuple(max(dict.fromkeys(column), key=cell_len) for column in zip(*contents.rows, strict=True))
    return replace(contents, rows=(row,) if row else (), failed=(False,) if row else ())


def _table(contents: TableLayout, padding: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False, show_edge=False)
    for heading, numeric in zip(contents.headings, contents.numeric, strict=True):
        table.add_column(
            Text(heading.replace(" (", "\n(")),
            justify="right" if numeric else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row, failed in zip(contents.rows, contents.failed, strict=True):
        table.add_row(*(Text(cell) for cell in row), style="dim" if failed else None)
    return table


def _lines(
    console: Console, options: ConsoleOptions, contents: TableLayout, padding: int
) -> Iterator[Segment] | None:
    """What rich makes of `_table`, of which it makes only the head here; None for what only it can make."""
    columns = list(zip(*contents.rows, strict=True))
    if any("\n" in cell for column in columns for cell in column):
        return None
    # A row that fills each column, to be read how wide they have become.
    full = [
        "x" * max(map(cell_len, (widest, *heading.replace(" (", "\n(").split("\n"))))
        for heading, widest in zip(contents.headings, _widest(contents).rows[0], strict=True)
    ]
    head = _table(replace(contents, rows=(tuple(full),), failed=(False,)), padding)
    *lines, marks = Segment.split_lines(console.render(head, options))
    widths = [len(part) for part in "".join(segment.text for segment in marks).split()]
    if len(widths) != len(columns):
        return None
    texts = []
    for width, numeric, column in zip(widths, contents.numeric, columns, strict=True):
        fitted = {cell: _fitted(width, numeric, cell) for cell in set(column)}
        texts.append(map(fitted.__getitem__, column))
    rows = map((" " * (padding + 1)).join, zip(*texts, strict=True))
    dim, end = console.get_style("dim"), Segment.line()
    body = (
        [Segment(row, dim if failed else None)] for row, failed in zip(rows, contents.failed, strict=True)
    )
    return (segment for line in itertools.chain(lines, body) for segment in (*line, end))


def _fitted(width: int, numeric: bool, cell: str) -> str:
    """`cell` in so many columns of a terminal."""
    taken = len(cell) if cell.isascii() else cell_len(cell)
    if taken > width:
        cell, taken = f"{set_cell_size(cell, width - 1)}…", width
    blank = " " * (width - taken)
    return blank + cell if numeric else cell + blank
