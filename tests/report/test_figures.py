from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.results.records import complexity, failure, latency, points, sweep, training
from wnexplore import DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.figure_files import save
from wnexplore.report.figures import scatter, standard_set
from wnexplore.report.heatmap import HeatPanel, heat_infos
from wnexplore.report.panels import GREY, FigureInfo, Panel, render
from wnexplore.report.placement import Box, Label, place
from wnexplore.report.scatter import ScatterPanel, draw_bars, scatter_info
from wnexplore.results.frame import frame
from wnexplore.results.pareto import pareto
from wnexplore.results.record import Record

RECORDS = sweep()
TABLE = frame(RECORDS)


def panels(x: str, y: str, **keys: object) -> list[ScatterPanel]:
    return [p for p in scatter_info(TABLE, x, y, **keys).panels if isinstance(p, ScatterPanel)]  # type: ignore[arg-type]


def assert_drawn(path: Path) -> None:
    with Image.open(path) as image:
        assert len(set(image.convert("L").tobytes())) > 10


def test_standard_set_is_drawn(tmp_path: Path) -> None:
    figures = standard_set(TABLE)
    assert list(figures) == [
        *("accuracy", "accuracy_latency", "latency_flops", "rank_disagreement", "heatmap"),
    ]
    for name, figure in figures.items():
        save(figure, tmp_path / f"{name}.png")
        assert_drawn(tmp_path / f"{name}.png")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_saves_the_same_bytes_every_time(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        save(scatter(TABLE.iloc[4:12], "flops", "top1"), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".svg":
        assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    if suffix == ".pdf":
        assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a", "png", "a.png.txt"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
        save(scatter(TABLE.iloc[:1], "flops", "params"), tmp_path / name)


def test_accuracy_is_drawn_once_for_all_batch_sizes() -> None:
    (panel,) = panels("flops", "top1")
    assert {series.name: len(series.points) for series in panel.series} == {
        "Plain": 1,
        "SE": 1,
        "CondConv": 1,
        "WeightNet (M, G)": 9,
    }
    assert all(p.y_interval is not None and p.x_interval is None for s in panel.series for p in s.points)
    assert len({(series.colour, series.marker) for series in panel.series}) == 4


def test_front_rises_from_left_to_right() -> None:
    (panel,) = panels("flops", "top1")
    assert len(panel.front) > 2
    assert list(panel.front) == sorted(panel.front)
    assert [y for _, y in panel.front] == sorted(y for _, y in panel.front)
    assert panels("flops", "top1", pareto=False)[0].front == ()


def test_rings_mark_what_may_be_optimal_off_the_front() -> None:
    panel, strict = panels("latency_ms", "top1")[0], panels("latency_ms", "top1", strict=True)[0]
    assert panel.front == strict.front
    drawn = [point for series in panel.series for point in series.points]
    kept = pareto([(p.x, p.y) for p in drawn], ["smaller", "larger"], [(p.x_interval, None) for p in drawn])
    assert [p.ringed or (p.x, p.y) in panel.front for p in drawn] == kept
    assert 0 < sum(point.ringed for point in drawn) < len(drawn)
    assert not any(p.ringed and (p.x, p.y) in panel.front for p in drawn)
    for unmarked in (strict, *panels("latency_ms", "top1", pareto=False), *panels("flops", "top1")):
        assert not any(point.ringed for series in unmarked.series for point in series.points)


def test_the_legend_says_what_a_ring_is() -> None:
    for strict in (False, True):
        (legend,) = scatter(TABLE, "latency_ms", "top1", strict=strict).legends
        said = [text.get_text() for text in legend.get_texts()]
        assert ("may be optimal (intervals overlap)" in said) is not strict
        assert "Pareto front" in said


def test_of_many_labels_those_on_the_front_stay() -> None:
    both = frame([*RECORDS, *sweep("shufflenet_v2_x1_0")])
    (panel,) = (p for p in scatter_info(both, "flops", "top1").panels if isinstance(p, ScatterPanel))
    labelled = [p for series in panel.series for p in series.points if p.label]
    assert 0 < len(labelled) <= 16
    assert all(p.ringed or (p.x, p.y) in panel.front for p in labelled)
    everything = [p for series in panel.series for p in series.points if "WeightNet" in series.name]
    assert all(p.label for p in everything if (p.x, p.y) in panel.front)


def test_panels_say_what_reports_them_apart_even_if_it_goes_without_saying() -> None:
    cold = [latency(point, cache="cold") for point in points()[:3]]
    both = frame([r for p in points()[:3] for r in (complexity(p), latency(p))] + cold)
    assert {p.title for p in scatter_info(both, "flops", "latency_ms").panels} == {"warm cache", "cold cache"}


def test_each_batch_size_has_its_own_panel() -> None:
    assert [panel.title for panel in panels("flops", "latency_ms")] == ["batch 1", "batch 16"]
    first, second = panels("flops", "latency_ms")
    assert sum(len(s.points) for s in first.series) == sum(len(s.points) for s in second.series) + 1


def test_devices_have_their_own_panels() -> None:
    both = frame([*RECORDS, *(latency(point, device="cuda", device_name="H100") for point in points())])
    titles = {panel.title for panel in scatter_info(both, "flops", "latency_ms").panels}
    assert titles == {
        "cpu · AMD EPYC 7B13 · batch 1",
        "cpu · AMD EPYC 7B13 · batch 16",
        "cuda · H100 · batch 1",
    }


def test_backbones_differ_in_their_markers() -> None:
    both = frame([*RECORDS, *sweep("resnet18")])
    (panel,) = (p for p in scatter_info(both, "params", "top1").panels if isinstance(p, ScatterPanel))
    assert len({(series.colour, series.marker) for series in panel.series}) == len(panel.series) == 8


def test_heat_maps_of_some_stages_and_of_all() -> None:
    points = (
        DesignPoint.of("resnet18", "weightnet", M, G, stages=stages)
        for stages in ("3", "4", None)
        for M, G in ((1, 1), (2, 1), (2, 2))
    )
    rows = frame(Record("complexity", point, {}, value={"params": 1, "flops": 2}) for point in points)
    assert list(heat_infos(rows)) == ["heatmap_stages_3", "heatmap_stages_4", "heatmap"]


def test_heat_map_has_the_grid_and_leaves_gaps() -> None:
    (info,) = heat_infos(TABLE).values()
    heats = [panel for panel in info.panels if isinstance(panel, HeatPanel)]
    assert [panel.title.split("\n")[0].split(" ")[0] for panel in heats] == [
        *("Parameters", "FLOPs", "Latency", "Latency", "Top-1"),
    ]
    assert (heats[0].M, heats[0].G) == (("1", "2", "4", "8"), ("1", "2", "4"))
    assert heats[0].values[1][0] is None
    assert heats[0].texts[1][0] == ""


@pytest.mark.parametrize("logx", [False, True])
def test_one_point_and_equal_values(tmp_path: Path, logx: bool) -> None:
    same = [r for p in points() for r in (complexity(p), latency(p, 1.0), training(p, 50.0))]
    for number, records in enumerate((same[:3], same)):
        figure = scatter(frame(records), "flops", "top1", logx=logx)
        save(figure, tmp_path / f"{number}.png")
        assert_drawn(tmp_path / f"{number}.png")
    assert heat_infos(frame(same))


def test_counts_alone_are_plotted() -> None:
    assert list(standard_set(frame([complexity(point) for point in points()[:3]]))) == ["parameters_flops"]


def test_what_is_empty_is_named_with_what_can_be_plotted() -> None:
    counts = frame([complexity(points()[0])])
    with pytest.raises(InputError, match=r"'top1'.*params, flops"):
        scatter(counts, "flops", "top1")
    with pytest.raises(InputError, match="'method'"):
        scatter(counts, "method", "flops")
    with pytest.raises(InputError, match=r"'flop'.*'flops'"):
        scatter(counts, "flop", "params")
    for records in ([], [failure("complexity", points()[0])]):
        with pytest.raises(InputError, match="plot"):
            standard_set(frame(records))


def test_too_many_series_are_refused() -> None:
    with pytest.raises(InputError, match=r"\b10\b"):
        scatter(TABLE, "flops", "top1", color="flops")


def test_labels_cover_neither_markers_nor_each_other() -> None:
    area = Box(0, 0, 200, 200)
    labels = [Label(20 + 23 * (i % 8), 30 + 45 * (i // 8), 25, 7) for i in range(32)]
    markers = [Box(label.x - 3, label.y - 3, label.x + 3, label.y + 3) for label in labels]
    placed = [box for box in place(labels, markers, [], area) if box is not None]
    assert len(placed) > 24
    for index, box in enumerate(placed):
        assert box.inside(area)
        assert not any(box.overlap(other) for other in (*markers, *placed[:index]))


def test_only_what_draws_loads_matplotlib_and_nothing_torch_or_pyplot() -> None:
    code = """
import sys
from wnexplore.report import compare_table, export, figure_files, formulation_table, histogram, kernel_table
from wnexplore.report import layout, pick_table, profile_table, published_table, rungs, tables
from wnexplore.results import filters, frame, fronts
print("matplotlib" in sys.modules)
from wnexplore.report import figures
print({"torch", "matplotlib.pyplot"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "set()"]


def test_labels_lie_in_the_area_apart_from_markers_and_one_another() -> None:
    noise = random.Random(3)
    area = Box(0, 0, 200, 150)
    places = [(noise.uniform(0, 200), noise.uniform(0, 150)) for _ in range(40)]
    markers = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    lines = [Box(x - 12, y - 1, x + 14, y + 1) for x, y in places]
    found = place([Label(x, y, 18, 7) for x, y in places[:12]], markers, lines, area)
    boxes = [box for box in found if box is not None]
    assert len(boxes) > 6
    for box in boxes:
        others = [other for other in boxes if other is not box]
        assert box.inside(area)
        assert not any(box.overlap(other) for other in (*markers, *others))


@pytest.mark.slow
def test_many_points_look_as_each_alone(tmp_path: Path) -> None:
    """What is drawn at once where it is much gives the same picture as one by one."""
    records = [
        r for point in points() for r in (complexity(point, params=len(str(point))), latency(point, 5))
    ]
    table = frame([r for place, r in enumerate(records) if r.figure == "complexity" or place % 3])
    info = scatter_info(table, "params", "latency_ms")
    pictures = []
    for few in (200, 0):
        save(render(_drawn(info, few=few)), tmp_path / f"{few}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{few}.png").convert("L"), dtype=np.int16))
    one_by_one, together = pictures
    assert one_by_one.shape == together.shape
    # Where lines cross, which lies on top, and how edges are smoothed.
    assert (abs(one_by_one - together) > 64).mean() < 1e-3
    assert (one_by_one < 128).mean() > 1e-3


def test_error_bars_are_drawn_as_matplotlib_draws_them(tmp_path: Path) -> None:
    """They reach from bound to bound, with caps, on the same pixels as those of `Axes.errorbar`."""
    bars = [(float(x), x**0.5, (x**0.5 - 0.1 * (x % 3), x**0.5 + 0.2)) for x in range(1, 12)]
    pictures = []
    for ours in (True, False):
        figure = Figure(figsize=(3, 2))
        ax = figure.subplots()
        if ours:
            draw_bars(ax, "y", bars, rasterized=False)
        else:
            xs, ys, bounds = zip(*bars, strict=True)
            reach = [[y - low for y, (low, _) in zip(ys, bounds, strict=True)]]
            reach += [[high - y for y, (_, high) in zip(ys, bounds, strict=True)]]
            ax.errorbar(xs, ys, reach, fmt="none", ecolor=GREY, elinewidth=0.7, capsize=1.5)
        ax.set(xlim=(0, 13), ylim=(0, 5))
        save(figure, tmp_path / f"{ours}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{ours}.png").convert("L"), dtype=np.int16))
    ours_, theirs = pictures
    assert (theirs < 128).sum() > 500
    assert (abs(ours_ - theirs) > 8).sum() == 0


def test_a_figure_says_that_its_many_points_have_no_error_bars() -> None:
    copies = pd.concat([TABLE.assign(params=TABLE["params"] + shift) for shift in range(2000)])
    assert "error bars" in scatter_info(copies, "params", "latency_ms").note
    assert "error bars" not in scatter_info(TABLE, "params", "latency_ms").note


def test_of_dense_panels_vector_files_hold_an_image_and_text(tmp_path: Path) -> None:
    records = [
        r for point in points() for r in (complexity(point, params=len(str(point))), latency(point, 5))
    ]
    info = scatter_info(frame(records), "params", "latency_ms")
    files = []
    for dense in (2000, 0):
        save(render(_drawn(info, few=0, dense=dense)), tmp_path / f"{dense}.svg")
        files.append((tmp_path / f"{dense}.svg").read_text())
    vectors, image = files
    assert "<image" not in vectors
    assert "<image" in image
    # Axes and legends stay text; labels have other room without error bars.
    assert min(text.count('id="text_') for text in files) > 5


def _drawn(info: FigureInfo, **limits: int) -> FigureInfo:
    """`info` with other numbers of what is drawn in one way or another."""
    changed: list[Panel] = []
    for panel in info.panels:
        assert isinstance(panel, ScatterPanel)
        changed.append(replace(panel, **limits))  # type: ignore[arg-type]
    return replace(info, panels=tuple(changed))
