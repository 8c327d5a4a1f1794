from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import kendalltau

from tests.results.records import complexity, latency, points, sweep, training
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.figure_files import save
from wnexplore.report.figures import rank_disagreement, standard_set
from wnexplore.report.rank_disagreement import can_rank, rank_info
from wnexplore.report.scatter import ScatterPanel
from wnexplore.results.frame import cells, frame, numbers
from wnexplore.results.rank_correlation import ranks, tau_b

TABLE = frame(sweep())
_few = st.integers(1, 5)
_pairs = st.lists(st.tuples(_few, _few), min_size=2, max_size=12)


def panels(*names: str, **keys: str) -> list[ScatterPanel]:
    return [panel for panel in rank_info(TABLE, *names, **keys).panels if isinstance(panel, ScatterPanel)]


@settings(deadline=None)
@given(st.lists(_few, min_size=1, max_size=12))
def test_equal_values_share_the_mean_of_their_ranks(values: list[int]) -> None:
    networks = [DesignPoint.of("resnet18", num_classes=number + 1) for number in range(len(values))]
    counts = frame([complexity(point, params=value) for point, value in zip(networks, values, strict=True)])
    below_and_alike = [(sum(v < value for v in values), values.count(value)) for value in values]
    assert ranks(counts, "params") == [below + (alike + 1) / 2 for below, alike in below_and_alike]


def test_the_most_accurate_has_rank_1() -> None:
    trained = zip(points(), (91.0, 95.0, 93.0, 91.0), strict=False)
    assert ranks(frame([training(point, top1) for point, top1 in trained]), "top1") == [3.5, 1, 2, 3.5]


@settings(deadline=None)
@given(_pairs)
def test_tau_against_counting_pairs(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[index]) for pair in pairs] for index in (0, 1))
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    signs = [
        (math.copysign(1, x - v) * (x != v), math.copysign(1, y - w) * (y != w))
        for (x, y), (v, w) in itertools.combinations(zip(a, b, strict=True), 2)
    ]
    concordance = sum(x * y for x, y in signs)
    untied = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    assert tau_b(a, b) == pytest.approx(concordance / untied)


@settings(deadline=None)
@given(st.lists(st.tuples(_few, st.integers(1, 50)), min_size=2, max_size=60))
def test_tau_is_scipys_to_the_last_digit(pairs: list[tuple[int, int]]) -> None:
    a, b = ([pair[index] / 7 for pair in pairs] for index in (0, 1))
    found, theirs = tau_b(a, b), float(kendalltau(a, b, variant="b").statistic)
    assert found == theirs or (math.isnan(found) and math.isnan(theirs))


def test_a_panel_for_each_protocol_with_its_points_and_tau() -> None:
    first, second = panels()
    assert [panel.title.split(" · ")[0] for panel in (first, second)] == ["batch 1", "batch 16"]
    for panel, batch in ((first, 1), (second, 16)):
        rows = [
            (x, y)
            for x, y, batch_size in zip(
                numbers(TABLE, "flops"), numbers(TABLE, "latency_ms"), cells(TABLE, "batch_size"), strict=True
            )
            if batch_size == batch and x is not None and y is not None
        ]
        tau = tau_b(*zip(*rows, strict=True))
        assert panel.title == f"batch {batch} · {len(rows)} points, Kendall's τ-b = {tau:.2f}"
        drawn = [point for series in panel.series for point in series.points]
        assert sorted(point.y for point in drawn) == [float(n) for n in range(1, len(rows) + 1)]
        assert {series.name for series in panel.series} == {"Plain", "SE", "CondConv", "WeightNet (M, G)"}
        assert {point.label for point in drawn} >= {"(2, 1)", "(8, 2)", ""}


def test_what_depends_on_no_protocol_is_ranked_once() -> None:
    (panel,) = panels("flops", "top1")
    assert panel.title.startswith("12 points, ")
    # FLOPs grow with accuracy here: the best of the one are the worst of the other.
    assert "τ-b = -" in panel.title


def test_all_alike_have_no_tau() -> None:
    same = frame([complexity(p, params=n) for n, p in enumerate(points())])
    (panel,) = rank_info(same, "flops", "params").panels
    assert panel.title == "12 points, all of one rank"


def test_of_many_labels_those_farthest_from_the_diagonal_stay() -> None:
    both = frame([*sweep(), *sweep("shufflenet_v2_x1_0")])
    (panel, _) = rank_info(both, "params", "latency_ratio").panels
    assert isinstance(panel, ScatterPanel)
    generated = [p for s in panel.series for p in s.points if "WeightNet" in s.name]
    off = {label: [abs(p.x - p.y) for p in generated if bool(p.label) is label] for label in (True, False)}
    assert (len(off[True]), len(off[False])) == (16, 2)
    assert min(off[True]) >= max(off[False])


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    save(rank_disagreement(TABLE, "params", "top1"), tmp_path / "ranks.png")
    with Image.open(tmp_path / "ranks.png") as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(1 << 16) or []) > 10


def test_it_belongs_to_the_standard_set_from_three_points_on() -> None:
    for count, there in ((2, False), (3, True)):
        few = frame([r for p in points()[:count] for r in (complexity(p), latency(p), training(p))])
        assert can_rank(few) is there
        assert ("rank_disagreement" in standard_set(few)) is there
    spread = [latency(p, batch_size=n + 1) for n, p in enumerate(points())]
    assert not can_rank(frame([*(complexity(p) for p in points()), *spread]))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("flop", "latency_ms", "'flop'.*'flops'"),
        ("method", "latency_ms", "holds text"),
        ("flops", "batch_size", "'batch_size'"),
        ("flops", "energy_j", "column 'energy_j' is empty"),
    ],
)
def test_what_cannot_be_ranked_is_refused(x: str, y: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_info(TABLE, x, y)


def test_two_points_are_refused() -> None:
    with pytest.raises(InputError, match="3 points"):
        rank_info(frame([r for p in points()[:2] for r in (complexity(p), latency(p))]))
