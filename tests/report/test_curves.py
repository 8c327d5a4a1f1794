from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from tests.results.records import complexity, curves, failure, halved, points, sweep, trained
from wnexplore.errors import InputError
from wnexplore.report.figure_files import save
from wnexplore.report.figures import learning_curves, standard_set
from wnexplore.report.learning_curves import NAMED, CurvePanel, curve_infos
from wnexplore.report.panels import FigureInfo, render
from wnexplore.report.placement import spread
from wnexplore.report.scatter import ScatterPanel, scatter_info
from wnexplore.results import filters
from wnexplore.results.frame import frame
from wnexplore.results.record import Record

FULL = curves()
HALF = halved(FULL)
PLAIN, SE = points()[:2]


def info(records: list[Record], where: str | None = None) -> FigureInfo:
    rows = frame(records)
    (found,) = curve_infos(rows if where is None else filters.where(rows, where), records).values()
    return found


def panels(records: list[Record], where: str | None = None) -> list[CurvePanel]:
    return [panel for panel in info(records, where).panels if isinstance(panel, CurvePanel)]


def test_lines_are_means_and_bands_student_t_intervals() -> None:
    top1 = ([50.0, 70.0, 90.0], [51.0, 71.0, 91.0], [52.0, 72.0, 92.0])
    records = [trained(PLAIN, values, seed=seed) for seed, values in enumerate(top1)]
    loss, tested = panels(records)
    (curve,) = tested.curves
    assert (curve.xs, curve.ys) == ((1, 3, 9), (51, 71, 91))
    half = 4.302653 / math.sqrt(3)  # t(0.975, 2) from a printed table, standard deviation 1
    assert [high - low for low, high in curve.bands] == pytest.approx([2 * half] * 3, abs=1e-5)
    (curve,) = loss.curves
    assert curve.xs == tuple(range(1, 10))
    assert curve.ys[0] == pytest.approx(fmean(record.samples["loss"][0] for record in records))
    assert (loss.y.label, tested.y.label) == ("Training loss (nats)", "Top-1 accuracy (%)")
    assert "means over 3 seeds, bands are 95 % Student-t intervals" in info(records).note


def test_bands_of_two_seeds_are_their_range_and_of_one_nothing() -> None:
    two = [trained(PLAIN, [50.0, 70.0 + seed, 90.0 - seed], seed=seed) for seed in range(2)]
    assert panels(two)[1].curves[0].bands == ((50, 50), (70, 71), (89, 90))
    assert info(two).note.endswith("means over 2 seeds, bands are their range")
    assert info(two[:1]).note.endswith("one seed")
    assert all(low == high for low, high in panels(two[:1])[1].curves[0].bands)
    mixed = [*two, *(trained(SE, [50.0, 70.0, 90.0], seed=seed) for seed in range(3))]
    assert info(mixed).note.endswith(
        "2 to 3 seeds, bands are 95 % Student-t intervals, of 2 seeds their range"
    )


def test_bands_stay_where_values_can_be() -> None:
    records = [trained(PLAIN, [0.5 + seed, 50.0, 99.9 - 3 * seed], seed=seed) for seed in range(3)]
    bands = panels(records)[1].curves[0].bands
    assert bands[0][0] == 0
    assert bands[2][1] == 100


def test_dropped_variants_end_where_they_were_dropped() -> None:
    for panel in panels(HALF):
        ends = {curve.name: (curve.xs[-1], curve.dropped) for curve in panel.curves}
        assert sorted(ends.values()) == [(1, True)] * 8 + [(3, True)] * 3 + [(9, False)]
        assert sum(bool(curve.label) for curve in panel.curves) == 1
        assert panel.x.log
        assert panel.x.at == (1, 3, 9)
    assert not any(panel.x.log for panel in panels(FULL))
    (legend,) = learning_curves(frame(HALF), HALF).legends
    assert "dropped by halving" in [text.get_text() for text in legend.get_texts()]
    (legend,) = learning_curves(frame(FULL), FULL).legends
    assert "dropped by halving" not in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("variants", [2, 5, 7, 9, 10, 11, 12])
