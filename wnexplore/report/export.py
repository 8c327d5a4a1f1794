"""Frames as files: csv, json and parquet keep every digit, markdown and latex are for papers."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from wnexplore.design.multiplier import Setting
from wnexplore.errors import InputError, unknown
from wnexplore.report.layout import TableLayout, layout
from wnexplore.results.columns import COLUMNS
from wnexplore.results.escape import csv_cell, latex, markdown
from wnexplore.results.frame import cells


def export(
    frame: pd.DataFrame, format: str, *, pareto: Sequence[str] | None = None, strict: bool = False
) -> str | bytes:
    """`frame` in one of `FORMATS`: bytes for parquet, text that ends in a newline for the others.

    csv, json and parquet have all `COLUMNS` in order, unrounded (a float reads back as the same
    float), M and G as exact text ("2", "1/48"), and null where a figure was not measured. In csv an
    apostrophe precedes texts that a spreadsheet would take for a formula. markdown and latex have the columns
    and marks of the terminal's table with units in the headings; `pareto` and `strict` as in `tables.table`;
    LaTeX needs the package booktabs. Latencies are in ms, memory in MB, energy in J per image, compile times
    in s, accuracies in percent. Raises `InputError` for an unknown format, for parquet without pyarrow, and
    for a column that can't be an objective.
    """
    if format in _PAPER:
        return _PAPER[format](layout(frame, pareto=pareto, strict=strict, units_in_headings=True))
    if format in _EXACT:
        return _EXACT[format](frame)
    raise unknown("export format", format, FORMATS)


def _csv(frame: pd.DataFrame) -> str:
    # As objects: pandas would make floats of a column with integers and gaps.
    texts = {
        name: pd.Series(_each(csv_cell, values) if COLUMNS[name].kind in _TEXTS else values, dtype=object)
        for name, values in _columns(frame).items()
    }
    return pd.DataFrame(texts).to_csv(index=False, lineterminator="\n")


def _json(frame: pd.DataFrame) -> str:
    # As json.dumps with an indent writes it, which takes it ten times as long.
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    columns = [
        _each(encode, values) if COLUMNS[name].kind in _TEXTS else encode(values)[1:-1].split(", ")
        for name, values in _columns(frame).items()
    ]
    if not len(frame):
        return "[]\n"
    heads = [f"  {encode(name)}: ".replace("%", "%%") for name in COLUMNS]
    form = " {\n" + ",\n".join(f"{head}%s" for head in heads) + "\n }"
    return "[\n" + ",\n".join([form % row for row in zip(*columns, strict=True)]) + "\n]\n"


def _parquet(frame: pd.DataFrame) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("parquet needs pyarrow: pip install 'wnexplore[parquet]'") from None
    types = {"whole": pa.int64(), "count": pa.int64(), "number": pa.float64()}
    schema = pa.schema([(name, types.get(column.kind, pa.string())) for name, column in COLUMNS.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.table(_columns(frame), schema=schema), buffer)
    return buffer.getvalue()


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    found = {name: cells(frame, name) for name in COLUMNS}
    for values in (values for name, values in found.items() if COLUMNS[name].kind == "multiplier"):
        # By identity: hashing them takes as long as making their texts.
        texts = {key: _plain(value) for key, value in {id(value): value for value in values}.items()}
        values[:] = [texts[id(value)] for value in values]
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Setting) else value


def _each(work: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """What `work` makes of each of `values`, of which many are equal."""
    made = {value: work(value) for value in set(values)}
    return [made[value] for value in values]


_TEXTS = ("text", "multiplier")
"""The kinds of columns whose cells are texts here."""


def _markdown(contents: TableLayout) -> str:
    rules = ["---:" if numeric else ":---" for numeric in contents.numeric]
    body = _escaped(markdown, contents)
    lines = [f"| {' | '.join(row)} |" for row in (body[0], rules, *body[1:])]
    head = [f"**{markdown(contents.title)}**", ""] if contents.title else []
    return _lines([*head, *lines, *(f"\n{markdown(line)}" for line in contents.caption)])


def _latex(contents: TableLayout) -> str:
    spec = "".join("r" if numeric else "l" for numeric in contents.numeric)
    head, *body = (f"{' & '.join(row)} \\\\" for row in _escaped(latex, contents))
    caption = ". ".join(latex(text) for text in (contents.title, *contents.caption) if text)
    return _lines(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            *([f"\\caption{{{caption}.}}"] if caption else []),
            f"\\begin{{tabular}}{{{spec}}}",
            "\\toprule",
            head,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    )


def _escaped(escape: Callable[[str], str], contents: TableLayout) -> list[tuple[str, ...]]:
    """The headings and the rows, with cells made by `escape`."""
    rows = (contents.headings, *contents.rows)
    made = {cell: escape(cell) for cell in set(itertools.chain.from_iterable(rows))}
    return [tuple([made[cell] for cell in row]) for row in rows]


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


_EXACT: dict[str, Callable[[pd.DataFrame], str | bytes]] = {"csv": _csv, "json": _json, "parquet": _parquet}
_PAPER: dict[str, Callable[[TableLayout], str]] = {"markdown": _markdown, "latex": _latex}
FORMATS = (*_EXACT, *_PAPER)
"""The formats of `export`."""
MARKED = tuple(_PAPER)
"""The formats that mark Pareto-optimal rows."""
