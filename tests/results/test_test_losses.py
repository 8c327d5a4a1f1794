"""The test loss of trainings, of which less is better, from records to tables, files, fronts and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.results.records import complexity, points, trained, training
from wnexplore.design.point import DesignPoint
from wnexplore.report.export import export
from wnexplore.report.figures import scatter
from wnexplore.report.heatmap import heat_infos
from wnexplore.report.layout import layout
from wnexplore.report.learning_curves import CurvePanel, curve_infos
from wnexplore.report.pick_table import why
from wnexplore.report.scatter import ScatterPanel, scatter_info
from wnexplore.results import filters
from wnexplore.results.columns import COLUMNS, LEARNED, difference
from wnexplore.results.compare import versus
from wnexplore.results.frame import cells, frame
from wnexplore.results.fronts import pareto_rows
from wnexplore.results.pick import pick
from wnexplore.results.record import Record

PLAIN, SE, CONDCONV, WEIGHTNET = points()[:4]
FIGURES = tuple(f"test_loss{part}" for part in ("", "_low", "_high", "_diff", "_diff_low", "_diff_high"))


def seeds(point: DesignPoint, losses: Sequence[float | None], top1: float = 90.0) -> list[Record]:
    """A training for each of `losses`; None is one of an earlier version, which has none."""
    records = [training(point, top1, seed=seed) for seed in range(len(losses))]
    figures = [{} if loss is None else {"test_loss": loss} for loss in losses]
    return [replace(r, value={**r.value, **more}) for r, more in zip(records, figures, strict=True)]


def row(records: list[Record], point: DesignPoint) -> dict[str, Any]:
    rows = frame(records)
    at = cells(rows, "method").index(point.method)
    return {name: cells(rows, name)[at] for name in COLUMNS}


def test_means_and_differences_are_those_of_the_seeds_that_have_it() -> None:
    plain, se = [0.5, 0.75, 1.0, 0.25], [0.25, 0.25, 0.875, 0.25]
    found = row(seeds(PLAIN, plain) + seeds(SE, se), SE)
    assert found["test_loss"] == sum(se) / 4
    half = 3.182446 * 0.3125 / 2  # t(0.975, 3) from a printed table, standard deviation 5/16
    # No loss is below 0.
    assert (found["test_loss_low"], found["test_loss_high"]) == (0, pytest.approx(0.40625 + half))
    # Of 4 differences the interval is from the smallest to the largest.
    assert [found[name] for name in FIGURES[3:]] == [-0.21875, -0.5, 0]
    later = row(seeds(PLAIN, [None, *plain[1:]]) + seeds(SE, se), SE)
    assert (later["test_loss"], later["test_loss_diff"]) == (found["test_loss"], pytest.approx(-0.625 / 3))
    assert later["seeds"] == 4


def test_of_records_of_before_it_is_empty_everywhere() -> None:
    rows = frame([complexity(PLAIN), *seeds(PLAIN, [None] * 3), *seeds(SE, [None] * 3)])
    assert all(rows[name].isna().all() for name in FIGURES)
    (first, _) = csv.DictReader(io.StringIO(str(export(rows, "csv"))))
    assert [first[name] for name in FIGURES] == [""] * 6
    assert not any("loss" in heading for heading in layout(rows).headings)
    assert not any("loss" in line for line in layout(rows).caption)
    mixed = frame([*seeds(PLAIN, [None] * 3), *seeds(SE, [0.5] * 3)])
    contents = layout(mixed)
    at = contents.headings.index("test loss (nats)")
    assert [line[at] for line in contents.rows] == ["", "0.500 ± 0.000"]
    assert "Δ test loss (nats)" not in contents.headings


def test_the_table_shows_it_with_its_difference_and_says_over_what() -> None:
    records = seeds(PLAIN, [0.5, 0.6, 0.7, 0.8, 0.9]) + seeds(SE, [0.4, 0.55, 0.6, 0.75, 0.8])
    contents = layout(frame(records))
    at = contents.headings.index("Δ test loss (nats)")
    assert contents.rows[1][at].startswith("−0.080 [−0.1")
    assert any(
        "top-1 (percentage points) and test loss (nats) over plain's" in line for line in contents.caption
    )


def test_less_is_better_in_fronts_picks_comparisons_and_conditions() -> None:
    # By top-1 the order is the other way round.
    figures = {PLAIN: (1.0, 90.0), SE: (0.5, 80.0), CONDCONV: (0.75, 85.0)}
    records = [
        r for p, (loss, top1) in figures.items() for r in seeds(p, [loss, loss + 0.01, loss + 0.02], top1)
    ]
    records += [complexity(point) for point in figures]
    rows = frame(records)
    assert pareto_rows(rows, ("test_loss", "params")) == [False, True, False]
    assert pareto_rows(rows, ("top1", "params")) == [True, False, False]
    found = pick(rows, "test_loss")
    assert (found.take.point, found.runner_up and found.runner_up.point) == (SE, CONDCONV)
    assert "smallest test loss of 3 points: 0.510 ± 0.025 nats" in why(found)
    assert pick(rows, "test_loss", where="test_loss > 0.6").take.point == CONDCONV
    equal = frame(seeds(PLAIN, [1.0] * 3) + seeds(SE, [0.5] * 3))
    assert pick(equal, "top1").suggestion == "test_loss"
    assert pick(equal, "top1", prefer=["test_loss"]).take.point == SE
    assert cells(filters.where(rows, "test_loss < 0.8"), "method") == ["se", "condconv"]
    assert cells(filters.sort(rows, "test_loss"), "method") == ["se", "condconv", "plain"]
    half = [replace(r, value={**r.value, "test_loss": r.value.get("test_loss", 0) / 2}) for r in records[:9]]
    (better, *_) = versus(rows, frame(half), "test_loss").pairs
    (worse, *_) = versus(frame(half), rows, "test_loss").pairs
    assert (better.verdict, worse.verdict, worse.worsening) == ("better", "worse", pytest.approx(2))


def test_a_difference_has_no_direction_of_its_own() -> None:
    assert {"top1", "ap", "test_loss"} <= {column.name for column in LEARNED}
    assert {COLUMNS[f"{column.name}_diff"].better for column in LEARNED} == {None}
    assert difference(-0.00123, -0.0031, -0.00021, COLUMNS["test_loss_diff"]) == "−0.0012 [−0.0031, −0.0002]"


def test_the_front_of_a_plot_goes_through_the_lower_losses() -> None:
    figures = {PLAIN: (1.0, 1), SE: (0.5, 2), CONDCONV: (0.75, 3)}
    records = [record for p, (loss, _) in figures.items() for record in seeds(p, [loss] * 3)]
    records += [complexity(point, params) for point, (_, params) in figures.items()]
    (panel,) = scatter_info(frame(records), "params", "test_loss").panels
    assert isinstance(panel, ScatterPanel)
    assert panel.front == ((1, 1.0), (2, 0.5))
    assert panel.y.label == "Test loss (nats)"
    scatter(frame(records), "params", "test_loss")


def with_curve(point: DesignPoint, losses: list[float | None], **protocol: Any) -> Record:
    record = trained(point, [50.0, 60.0, 70.0], **protocol)
    return replace(
        record,
        value={**record.value, "test_loss": losses[-1]},
        samples={**record.samples, "tested_loss": losses},  # type: ignore[dict-item]
    )


def curve_panels(records: list[Record]) -> list[CurvePanel]:
    infos = curve_infos(frame(records), records).values()
    return [panel for info in infos for panel in info.panels if isinstance(panel, CurvePanel)]


def test_its_curve_leaves_out_tests_of_before_it_was_kept() -> None:
    records = [with_curve(PLAIN, [None, 1.0, 0.5], seed=0), with_curve(PLAIN, [2.0, 1.5, 0.75], seed=1)]
    *_, panel = curve_panels(records)
    assert panel.y.label == "Test loss (nats)"
    (curve,) = panel.curves
    assert (curve.xs, curve.ys) == ((1, 3, 9), (2.0, 1.25, 0.625))


def test_curves_of_before_are_drawn_as_they_were() -> None:
    old, new = trained(PLAIN, [50.0, 60.0, 70.0]), with_curve(PLAIN, [2.0, 1.5, 0.75], dataset="cifar10")
    assert [panel.y.label for panel in curve_panels([new])][2:] == ["Test loss (nats)"]
    assert [panel.title for panel in curve_panels([old, new])] == ["digits", "digits", "cifar10", "cifar10"]


def test_heat_maps_have_it() -> None:
    grid = [point for point in points() if point.M is not None]
    (info,) = heat_infos(frame([r for point in grid for r in seeds(point, [0.5] * 3)])).values()
    assert [panel.title for panel in info.panels] == ["Top-1 accuracy (%)", "Test loss (nats)"]
