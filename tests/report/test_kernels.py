"""Figures, table and CSV of generated kernels."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from wnexplore.cli.terminal import PlainConsole
from wnexplore.errors import RunError
from wnexplore.report.depth import by_depth
from wnexplore.report.figure_files import save
from wnexplore.report.figures import kernel_figures
from wnexplore.report.kernel_alphas import alpha_info, render_alpha
from wnexplore.report.kernel_map import map_info, render_map
from wnexplore.report.kernel_similarity import render_similarity, similarity_info
from wnexplore.report.kernel_table import render, to_csv
from wnexplore.results.layer_kernels import KernelAnalysis, KernelMap, LayerKernels


def _layer(name: str, cosines: list[float], same_class: list[bool], **others: Any) -> LayerKernels:
    given: dict[str, Any] = {
        "in_channels": 8,
        "out_channels": 16,
        "kernel_size": (3, 3),
        "stride": (2, 2),
        "groups": 1,
        "inputs": 5,
        "inputs_per_group": 2,
        "samples": 3,
        "alpha_mean": 0.5,
        "alpha_stds": np.array([0.0, 0.1, 0.2, 0.3, 0.4]),
        "alpha_dead": 0.2,
        "alpha_saturated": 0.4,
    }
    return LayerKernels(
        name=name, cosines=np.array(cosines), same_class=np.array(same_class, dtype=bool), **given | others
    )


def _analysis(*layers: LayerKernels, map: KernelMap | None = None) -> KernelAnalysis:
    return KernelAnalysis("resnet18 weightnet M=2 G=1", "digits", tuple("abcdefghijklmn"), layers, map)


TWO = _analysis(
    _layer("layer1.conv1", [0.5, 0.7, 0.9], [True, False, False]),
    _layer("layer2.conv1", [-0.1, 0.25, 1 / 3], [False, False, False], alpha_saturated=None),
    map=KernelMap("layer2.conv1", np.arange(6.0).reshape(3, 2), np.array([1, 0, 1])),
)


def test_the_csv_has_every_digit_and_nothing_for_what_is_not_known() -> None:
    first, second = csv.DictReader(io.StringIO(to_csv(TWO)))
    assert list(first) == [
        *("layer", "in_channels", "out_channels", "kernel_size", "stride", "groups", "inputs", "lambda"),
        *("samples", "cosine_mean", "cosine_std", "cosine_min", "cosine_within_class"),
        *("cosine_between_classes", "alpha_mean", "alpha_std", "alpha_dead", "alpha_saturated"),
    ]
    assert (first["layer"], first["kernel_size"], first["stride"], first["inputs"]) == (
        *("layer1.conv1", "3x3", "2x2", "5"),
    )
    assert float(first["cosine_mean"]) == pytest.approx(0.7)
    assert float(first["cosine_std"]) == pytest.approx((2 * 0.2**2 / 3) ** 0.5)
    assert (float(first["cosine_within_class"]), float(first["cosine_between_classes"])) == (0.5, 0.8)
    assert float(first["alpha_std"]) == pytest.approx(0.2)
    assert float(second["cosine_mean"]) == (-0.1 + 0.25 + 1 / 3) / 3
    assert (second["cosine_within_class"], second["alpha_saturated"]) == ("", "")


def test_the_table_says_the_same_for_people() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in render(TWO):
        console.print(part)
    text = console.export_text()
    rows = [line.split() for line in text.splitlines() if line.startswith("layer")][1:]
    assert rows[0] == [
        *("layer1.conv1", "8→16", "3×3", "/2", "g1", "5", "2", "0.7000", "±", "0.1633", "0.5000"),
        *("0.5000", "0.8000", "0.500", "0.200", "20.0%", "40.0%"),
    ]
    assert rows[1][-3:] == ["0.500", "0.200", "20.0%"]
    assert re.search(r"\b3\b.*images.*\b3\b.*pairs", text)


def test_what_differs_from_one_by_little_is_not_rounded_to_it() -> None:
    cosines = [0.9999, *np.linspace(0.99998, 1, 999).tolist()]
    analysis = _analysis(_layer("conv", cosines, [False] * 1000))
    console = Console(width=200, record=True, file=io.StringIO())
    for part in render(analysis):
        console.print(part)
    assert "0.9999899 ± 0.0000064" in console.export_text()
    assert " 0.99990" in similarity_info(analysis).note


def test_histograms_reach_from_the_lowest_to_one_with_the_means_marked() -> None:
    info = similarity_info(TWO)
    assert (info.edges[0], info.edges[-1]) == (pytest.approx(-0.1, abs=0.01), 1)
    first, second = info.ridges
    assert [first.name, second.name] == ["layer1.conv1", "layer2.conv1"]
    assert (first.mean, first.within, second.within) == (pytest.approx(0.7), 0.5, None)
    assert sum(first.heights) == 3, "three pairs in bins of their own"
    (ax,) = render_similarity(info).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["layer2.conv1", "layer1.conv1"]
    # The first layer is the upper row.
    means = {tuple(line.get_xdata()): line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2}  # type: ignore[arg-type, index]
    assert means == {(first.mean, first.mean): 1, (second.mean, second.mean): 0}


def test_kernels_that_never_change_have_an_axis_all_the_same() -> None:
    info = similarity_info(_analysis(_layer("conv", [1.0, 1.0, 1.0], [True, True, False])))
    assert 0.9999 < info.edges[0] < 1
    assert info.ridges[0].heights[-1] == 1
    assert sum(info.ridges[0].heights) == 1
    with pytest.raises(RunError, match="zero"):
        similarity_info(_analysis(_layer("conv", [], [])))


def test_few_pairs_far_below_the_others_are_reported_and_not_drawn() -> None:
    cosines = np.linspace(0.9, 1, 999).tolist()
    info = similarity_info(_analysis(_layer("conv", [-0.75, *cosines], [False] * 1000)))
    assert 0.89 < info.edges[0] < 0.91
    assert re.search(r"0\.5%.* -0\.750", info.note)


def test_alpha_is_drawn_in_percent_and_by_quantiles() -> None:
    info = alpha_info(TWO)
    assert info.layers[0].quantiles == pytest.approx((0.02, 0.1, 0.2, 0.3, 0.38))
    assert (info.layers[0].dead, info.layers[0].saturated, info.layers[1].saturated) == (20, 40, None)
    assert info.groups == (("layer1.conv1", (0,)), ("layer2.conv1", (1,)))
    assert "10 entries in 2 layers" in info.note
    above, below = render_alpha(info).axes
    assert np.asarray(above.lines[0].get_ydata()).tolist() == pytest.approx([0.2, 0.2])
    assert np.asarray(below.lines[0].get_ydata()).tolist() == [20, 20]


def test_classes_beyond_the_tenth_share_a_colour() -> None:
    labels = np.array([*range(12), *range(12), 11, 10])
    points = np.column_stack([np.arange(26.0), labels])
    info = map_info(_analysis(TWO.layers[0], map=KernelMap("conv", points, labels)))
    assert info is not None
    others, *coloured = info.clusters
    assert (others.name, others.look) == ("2 other classes", None)
    # Those with the most images come first, and of equals the first: 8 and 9 are left.
    assert [cluster.name for cluster in coloured] == [*"abcdefgh", "k", "l"]
    assert [cluster.look for cluster in coloured] == list(range(10))
    assert {y for _, y in others.points} == {8, 9}
    assert [len(cluster.points) for cluster in coloured] == [2] * 8 + [3] * 2
    legend = render_map(info).legends[0]
    assert [text.get_text() for text in legend.texts][-1] == "2 other classes"
    assert map_info(_analysis(TWO.layers[0])) is None


def test_pictures_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    assert list(kernel_figures(TWO)) == ["similarity", "alpha", "tsne"]
    again = kernel_figures(TWO)
    for name, figure in kernel_figures(TWO).items():
        save(figure, tmp_path / f"{name}.png")
        save(again[name], tmp_path / f"{name}2.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == 700
            colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or ()}
            assert any(max(c) - min(c) > 80 for c in colours if isinstance(c, tuple)), name
        assert (tmp_path / f"{name}.png").read_bytes() == (tmp_path / f"{name}2.png").read_bytes()


SHUFFLENET = [
    f"stage{s}.{b}.branch2.{c}" for s, n in ((2, 4), (3, 8), (4, 4)) for b in range(n) for c in "035"
]


@pytest.mark.parametrize(
    ("names", "largest", "expected"),
    [
        (SHUFFLENET, 54, SHUFFLENET),
        (SHUFFLENET, 20, [name[:-2] for name in SHUFFLENET[::3]]),
        (SHUFFLENET, 6, ["stage2", "stage3", "stage4"]),
        (["conv"], 6, ["conv"]),
        ([f"features.{i}.conv" for i in range(9)], 4, ["1-3", "4-6", "7-9"]),
        ([f"conv{i}" for i in range(7)], 3, ["1-3", "4-6", "7"]),
    ],
)
def test_layers_are_taken_together_by_depth(names: list[str], largest: int, expected: list[str]) -> None:
    groups = by_depth(names, largest)
    assert [name for name, _ in groups] == expected
    assert [number for _, numbers in groups for number in numbers] == list(range(len(names)))


def test_names_of_anybodys_are_nothing_but_text_in_csv_and_terminal() -> None:
    name = "=cmd|x[red]:smile:\x1b[2J\u202e"
    analysis = replace(_analysis(_layer(name, [0.5], [True])), network=name, data=name)
    (row,) = csv.DictReader(io.StringIO(to_csv(analysis)))
    assert row["layer"] == "'=cmd|x[red]:smile:\\x1b[2J\\u202e"
    console = PlainConsole(width=300)
    with console.capture() as printed:
        for part in render(analysis):
            console.print(part)
    assert printed.get().count("=cmd|x[red]:smile:\\x1b[2J\\u202e") == 3
    assert all(line.isprintable() for line in printed.get().splitlines())
