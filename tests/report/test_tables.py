from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.examples import examples
from tests.results.records import complexity, failure, latency, points, sweep
from wnexplore.report.export import export
from wnexplore.report.layout import TableLayout, layout
from wnexplore.report.tables import ConsoleTable, table
from wnexplore.results.frame import frame

ONE = frame(sweep())
TWO = frame([*sweep(), *sweep("shufflenet_v2_x1_0")])


def stars(contents: TableLayout) -> int:
    return sum("★" in row[0] for row in contents.rows)


def printed(frame: pd.DataFrame, encoding: str = "utf-8", width: int = 100) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width, no_color=True).print(table(frame))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("rows", [ONE, TWO], ids=["one backbone", "two backbones"])
def test_fits_a_hundred_columns_uncut(rows: pd.DataFrame) -> None:
    text = printed(rows)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    assert "1.35 M" in text


def test_plain_ascii_where_nothing_else_can_be_encoded() -> None:
    text = printed(ONE, "ascii")
    assert "+-" in text
    assert "\n*" in text


def test_constant_columns_go_to_title_and_caption_and_empty_ones_away() -> None:
    contents = layout(ONE)
    assert contents.title == "shufflenet_v2_x0_5"
    assert "float32" in contents.caption[0]
    assert "3 seeds" in contents.caption[0]
    assert not {"backbone", "dtype", "energy (J)", "compile (s)", "experts"} & set(contents.headings)
    assert {"batch", "latency (ms)", "memory (MB)", "top-1 (%)"} < set(contents.headings)


def test_failures_are_marked_and_explained_below() -> None:
    text = printed(ONE)
    assert "✗1 out of memory: CUDA out of memory: tried to allocate 2.00 GiB" in text
    assert "[enforce fail]" in text  # no markup
    assert sum(layout(ONE).failed) == 2


def test_pareto_marks_are_explained() -> None:
    assert "★ Pareto-optimal in top-1 (larger), FLOPs (smaller)\n" in printed(ONE)
    assert "★" not in "".join(layout(ONE, pareto=()).caption)
    in_what = ("top1", "latency_ms")
    strict = layout(ONE, pareto=in_what, strict=True)
    assert any(line.endswith("latency (smaller), latencies by their medians") for line in strict.caption)
    assert 0 < stars(strict) < stars(layout(ONE, pareto=in_what))


def test_warnings_are_marked_and_each_kind_is_explained_once() -> None:
    kinds = (("drift",), ("drift", "throttled"), (), ("from_the_future",))
    records = [latency(p, warnings=point_kinds) for p, point_kinds in zip(points(), kinds, strict=False)]
    failed = failure("training", points()[0], error="diverged")
    contents = layout(frame([*records, failed]))
    assert [row[0] for row in contents.rows] == ["⚠✗1", "⚠", "", "⚠"]
    lines = [line for line in contents.caption if line.startswith("⚠")]
    assert [line.partition(":")[0] for line in lines] == [
        *("⚠ drift (2 rows)", "⚠ throttled (1 row)", "⚠ from the future (1 row)"),
    ]
    assert "latency_ratio" in lines[0]
    assert "\n!" in printed(frame(records), "ascii")
    assert "!" not in printed(frame([latency(points()[0])]), "ascii")


def test_every_mark_has_a_counterpart_in_latex_and_markdown() -> None:
    rows = frame([*sweep(), latency(points()[0], batch_size=7, warnings=("drift",))])
    latex, markdown = str(export(rows, "latex")), str(export(rows, "markdown"))
    assert all(mark in markdown for mark in "★⚠✗")
    assert not any(mark in latex for mark in "★⚠✗")
    assert "$\\triangle$ drift (1 row)" in latex


def test_a_narrow_console_does_without_columns_and_says_so() -> None:
    record = latency(points()[0])
    costly = replace(record, value={**record.value, "energy_j": 0.0123, "compile_s": 61.5})
    rows = frame([*sweep(), replace(costly, protocol={**record.protocol, "runtime": "compile"})])
    wide, narrow, narrower = (printed(rows, width=width) for width in (140, 120, 96))
    assert "no room" not in wide
    assert all(unit in wide for unit in ("(MB)", "(J)", "(s)"))
    assert "no room for energy (J), compile (s)" in narrow
    assert "no room for memory (MB), energy (J), compile (s)" in narrower
    for text, width in ((narrow, 120), (narrower, 96)):
        body = text.partition("─")[2]
        assert "…" not in body
        assert max(len(line) for line in text.splitlines()) <= width
    assert "no room" not in str(export(rows, "markdown"))


def test_what_rows_are_marked_for_is_always_shown() -> None:
    rows = frame([*sweep(), *sweep("shufflenet_v2_x1_0")])
    contents = layout(rows, pareto=("peak_memory_mb",))
    assert "memory (MB)" not in {contents.headings[index] for index in contents.spare}


def test_one_count_only() -> None:
    contents = layout(frame([complexity(points()[0])]))
    assert contents.headings == ("method", "params", "FLOPs")
    assert contents.rows == (("plain", "350.00 k", "40.70 M"),)


def test_no_rows() -> None:
    assert printed(frame([])) is not None


_CELL = st.text(st.sampled_from("aé中 ±1.…x"), max_size=9).map(str.strip)


@examples(50)
@given(st.lists(st.tuples(_CELL, _CELL, _CELL), min_size=1, max_size=5), st.integers(3, 40), st.booleans())
def test_many_rows_are_set_as_few_are(rows: list[tuple[str, ...]], width: int, spare: bool) -> None:
    """Of many rows rich sets the head alone: the lines are those that it makes of each."""
    none = (False,) * len(rows)
    headings, numeric = ("one (ms)", "two", "3"), (False, True, True)
    contents = TableLayout("title", headings, numeric, tuple(rows), none, ("note",), (0, 2) if spare else ())

    def printed(few: int) -> str:
        stream = io.StringIO()
        Console(file=stream, width=width, no_color=True).print(ConsoleTable(contents, few))
        return stream.getvalue()

    assert printed(few=0) == printed(few=1000)
