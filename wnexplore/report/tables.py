"""The table in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
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
    """A layout for a rich console: as wide as the console, in ASCII if it can't encode more."""

    def __init__(self, contents: TableLayout) -> None:
        self._contents = contents

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def encode(text: str) -> str:
            return to_ascii(visible(text)) if options.ascii_only else visible(text)

        spare = self._contents.spare
        for padding, count in itertools.product((1, 0), range(len(spare) + 1)):
            contents = self._contents.without(spare[:count])
            body = _table(contents, encode, padding)
            if Measurement.get(console, options.update_width(_UNBOUNDED), body).maximum <= options.max_width:
                break
        # Not rich's table title and caption, which are wrapped to the table's width.
        if contents.title:
            yield Text(encode(contents.title), style="bold")
        yield body
        yield from (Text(encode(line)) for line in contents.caption)


_UNBOUNDED = 10_000


def _table(contents: TableLayout, encode: Callable[[str], str], padding: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False, show_edge=False)
    for heading, numeric in zip(contents.headings, contents.numeric, strict=True):
        table.add_column(
            Text(encode(heading.replace(" (", "\n("))),
            justify="right" if numeric else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row, failed in zip(contents.rows, contents.failed, strict=True):
        table.add_row(*(Text(encode(cell)) for cell in row), style="dim" if failed else None)
    return table
