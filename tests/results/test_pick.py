from __future__ import annotations

import io
import math
from collections.abc import Iterable
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.examples import examples
from tests.results.records import SMALL, complexity, failure, latency, points, sweep, training
from wnexplore.design.point import AXES, DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.pick_table import pick_dict, pick_layout, why
from wnexplore.report.tables import ConsoleTable
from wnexplore.results.columns import COLUMNS
from wnexplore.results.frame import cells, frame
from wnexplore.results.pick import Pick, pick
from wnexplore.results.point_lines import build_line
from wnexplore.results.record import Record

POINTS = points()
PLAIN, SE, CONDCONV, WEIGHTNET = POINTS[:4]


def seeds(point: DesignPoint, mean: float, spread: float = 0.0) -> list[Record]:
    """Three seeds; the half width of the interval is 4.303 / sqrt(3) = 2.484 times `spread`."""
    return [training(point, mean + spread * (seed - 1), seed=seed) for seed in range(3)]


def picked(records: Iterable[Record], objective: str = "top1", **options: Any) -> Pick:
    return pick(frame(records), objective, **options)


def methods(found: Pick) -> tuple[str, str | None]:
    return found.take.point.method, found.runner_up.point.method if found.runner_up else None


# A small spread of means over few points, so that intervals overlap often and values are often equal.
_figures = st.lists(
    st.tuples(
        *(st.integers(88, 92), st.sampled_from((0.0, 0.25, 1.0))),
        *(st.integers(4, 6), st.sampled_from((1, 2)), st.sampled_from((1, 2))),
    ),
    min_size=1,
    max_size=5,
)


@examples(25)
@given(_figures)
def test_takes_what_a_naive_search_takes(figures: list[tuple[int, float, int, int, int]]) -> None:
    records = []
    for point, (top1, spread, ms, params, flops) in zip(POINTS, figures, strict=False):
        records += [complexity(point, params, flops), latency(point, float(ms)), *seeds(point, top1, spread)]
    rows = list(zip(POINTS, figures, strict=False))
    half = 4.302652729749464 / math.sqrt(3)

    largest = max(row[1][0] for row in rows)
    tops = [row for row in rows if row[1][0] == largest]
    found = picked(records)
    assert found.take.point == min(tops, key=lambda row: row[1][3:])[0]
    best = min(tops, key=lambda row: row[1][3:])[1]
    alike = [p for p, row in rows if best[0] - row[0] <= half * (best[1] + row[1]) + 1e-9]
    assert {candidate.point for candidate in found.steps[0].alike} == set(alike)

    few = [row for row in rows if row[0] in alike]
    fastest = min(few, key=lambda row: (row[1][2], *row[1][3:]))
    assert picked(records, prefer=["latency_ms"]).take.point == fastest[0]
    smallest = min(few, key=lambda row: row[1][3:])
    assert picked(records, prefer=["params", "flops"]).take.point == smallest[0]


@pytest.mark.parametrize("objective", ["params", "flops", "top1"])
def test_without_the_one_to_take_the_runner_up_would_be_taken(objective: str) -> None:
    rows = frame(sweep())
    found = pick(rows, objective)
    axes = zip(*(cells(rows, axis) for axis in AXES), strict=True)
    others = rows[[DesignPoint(**dict(zip(AXES, axis, strict=True))) != found.take.point for axis in axes]]
    assert pick(others, objective).take == found.runner_up


def test_accuracy_whose_intervals_part_needs_no_preference() -> None:
    records = [
        *seeds(PLAIN, 90, 0.1),
        *seeds(SE, 91, 0.1),
        *(latency(p, ms) for p, ms in ((PLAIN, 4), (SE, 5))),
    ]
    found = picked(records, prefer=["latency_ms"])
    assert methods(found) == ("se", "plain")
    assert why(found) == "largest top-1 of 2 points: 91.0 ± 0.2 %; the runner-up's is 90.0 ± 0.2 %"


def test_what_overlaps_is_said_and_what_would_decide() -> None:
    records = [*seeds(PLAIN, 90, 0.1), *seeds(SE, 90.3, 0.1), latency(PLAIN, 4), latency(SE, 5)]
    records += [complexity(PLAIN), complexity(SE)]
    found = picked(records, where="params  < 2.5e6")
    assert methods(found) == ("se", "plain")
    assert why(found) == (
        "largest top-1 of 2 points with params < 2.5e6: 90.3 ± 0.2 %;"
        " the runner-up's 90.0 ± 0.2 % overlaps: --prefer latency_ms would decide"
    )
    decided = picked(records, prefer=["latency_ms"])
    assert methods(decided) == ("plain", "se")
    assert why(decided) == (
        "largest top-1 of 2 points: 90.3 ± 0.2 %; 1 more overlaps, and of these 2 this one has the"
        " smallest latency: 4.00 ± 0.08 ms, at top-1 90.0 ± 0.2 %; the runner-up's is 5.00 ± 0.10 ms"
    )


