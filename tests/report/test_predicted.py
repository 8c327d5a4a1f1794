"""Predicted latencies in figures and tables: said to be such, and of no influence on what is measured."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.results.records import complexity, latency, points
from wnexplore.report.layout import PREDICTED, STAR, layout
from wnexplore.report.scatter import ScatterPanel, scatter_info
from wnexplore.results.frame import frame
from wnexplore.results.fronts import pareto_rows


@pytest.fixture
def rows() -> pd.DataFrame:
    """Five networks, of which the last two are predicted: smaller and faster than all that are measured."""
    sizes = [(300, 9.0), (200, 12.0), (250, 15.0), (100, 2.0), (90, 3.0)]
    records = []
    for point, (params, ms) in zip(points(), sizes, strict=False):
        records += [complexity(point, params=params), latency(point, ms)]
    found = frame(records)
    assert found["latency_is"].tolist() == ["measured"] * 5
    found.loc[3:, "latency_is"] = "predicted"
    return found


def test_predicted_points_are_hollow_and_have_a_front_of_their_own(rows: pd.DataFrame) -> None:
    (panel,) = scatter_info(rows, "params", "latency_ms").panels
    assert isinstance(panel, ScatterPanel)
    assert panel.front == ((200, 12.0), (300, 9.0))
    assert panel.predicted_front == ((90, 3.0), (100, 2.0))
    assert sorted(point.y for point in panel.points if point.predicted) == [2.0, 3.0]
    labels = [str(entry.handle.get_label()) for entry in panel.legend()]
    assert {"Pareto front", "front of predicted ones", "hollow: latency predicted"} <= set(labels)
    # Counts are exact whatever is known of the latency.
    (counts,) = scatter_info(rows, "params", "flops").panels
    assert isinstance(counts, ScatterPanel)
    assert not any(point.predicted for point in counts.points)


def test_a_predicted_latency_marks_and_unmarks_no_measured_one(rows: pd.DataFrame) -> None:
    objectives = ("params", "latency_ms")
    assert pareto_rows(rows, objectives) == [True, True, False, True, True]
    assert pareto_rows(rows[:3], objectives) == [True, True, False]
    # Exact figures are compared with all.
    assert pareto_rows(rows, ("params",)) == [False, False, False, False, True]


def test_tables_say_which_latencies_are_predicted(rows: pd.DataFrame) -> None:
    found = layout(rows, pareto=("params", "latency_ms"))
    assert [row[0] for row in found.rows] == [STAR, STAR, "", STAR + PREDICTED, STAR + PREDICTED]
    assert any(line.startswith(PREDICTED) for line in found.caption)
    assert not any(line.startswith(PREDICTED) for line in layout(rows[:3], pareto=()).caption)
