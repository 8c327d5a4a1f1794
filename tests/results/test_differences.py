"""What a variant has over the plain network, seed by seed, from records to tables and files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tests.results.records import (
    HALVING,
    SMALL,
    complexity,
    curves,
    failure,
    halved,
    latency,
    points,
    trained,
    training,
)
from wnexplore.design.point import DesignPoint
from wnexplore.report.export import export
from wnexplore.report.figures import scatter
from wnexplore.report.layout import layout
from wnexplore.report.tables import table
from wnexplore.results.columns import COLUMNS, difference
from wnexplore.results.frame import cells, frame
from wnexplore.results.record import Record

PLAIN, SE, CONDCONV, WEIGHTNET = points()[:4]
NAMES = ("top1_diff", "top1_diff_low", "top1_diff_high")


def seeds(point: DesignPoint, top1: list[float], start: int = 0, **protocol: Any) -> list[Record]:
    return [training(point, value, seed=seed, **protocol) for seed, value in enumerate(top1, start=start)]


def differences(records: list[Record], point: DesignPoint = SE) -> tuple[float | None, ...]:
    rows = frame(records)
    (row,) = (i for i, method in enumerate(cells(rows, "method")) if method == point.method)
    return tuple(cells(rows, name)[row] for name in NAMES)


def test_seeds_are_paired_whatever_their_order() -> None:
    plain = seeds(PLAIN, [80.0, 90.0, 70.0, 85.0])
    better = seeds(SE, [81.0, 92.0, 71.5, 85.5])
    # Of 4 differences the interval is from the smallest to the largest.
    assert differences([*plain, *reversed(better)]) == (1.25, 0.5, 2.0)
    assert differences(plain + better, PLAIN) == (None, None, None)


def test_trainings_are_paired_whatever_weights_they_start_from() -> None:
    plain, other = _from("a", PLAIN, [80.0, 90.0, 70.0]), _from("b", SE, [81.0, 92.0, 73.0])
    assert differences(plain + other) == (2, 1, 3)
    # The newest of several starts of the plain network.
    later = _from("c", PLAIN, [79.0, 90.0, 69.0])
    assert differences(plain + later + other) == (pytest.approx(8 / 3), 2, 4)


def _from(hashed: str, point: DesignPoint, top1: list[float]) -> list[Record]:
    protocol = {"start_from": "{method}.safetensors", "start": hashed}
    return [replace(one, protocol={**one.protocol, **protocol}) for one in seeds(point, top1)]


def test_only_seeds_that_both_have_are_paired() -> None:
    plain, other = seeds(PLAIN, [80.0, 90.0, 70.0, 10.0]), seeds(SE, [82.0, 91.0, 73.0, 99.0], start=1)
    assert differences(plain + other) == (pytest.approx((-8 + 21 + 63) / 3), -8, 63)
    assert differences(plain[:1] + other) == (None, None, None)
    two = differences(plain[:3] + other)
    assert two == (6.5, None, None)


def test_a_diverged_seed_is_in_no_pair_and_its_row_says_so() -> None:
    plain, other = seeds(PLAIN, [80.0, 90.0, 70.0, 60.0]), seeds(SE, [81.0, 92.0, 73.0, 95.0])
    nan = "RunError: the loss is nan in epoch 2"
    failed = failure("training", SE, error=nan, seed=3)
    found = frame([*plain, *other[:3], failed])
    row = {name: cells(found, name)[1] for name in COLUMNS}
    assert [row[name] for name in NAMES] == [2, 1, 3]
    assert (row["top1"], row["seeds"], row["status"], row["error"]) == (82, 3, "failed", nan)
    # And where it is the plain network's that diverged.
    assert differences([*plain[:3], failure("training", PLAIN, error=nan, seed=3), *other]) == (2, 1, 3)
    lost = frame([*plain, *(failure("training", SE, error=nan, seed=seed) for seed in range(4))])
    assert [cells(lost, name)[1] for name in ("top1", "seeds", "epochs", *NAMES)] == [None, 0, 5, *[None] * 3]


@pytest.mark.parametrize("other", [{"lr": 0.3}, {"dataset": "cifar10"}, {"epochs": 6}, HALVING])
def test_other_protocols_are_never_compared(other: dict[str, Any]) -> None:
    plain, better = seeds(PLAIN, [80.0, 90.0, 70.0]), seeds(SE, [81.0, 92.0, 73.0], **other)
    assert differences(plain + better) == (None, None, None)
    again = seeds(PLAIN, [80.5, 90.5, 70.5], **other)
    assert differences([*again, *plain, *better]) == (1.5, 0.5, 2.5)


def test_other_networks_are_no_baseline() -> None:
    for change in ({"backbone": "resnet18"}, {"stem": "imagenet"}, {"resolution": 64}, {"num_classes": 11}):
        plain = DesignPoint.of(**{"backbone": "shufflenet_v2_x0_5", **SMALL, **change})  # type: ignore[arg-type]
        assert differences(seeds(plain, [80.0, 90.0, 70.0]) + seeds(SE, [81.0, 92.0, 73.0]))[0] is None


def test_epochs_are_those_trained_and_dropped_variants_stand_apart() -> None:
    records = [trained(PLAIN, [50.0, 70.0, 90.0], seed=seed, **HALVING) for seed in range(3)]
    records += [trained(SE, [40.0], dropped_at=1, seed=seed, **HALVING) for seed in range(3)]
    records += [trained(CONDCONV, [52.0, 71.0, 91.0 + seed], seed=seed, **HALVING) for seed in range(3)]
    rows = frame(records)
    assert cells(rows, "epochs") == [9, 1, 9]
    assert cells(rows, "dropped_at") == [None, 1, None]
    assert [cells(rows, name) for name in NAMES] == [[None, None, 2], [None, None, 1], [None, None, 3]]
    # A seed that failed belongs to those that didn't, and makes no row of its own.
    lost = failure("training", SE, epochs=9, seed=3, **HALVING)
    assert cells(frame([*records, lost]), "seeds") == [3, 3, 3]
    assert cells(frame([*records, lost]), "status") == ["ok", "failed", "ok"]


def test_records_from_before_epochs_were_reported() -> None:
    old = seeds(PLAIN, [80.0, 90.0, 70.0])
    new = [
        replace(r, value={**r.value, "epochs": 5, "dropped_at": None}) for r in seeds(SE, [81.0, 92.0, 73.0])
    ]
    assert differences(old + new) == (2, 1, 3)
    assert cells(frame(old + new), "epochs") == [5, 5]


def test_what_can_not_be_distinguished_is_marked_and_explained() -> None:
    records = seeds(PLAIN, [80.0, 81.0, 82.0, 83.0, 84.0])
    records += seeds(SE, [81.0, 80.5, 83.0, 83.5, 85.0])  # both better and worse
    records += seeds(CONDCONV, [81.0, 82.5, 82.5, 84.0, 85.0])
    records += seeds(WEIGHTNET, [81.0, 82.0])
    contents = layout(frame(records))
    assert contents.headings == ("", "method", "M", "G", "top-1 (%)", "Δ top-1 (points)", "seeds")
    assert [row[0] for row in contents.rows] == ["", "≈", "", "≈"]
    assert [row[5] for row in contents.rows] == [
        *("", "+0.6 [−0.5, 1.0]", "+1.0 [0.5, 1.5]", "+1.0"),
    ]
    assert sum(line.startswith("≈") for line in contents.caption) == 1
    assert any(line.startswith("Δ") and "95 % bootstrap interval" in line for line in contents.caption)
    message = layout(frame(seeds(PLAIN, [80.0, 81.0, 82.0]) + seeds(SE, [81.0, 82.0, 83.0]))).caption
    assert any("3 seeds covers 75 % at most" in line for line in message)
    alone = layout(frame(records[:5]))
    assert not any("Δ" in text for text in (*alone.headings, *alone.caption))


def test_every_export_marks_it() -> None:
    rows = frame([*seeds(PLAIN, [80.0, 81.0, 82.0]), *seeds(SE, [80.0, 80.5, 83.0])])
    latex, markdown = str(export(rows, "latex")), str(export(rows, "markdown"))
    assert "$\\approx$ & se" in latex
    assert "$\\Delta$ top-1 (points)" in latex
    assert "+0.2 [$-$0.5, 1.0]" in latex
    assert not set("≈Δ−") & set(latex)
    assert "| ≈ | se |" in markdown
    assert "\n≈ " in markdown
    (_, row) = csv.DictReader(io.StringIO(str(export(rows, "csv"))))
    assert [float(row[name]) for name in NAMES] == [pytest.approx(1 / 6), -0.5, 1.0]
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=100).print(table(rows))
    stream.seek(0)
    assert "+0.2 [-0.5, 1.0]" in stream.read()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.25, 0.5, 2.0), "+1.2 [0.5, 2.0]"),
        ((-1.25, -2.5, -0.04), "−1.25 [−2.50, −0.04]"),
        ((0.5, 0.0, 1.0), "+0.5 [0.0, 1.0]"),
        ((0.02, None, None), "+0.0"),
    ],
)
def test_digits_tell_a_bound_from_0(values: tuple[float, float | None, float | None], text: str) -> None:
    assert difference(*values, COLUMNS["top1_diff"]) == text


def test_what_was_dropped_is_shown_where_something_was() -> None:
    full, half = layout(frame(curves())), layout(frame(halved(curves())))
    assert "dropped at" not in full.headings
    assert "9 epochs" in full.caption[0]
    at = half.headings.index("dropped at")
    assert half.headings[at - 1] == "epochs"
    assert {row[at] for row in half.rows} == {"", "1", "3"}
    counted = frame([*map(complexity, points()), *halved(curves())])
    assert any("★" in line and "epochs" in line for line in layout(counted).caption)


def test_differences_can_be_plotted() -> None:
    records = [*map(complexity, points()), *map(latency, points()), *curves()]
    (ax,) = scatter(frame(records), "latency_ms", "top1_diff").axes
    assert ax.get_ylabel() == "Top-1 over plain's (points)"