def test_the_legend_lies_within_the_figure(variants: int) -> None:
    records = [trained(point, [50.0, 70.0, 90.0]) for point in points()[:variants]]
    figure = learning_curves(frame(records), records)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == variants
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_each_variant_looks_like_no_other_and_methods_as_elsewhere() -> None:
    for panel in panels(FULL):
        assert len({(curve.colour, curve.dash) for curve in panel.curves}) == len(points()) == NAMED
    records = [*map(complexity, points()), *FULL]
    (scatter,) = (
        p for p in scatter_info(frame(records), "flops", "top1").panels if isinstance(p, ScatterPanel)
    )
    colours = {series.name: series.colour for series in scatter.series}
    found = {curve.name: curve.colour for curve in panels(records)[0].curves}
    assert all(found[name] == colours[name] for name in ("Plain", "SE", "CondConv"))
    assert {name for name in found if "(" in name} == {
        f"WeightNet ({point.M}, {point.G})" for point in points() if point.M is not None
    }


def test_of_too_many_variants_the_best_and_plain_have_names() -> None:
    records = [trained(p, [50.0, 60.0, 70.0 + i]) for i, p in enumerate(points())]
    more = [replace(p, activation="relu") for p in points() if p.M is not None]
    records += [trained(p, [50.0, 60.0, 90.0 + i / 10]) for i, p in enumerate(more)]
    for panel in panels(records):
        named = [curve for curve in panel.curves if curve.name]
        assert len(named) == NAMED
        assert sum("relu" in curve.name for curve in named) == len(more)
        assert "Plain" in {curve.name for curve in named}
        assert len({(curve.colour, curve.dash) for curve in named}) == NAMED
        assert len({curve.colour for curve in panel.curves if not curve.name}) == 1


def test_the_same_variants_have_names_in_all_panels() -> None:
    records = []
    for backbone, sign in (("shufflenet_v2_x0_5", 1), ("resnet18", -1)):
        some = [p for M in (1, 2, 4) for p in [replace(q, temperature=M) for q in points(backbone)]]
        some = list(dict.fromkeys(p if p.M is not None else replace(p, temperature=1) for p in some))
        records += [trained(p, [50.0, 60.0, 70.0 + sign * i / 10]) for i, p in enumerate(some)]
    names = [{curve.name for curve in panel.curves if curve.name} for panel in panels(records)]
    assert "Plain" in set.intersection(*names)
    assert 1 < len(set.union(*names)) <= NAMED


def test_of_very_many_unnamed_variants_the_range_is_drawn() -> None:
    panel = panels(HALF)[0]
    unnamed = tuple(replace(curve, name="", label="", bands=()) for curve in panel.curves)
    figure = render(FigureInfo((replace(panel, curves=unnamed, few=len(unnamed) - 1),), columns=1))
    ax, *_ = figure.axes
    (area,) = ax.collections
    drawn = {(float(x), float(y)) for x, y in np.asarray(area.get_paths()[0].vertices)}
    values: dict[float, list[float]] = {}
    for curve in unnamed:
        for x, y in zip(curve.xs, curve.ys, strict=True):
            values.setdefault(x, []).append(y)
    assert {(x, pick(ys)) for x, ys in values.items() for pick in (min, max)} <= drawn
    crossed = [line for line in ax.lines if line.get_marker() == "X"]
    ends = {(curve.xs[-1], curve.ys[-1]) for curve in unnamed if curve.dropped}
    assert ends
    assert {(x, y) for line in crossed for x, y in np.asarray(line.get_xydata())} == ends


def test_rows_that_were_filtered_out_are_not_drawn() -> None:
    assert len(panels(FULL, "method == 'weightnet'")[0].curves) == 9
    assert {curve.name for curve in panels(HALF, "epochs == 9")[0].curves} == {"WeightNet (8, 4)"}
    assert curve_infos(frame(sweep()), FULL) == {}


