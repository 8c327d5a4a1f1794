"""wnexplore published on run directories whose figures are known."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.results.records import SMALL, complexity, filled, training
from wnexplore.design.point import DesignPoint
from wnexplore.results.record import Record


def design(method: str = "plain", backbone: str = "shufflenet_v2_x0_5", **axes: int) -> DesignPoint:
    return DesignPoint.of(backbone, method, **{**SMALL, **axes})  # type: ignore[arg-type]


TOPS = {
    design(): 50.0,
    design("weightnet", M=2, G=2): 60.0,
    design("weightnet", M=8, G=1): 55.0,
    design("se"): 45.0,
    design("eca"): 99.0,
    design(backbone="shufflenet_v2_x1_0"): 70.0,
}


def records(**protocol: object) -> list[Record]:
    return [
        training(point, top1 + seed / 10 * (1 + number), seed=seed, **protocol)
        for number, (point, top1) in enumerate(TOPS.items())
        for seed in range(3)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return filled(tmp_path / "run", records())


def test_the_tables_of_a_run(command: Command, run: Path) -> None:
    outcome = command("published", run)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert lines[0] == "digits · 5 epochs · 32 px"
    assert "shufflenet_v2_x0_5 se 62.5 ± 0.3 45.4 ± 1.0 3" in lines
    assert "1 more design trained, of which no accuracy was published" in lines
    half = [line for line in lines if line.endswith((" same", " reversed", " unresolved"))]
    assert len(half) == 6
    assert sum(line.endswith(" reversed") for line in half) == 2
    assert "plain weightnet (8, 1) 5.7 +5.2 [5.0, 5.4] same" in half
    assert "shufflenet_v2_x0_5 4 4 2 0 0 +0.33 [0.33, 0.33] 3" in lines
    assert "all pairs 5 8 2 0 0 +0.60 [0.60, 0.60] 3" in lines
    assert any("intervals are per pair, not corrected for the number of pairs" in line for line in lines)


def test_json_and_csv_hold_every_pair_unrounded(command: Command, run: Path, tmp_path: Path) -> None:
    outcome = command("published", run, "--json", "--out", tmp_path / "pairs.csv")
    assert outcome.code == 0
    (found,) = json.loads(outcome.out)["rankings"]
    assert [design["published_source"] for design in found["designs"]].count("figure") == 1
    assert len(found["unpublished"]) == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / "pairs.csv").read_text())))
    assert len(rows) == len(found["pairs"]) == 10
    for row, pair in zip(rows, found["pairs"], strict=True):
        assert (row["lower"], row["higher"], row["verdict"]) == (
            pair["lower"],
            pair["higher"],
            pair["verdict"],
        )
        assert float(row["difference_low"]) == pair["difference_low"]
    assert [agreement["within"] for agreement in found["agreement"]] == ["shufflenet_v2_x0_5", "all pairs"]
    assert (
        sum(found["agreement"][-1][verdict] for verdict in ("same", "reversed", "unresolved", "tied")) == 10
    )


def test_the_order_by_test_loss(command: Command, tmp_path: Path) -> None:
    learned = [
        replace(record, value={**record.value, "test_loss": 4 - record.value["top1"] / 30})
        for record in records()
    ]
    run = filled(tmp_path / "run", learned)
    outcome = command("published", run, "--column", "test_loss", "--out", tmp_path / "order.svg")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "shufflenet_v2_x0_5 weightnet (8, 1) 66.0 2.157 ± 0.025 3" in lines
    assert "plain weightnet (8, 1) 5.7 −0.173 [−0.180, −0.167] same" in lines
    assert "all pairs 5 8 2 0 0 +0.60 [0.60, 0.60] 3" in lines
    assert (tmp_path / "order.svg").stat().st_size > 5000
    (found,) = json.loads(command("published", run, "--column", "test_loss", "--json").out)["rankings"]
    assert found["column"] == "test_loss"
    assert found["designs"][0]["test_loss_low"] < found["designs"][0]["test_loss"]


@pytest.mark.parametrize("name", ["order.png", "order.SVG", "order.pdf"])
def test_the_plot_is_written(command: Command, run: Path, tmp_path: Path, name: str) -> None:
    outcome = command("published", run, "--out", tmp_path / name)
    assert (outcome.code, outcome.err) == (0, f"written to {tmp_path / name}\n")
    assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize("name", ["order.jpg", "order", "missing/order.csv"])
def test_a_file_of_another_kind_is_refused_before_anything_is_read(
    command: Command, run: Path, tmp_path: Path, name: str
) -> None:
    outcome = command("published", run, "--out", tmp_path / name)
    assert (outcome.code, outcome.out) == (2, "")
    assert name.rpartition("/")[0] in outcome.err
    assert not (tmp_path / name).exists()


def test_each_setting_of_a_run_has_its_tables(command: Command, tmp_path: Path) -> None:
    run = filled(tmp_path / "run", [*records(lr=0.1), *records(lr=0.2)])
    out = command("published", run).out
    assert [line for line in out.splitlines() if line.startswith("digits")] == [
        "digits · 5 epochs · 32 px · lr 0.1",
        "digits · 5 epochs · 32 px · lr 0.2",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([complexity(design())], "no training of this run has a top-1"),
        ([training(design("eca")), training(design("gc"))], "none of the designs trained alike in this run"),
    ],
)
def test_a_run_without_an_order_is_one_line(
    command: Command, tmp_path: Path, content: list[Record], message: str
) -> None:
    outcome = command("published", filled(tmp_path / "run", content), "--out", tmp_path / "pairs.csv")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "pairs.csv").exists()


@pytest.mark.parametrize("option", [("--out", "pairs.csv"), ("--skip-damaged",), ("--column", "top1")])
def test_options_of_a_run_need_one(command: Command, option: tuple[str, ...]) -> None:
    outcome = command("published", *option)
    assert outcome.code == 2
    assert f"{option[0]} is for a run" in outcome.err


@pytest.mark.parametrize(
    ("column", "message"), [("test_loss", "no training of this run has a test loss"), ("flops", "'flops'")]
)
def test_another_column_is_refused(command: Command, run: Path, column: str, message: str) -> None:
    outcome = command("published", run, "--column", column)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_a_folder_that_is_no_run_is_refused(command: Command, tmp_path: Path) -> None:
    assert command("published", tmp_path / "nothing").code == 2
