from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from tests.report.records import complexity, points, sweep
from wnexplore.report.frame import frame
from wnexplore.report.layout import layout
from wnexplore.report.tables import table

ONE = frame(sweep())
TWO = frame([*sweep(), *sweep("shufflenet_v2_x1_0")])


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
    assert not {"backbone", "dtype", "memory (MB)", "experts"} & set(contents.headings)
    assert {"batch", "latency (ms)", "top-1 (%)"} < set(contents.headings)


def test_failures_are_marked_and_explained_below() -> None:
    text = printed(ONE)
    assert "✗1 out of memory: CUDA out of memory: tried to allocate 2.00 GiB" in text
    assert "[enforce fail]" in text  # no markup
    assert sum(layout(ONE).failed) == 2


def test_pareto_marks_are_explained() -> None:
    assert "★ Pareto-optimal in top-1 (larger), FLOPs (smaller)" in printed(ONE)
    assert "★" not in "".join(layout(ONE, pareto=()).caption)


def test_one_count_only() -> None:
    contents = layout(frame([complexity(points()[0])]))
    assert contents.headings == ("method", "params", "FLOPs")
    assert contents.rows == (("plain", "350.00 k", "40.70 M"),)


def test_no_rows() -> None:
    assert printed(frame([])) is not None