def test_protocols_and_backbones_have_separate_panels() -> None:
    other = [replace(r, protocol={**r.protocol, "dataset": "cifar10"}) for r in FULL]
    assert [panel.title for panel in panels([*FULL, *other])] == ["digits", "digits", "cifar10", "cifar10"]
    wide = [replace(r, point=p) for p in points("resnet18")[:1] for r in FULL[:3]]
    assert [panel.title for panel in panels([*FULL, *wide])] == [
        *["shufflenet_v2_x0_5"] * 2,
        *["resnet18"] * 2,
    ]
    # What was trained anew with another learning rate has taken the place of what was.
    anew = [replace(r, protocol={**r.protocol, "lr": 0.5}) for r in FULL]
    assert len(panels([*FULL, *anew])) == 2


def test_records_from_before_tests_between_epochs_have_their_loss() -> None:
    old = [replace(r, samples={"loss": r.samples["loss"]}) for r in FULL]
    (panel,) = panels(old)
    assert panel.y.label == "Training loss (nats)"
    one = [replace(r, samples={"loss": r.samples["loss"][:1]}) for r in FULL]
    for records in (one, sweep(), [], [failure("training", PLAIN)]):
        assert curve_infos(frame(records), records) == {}
        with pytest.raises(InputError, match="2 epochs"):
            learning_curves(frame(records), records)


@pytest.mark.parametrize("records", [FULL, HALF, FULL[:1]], ids=["full", "halved", "one"])
def test_they_are_drawn_as_they_are_described(tmp_path: Path, records: list[Record]) -> None:
    figure = learning_curves(frame(records), records)
    save(figure, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert len(set(image.convert("L").tobytes())) > 10
    for ax, panel in zip(figure.axes, panels(records), strict=True):
        drawn = [tuple(map(float, line.get_ydata())) for line in ax.lines]  # type: ignore[arg-type]
        assert all(curve.ys in drawn for curve in panel.curves)
        assert sum(line.get_marker() == "X" for line in ax.lines) == sum(c.dropped for c in panel.curves)
        written = sorted(text.get_text() for text in ax.texts)
        assert written == sorted(curve.label for curve in panel.curves if curve.label)


def test_labels_at_the_ends_lie_apart_and_inside() -> None:
    figure = learning_curves(frame(FULL), FULL)
    figure.draw_without_rendering()
    for ax in figure.axes:
        window = ax.get_window_extent()
        boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
        assert len(boxes) == NAMED
        assert all(window.x0 < box.x0 and box.x1 < window.x1 for box in boxes)
        assert all(window.y0 < box.y0 and box.y1 < window.y1 for box in boxes)
        middles = [(box.y0 + box.y1) / 2 for box in boxes]
        assert all(b - a > 6 for a, b in pairwise(middles))


def test_the_standard_set_has_them_where_records_do() -> None:
    rows = frame([complexity(point) for point in points()[:2]] + FULL[:10])
    assert "learning_curves" in standard_set(rows, FULL)
    assert "learning_curves" not in standard_set(rows)


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=10), st.floats(1, 10))
def test_spread_moves_labels_apart_and_no_further_than_it_must(heights: list[float], gap: float) -> None:
    heights.sort()
    found = spread(heights, gap, -1000, 1000)
    assert len(found) == len(heights)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(found))
    if all(b - a >= gap for a, b in pairwise(heights)):
        assert found == pytest.approx(heights)

    def cost(places: list[float]) -> float:
        return sum((a - b) ** 2 for a, b in zip(places, heights, strict=True))

    noise = random.Random(len(heights))
    for _ in range(20):
        moved = [place + noise.gauss(0, gap / 5) for place in found]
        if all(b - a >= gap for a, b in pairwise(moved)):
            assert cost(found) <= cost(moved) + 1e-6


def test_spread_keeps_to_its_room() -> None:
    assert spread([0.0, 0.0, 0.0], 10, 0, 100) == [0, 10, 20]
    assert spread([100.0, 100.0, 100.0], 10, 0, 100) == [80, 90, 100]