def test_each_preferred_column_but_the_last_decides_as_far_as_its_intervals_part() -> None:
    times = {PLAIN: 5.0, SE: 4.0, CONDCONV: 4.05, WEIGHTNET: 3.0}
    records = [record for p, ms in times.items() for record in (*seeds(p, 90, 0.1), latency(p, ms))]
    records += [complexity(p, 400 - number) for number, p in enumerate(times)]
    records += seeds(WEIGHTNET, 80, 0.1)  # the fastest, and no rival
    assert methods(picked(records, prefer=["latency_ms"])) == ("se", "condconv")
    found = picked(records, prefer=["latency_ms", "params"])
    assert methods(found) == ("condconv", "se")
    assert [(s.column.name, len(s.candidates), len(s.alike)) for s in found.steps] == [
        ("top1", 4, 3),
        ("latency_ms", 3, 2),
        ("params", 2, 1),
    ]
    assert "2 more overlap, and of these 3 the smallest latency: 4.00" in why(found)
    assert "1 more overlaps, and of these 2 this one has the fewest params: 398, at latency 4.05" in why(
        found
    )


def test_the_runner_up_comes_from_those_that_the_best_is_alike() -> None:
    # CONDCONV is certainly worse than SE, but neither can be told from the one to take.
    records = [*seeds(PLAIN, 92, 1.0), *seeds(SE, 91.8, 0.1), *seeds(CONDCONV, 91, 0.1)]
    records += [latency(p, ms) for p, ms in ((PLAIN, 1.0), (SE, 3.0), (CONDCONV, 2.0))]
    assert methods(picked(records, prefer=["latency_ms"])) == ("plain", "condconv")


def test_points_without_the_preferred_figure_come_last() -> None:
    records = [*seeds(PLAIN, 90, 0.1), *seeds(SE, 90.1, 0.1), latency(PLAIN), failure("latency", SE)]
    found = picked(records, prefer=["latency_ms"])
    assert methods(found) == ("plain", "se")
    assert "latency" in why(found)
    with pytest.raises(InputError, match=r"'energy_j'.*--prefer"):
        picked(records, prefer=["energy_j"])


def test_equal_points_go_by_parameters_then_flops() -> None:
    records = [complexity(PLAIN, 10, 9), complexity(SE, 10, 8), complexity(CONDCONV, 11, 1)]
    found = picked(records, "params")
    assert methods(found) == ("se", "plain")
    assert why(found) == (
        "fewest params of 3 points: 10; the runner-up's is the same, with more FLOPs:"
        " --prefer flops would decide"
    )


