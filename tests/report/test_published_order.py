"""The plot of a run's accuracies over the published ones."""

from __future__ import annotations

import pytest

from tests.results.records import SMALL, training
from wnexplore.design.point import DesignPoint
from wnexplore.report.published_order import order_info
from wnexplore.report.scatter import ScatterPanel
from wnexplore.results.published_ranking import published_rankings
from wnexplore.results.record import Record

HALF, ONE = "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"
DESIGNS = {
    DesignPoint.of(HALF, **SMALL): 40.0,  # type: ignore[arg-type]
    DesignPoint.of(HALF, "weightnet", M=8, G=1, **SMALL): 50.0,  # type: ignore[arg-type]
    DesignPoint.of(HALF, "condconv", experts=2, **SMALL): 45.0,  # type: ignore[arg-type]
    DesignPoint.of(ONE, "se", **SMALL): 60.0,  # type: ignore[arg-type]
}


def records(**protocol: object) -> list[Record]:
    return [
        training(point, top1 + seed, seed=seed, **protocol)
        for point, top1 in DESIGNS.items()
        for seed in range(3)
    ]


def test_a_point_for_each_design_with_its_intervals() -> None:
    info = order_info(published_rankings(records()))
    (panel,) = info.panels
    assert isinstance(panel, ScatterPanel)
    assert {(point.x, point.y, point.label) for point in panel.points} == {
        (60.3, 41, ""),
        (66.0, 51, "(8, 1)"),
        (62.7, 46, "2"),
        (70.4, 61, ""),
    }
    se = next(point for point in panel.points if point.x == 70.4)
    assert se.x_interval == pytest.approx((70.3, 70.5))
    assert se.y_interval is not None
    assert se.y_interval[0] < 60.1
    assert panel.title == "4 designs, Kendall's τ-b +1.00 [1.00, 1.00]"
    assert "digits · 5 epochs" in info.note


def test_a_panel_for_each_setting() -> None:
    panels = order_info(published_rankings([*records(lr=0.1), *records(lr=0.2)])).panels
    assert [panel.title.partition(" · ")[0] for panel in panels] == ["lr 0.1", "lr 0.2"]
