from __future__ import annotations

import builtins
import csv
import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.results.records import SMALL, failure, latency, points, sweep
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.export import FORMATS, export
from wnexplore.results.columns import COLUMNS
from wnexplore.results.frame import cells, frame

TABLE = frame(
    [*sweep(), latency(points()[0], 0.1 + 0.2, batch_size=7), latency(points()[0], 5e-324, batch_size=8)]
)
TEXT = ("M", "G")


def expected(name: str) -> list[Any]:
    return [str(v) if v is not None and name in TEXT else v for v in cells(TABLE, name)]


def test_csv_reads_back_bit_for_bit() -> None:
    text = export(TABLE, "csv")
    assert isinstance(text, str)
    header, *rows = csv.reader(io.StringIO(text))
    assert header == list(COLUMNS)
    read = {"number": float, "count": int, "whole": int}
    for index, (name, column) in enumerate(COLUMNS.items()):
        convert: Any = read.get(column.kind, str)
        assert [convert(row[index]) if row[index] else None for row in rows] == expected(name)


def test_json_reads_back_bit_for_bit() -> None:
    rows = json.loads(export(TABLE, "json"), parse_constant=lambda name: pytest.fail(name))
    assert [list(row) for row in rows] == [list(COLUMNS)] * len(TABLE)
    for name in COLUMNS:
        assert [row[name] for row in rows] == expected(name)


def test_parquet_reads_back_bit_for_bit() -> None:
    data = export(TABLE, "parquet")
    assert isinstance(data, bytes)
    table = pq.read_table(io.BytesIO(data))
    assert table.column_names == list(COLUMNS)
    for name in COLUMNS:
        assert table[name].to_pylist() == expected(name)


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **keys: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **keys)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'wnexplore\[parquet\]'"):
        export(TABLE, "parquet")


def test_errors_cannot_break_markdown_or_latex() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", **SMALL)  # type: ignore[arg-type]
    table = frame([failure("complexity", point, error="a|b_c 50% & $x$ {y} \\z\n#1 [é]")])
    markdown, latex = export(table, "markdown"), export(table, "latex")
    assert "a\\|b\\_c 50% & \\$x\\$ {y} \\\\z #1" in str(markdown)
    assert "a\\textbar{}b\\_c 50\\% \\& \\$x\\$ \\{y\\} \\textbackslash{}z \\#1" in str(latex)


def test_papers_get_units_in_the_headings() -> None:
    markdown = str(export(TABLE, "markdown")).splitlines()
    assert "| params (k) | FLOPs (M) |" in markdown[2]
    assert len({line.count(" | ") for line in markdown if line.startswith("|")}) == 1
    latex = str(export(TABLE, "latex"))
    assert "\\toprule" in latex
    assert "$\\pm$" in latex


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows_are_no_error(name: str) -> None:
    assert export(frame([]), name)


def test_unknown_format() -> None:
    with pytest.raises(InputError, match="'csv'"):
        export(TABLE, "cvs")