def test_the_only_one() -> None:
    found = picked([training(PLAIN, 90.0), complexity(PLAIN)], where="params < 1e6")
    assert (methods(found), why(found)) == (
        ("plain", None),
        "the only point with params < 1e6 that has top1: 90.0 %",
    )
    assert any("counts as exact" in line for line in pick_layout(found).caption)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("latency_ms", {}, "batch_size varies (1, 16)"),
        ("latency_ms", {"where": "params > 0"}, '--where "... and batch_size == 1"'),
        ("latency_ms", {"where": "latency_ms > 1e6"}, "'latency_ms > 1e6'"),
        ("energy_j", {}, "energy_j"),
        (
            "energy_j",
            {"where": "M == 2 and batch_size == 1"},
            "'M == 2 and batch_size == 1'",
        ),
        ("top", {}, "'top1'"),
        ("method", {}, "'method'"),
        ("rounds", {}, "'rounds'"),
        ("params", {"prefer": ["flps"]}, "'flops'"),
        ("params", {"where": "flops <"}, "character 8"),
    ],
)
def test_refuses_in_one_line(objective: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        picked(sweep(), objective, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_accuracies_of_different_trainings_and_texts_are_quoted() -> None:
    records = [training(PLAIN), training(SE, dataset="cifar 10", epochs=9)]
    with pytest.raises(InputError) as caught:
        picked(records)
    assert str(caught.value) == (
        "top1 can't be compared between protocols: dataset varies (digits, cifar 10), epochs varies (5, 9):"
        " choose one, such as --where \"dataset == 'digits' and epochs == 5\""
    )
    assert methods(picked(records, where="dataset == 'digits' and epochs == 5")) == ("plain", None)


def test_a_preferred_latency_of_several_protocols_is_that_of_most_points() -> None:
    records = [*seeds(PLAIN, 90.0, 0.5), *seeds(SE, 90.0, 0.5)]
    records += [latency(PLAIN, 1.0), latency(PLAIN, 9.0, batch_size=16), latency(SE, 8.0, batch_size=16)]
    found = picked(records, prefer=["latency_ms"])
    assert (methods(found), found.take.figures["latency_ms"].value) == (("se", "plain"), 8.0)
    assert (found.protocol["batch_size"], found.chosen_from) == (16, {"batch_size": (1, 16)})
    assert 'at batch 16 of 1, 16: another one by --where "batch_size == 16"' in pick_layout(found).caption
    assert pick_dict(found)["chosen_from"] == {"batch_size": [1, 16]}
    at_one = picked(records, prefer=["latency_ms"], where="batch_size == 1")
    assert (methods(at_one), at_one.chosen_from) == (("plain", None), {})
    kept = picked(records, where="latency_ms < 8.5")
    assert kept.chosen_from == {"batch_size": (1, 16)}


def test_protocols_of_what_nobody_asks_for_may_vary() -> None:
    found = pick(frame(sweep()), "top1")
    assert len(found.steps[0].candidates) == 12  # points, each with a row for each batch size
    # There is no one latency to prefer.
    assert found.suggestion == "params"
    assert pick(frame(sweep()), "top1", where="batch_size == 1").suggestion == "latency_ms"


_axes = st.one_of(
    st.fixed_dictionaries({"method": st.just("plain")}),
    st.fixed_dictionaries(
        {"method": st.just("condconv")},
        optional={"experts": st.sampled_from((1, 4, 8)), "stages": st.just("3+4")},
    ),
    st.fixed_dictionaries(
        {"method": st.just("weightnet")},
        optional={
            "M": st.sampled_from((1, 2, 0.5, "1/48", "4/C", "2:1+3:2+4:8")),
            "G": st.sampled_from((1, 2, "1/48")),
            "reduction": st.sampled_from((8, 16)),
            "activation": st.sampled_from(("sigmoid", "softmax")),
        },
    ),
)
_networks = st.fixed_dictionaries(
    {"backbone": st.sampled_from(("shufflenet_v2_x0_5", "shufflenet_v2_x1_25"))},
    optional={
        "stem": st.sampled_from(("imagenet", "small")),
        "resolution": st.sampled_from((32, 160, 224)),
        "num_classes": st.sampled_from((10, 1000)),
    },
)


@settings(deadline=None)
@given(_networks, _axes)
def test_the_line_of_python_says_the_same_point(network: dict[str, Any], axes: dict[str, Any]) -> None:
    point = DesignPoint.of(**network, **axes)
    # `wnexplore.build` takes what `DesignPoint.of` takes.
    assert eval(build_line(point), {"wnexplore": SimpleNamespace(build=DesignPoint.of)}) == point


@pytest.mark.parametrize(
    ("point", "line"),
    [
        (DesignPoint.of("resnet18"), 'wnexplore.build("resnet18")'),
        (
            DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, "1/48", resolution=160),
            'wnexplore.build("shufflenet_v2_x0_5", "weightnet", M=2, G="1/48", resolution=160)',
        ),
        (SE, 'wnexplore.build("shufflenet_v2_x0_5", "se", stem="small", num_classes=10)'),
    ],
)
def test_the_line_says_what_is_not_usual(point: DesignPoint, line: str) -> None:
    assert build_line(point) == line


def printed(found: Pick, encoding: str = "utf-8", width: int = 80) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width, no_color=True).print(ConsoleTable(pick_layout(found)))
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_fits_eighty_columns_uncut() -> None:
    rows = frame([*sweep(), *sweep("shufflenet_v2_x1_0")])
    for prefer in ([], ["latency_ms"]):
        found = pick(rows, "top1", where="batch_size == 1", prefer=prefer)
        text = printed(found)
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "…" not in text
        assert text.count("take ") == text.count("runner-up ") == 1
        assert ("float32 · batch 1 · eager" in " ".join(text.split())) is bool(prefer)
        assert "digits · 5 epochs" in " ".join(text.split())
    assert "+-" in printed(found, "ascii")


def test_many_rivals_are_counted_and_not_all_shown() -> None:
    records = [record for p in POINTS for record in seeds(p, 90 + len(str(p)) / 100, 1.0)]
    found = picked(records)
    contents = pick_layout(found)
    assert [row[0] for row in contents.rows] == ["take", "runner-up", *["overlaps"] * 6]
    assert f"{len(POINTS) - 8} more overlap" in contents.caption
    assert f"and {len(POINTS) - 2} more overlap" in why(found)


def test_the_dictionary_holds_every_digit() -> None:
    records = [*seeds(WEIGHTNET, 90.1, 0.1), complexity(WEIGHTNET), *seeds(SE, 90.0)]
    message = pick_dict(picked(records))
    assert (message["rows"], message["satisfy"], message["points"], message["better"]) == (2, 2, 2, "larger")
    assert message["take"]["top1"] == fmean([90.1 - 0.1, 90.1, 90.1 + 0.1])
    assert {axis: message["take"][axis] for axis in WEIGHTNET.to_dict()} == WEIGHTNET.to_dict()
    assert (message["take"]["params"], message["runner_up"]["params"]) == (350_001, None)
    assert message["take"]["top1_low"] < 90.0 < message["take"]["top1_high"]
    assert [entry["method"] for entry in message["alike"]] == ["se"]
    assert message["protocol"] == {"dataset": "digits", "epochs": 5}
    assert SMALL.items() <= message["take"].items()
    assert set(message["take"]) <= set(COLUMNS)
