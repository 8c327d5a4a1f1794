"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from wnexplore.report.ascii import to_ascii
from wnexplore.report.layout import Layout, layout


def table(frame: pd.DataFrame, *, pareto: Sequence[str] | None = None, title: str | None = None) -> Table:
    """`frame` as a table of about 100 characters, to be printed by a rich console.

    What all rows share stands in the title (the backbone, unless `title` says otherwise) and the
    caption, columns without a value are left out. ★ marks the rows that are Pareto-optimal in the
    columns `pareto` (None: accuracy and FLOPs where trained; (): no marks); ± is the larger side of
    the 95 % interval. Rows of failed measurements are dim and marked ✗ with the number of the line
    below that says why. Where the console can't encode that, it is ASCII. Raises `InputError` for a
    column that can't be an objective.
    """
    contents = layout(frame, pareto=pareto, title=title)
    return _ConsoleTable(contents, str, _ConsoleTable(contents, to_ascii, None))


class _ConsoleTable(Table):
    """A table with an ASCII twin: only when it is printed is it known what the console can encode."""

    def __init__(self, contents: Layout, encode: Callable[[str], str], twin: Table | None) -> None:
        super().__init__(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        self._twin = twin
        # Not the table's own title and caption, which a narrow table would fold to its width.
        self._title = [Text(encode(contents.title), style="bold")] if contents.title else []
        self._caption = [Text(encode(line)) for line in contents.caption]
        for heading, numeric in zip(contents.headings, contents.numeric, strict=True):
            self.add_column(
                Text(encode(heading.replace(" (", "\n("))),
                justify="right" if numeric else "left",
                no_wrap=True,
                overflow="ellipsis",
            )
        for row, failed in zip(contents.rows, contents.failed, strict=True):
            self.add_row(*(Text(encode(cell)) for cell in row), style="dim" if failed else None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only and self._twin is not None:
            yield self._twin
        else:
            yield from self._title
            yield from super().__rich_console__(console, options)
            yield from self._caption

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        if options.ascii_only and self._twin is not None:
            return Measurement.get(console, options, self._twin)
        return super().__rich_measure__(console, options)
