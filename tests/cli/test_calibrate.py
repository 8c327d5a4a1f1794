"""wnexplore calibrate: networks chosen, timed and read by what predicts from them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.sweeps import OWN
from wnexplore.results.store import read_records

SPACE = """\
backbones: [BACKBONE]
methods: [plain, weightnet]
M: [1, 2, 4]
G: [1]
per_stage: true
resolution: [8]
num_classes: [10]
latency: {device: cpu, batch_sizes: [1, 2], seconds: 0.001}
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    script = tmp_path / "own.py"
    script.write_text(OWN, encoding="utf-8")
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("BACKBONE", f"{script}:tiny"), encoding="utf-8")
    return path


@pytest.mark.slow
def test_few_networks_are_timed_and_predict_the_others(
    command: Command, space_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("calibrate", space_file, "--networks", 20, "--batch-size", 1, "--out", run)
    planned = command(*options, "--dry-run")
    assert planned.code == 0, planned.err
    assert re.search(r"20 networks; 9 settings of stages, each in \d to \d of them \(rank 7\)", planned.out)
    assert re.search(r"^21 of 21 latencies to measure.* 0\.0 minutes at most", planned.out, re.M)
    assert not run.exists()
    outcome = command(*options)
    assert outcome.code == 0, outcome.err
    assert re.search(r"20 networks, each foretold by others to [\d.]+ % in the median", outcome.out)
    records = [record for record in read_records(run) if record.figure == "latency"]
    assert len({record.point for record in records}) == len(records) == 21
    assert {record.protocol["batch_size"] for record in records} == {1}
    again = command(*options)
    assert "42 of 42 measurements are done already" in again.err
    assert len(read_records(run)) == 42

    out = tmp_path / "all.csv"
    predicted = command("space", space_file, "--latency", run, "--out", out)
    assert predicted.code == 0, predicted.err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 28
    assert {row["latency_is"] for row in rows} == {"predicted"}
    assert all(float(row["latency_ratio_low"]) <= float(row["latency_ratio"]) for row in rows)


def test_what_can_not_be_calibrated_is_one_line(command: Command, space_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for options, message in {
        (): "no space",
        (space_file, "--networks", 18): "at least 19",
        (space_file, "--M", "1,2"): "wnexplore sweep times them all",
        (space_file, "--where", "params < 1"): "no legal point",
        (space_file, "--minutes", 0): "--minutes",
        (space_file, "--minutes", 1, "--seconds", "2"): "--seconds",
    }.items():
        outcome = command("calibrate", *options, "--out", run)
        assert outcome.code == 2, options
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    assert not run.exists()


def test_minutes_are_shared_by_all_measurements(command: Command, space_file: Path) -> None:
    outcome = command("calibrate", space_file, "--networks", 20, "--minutes", 21, "--dry-run")
    assert outcome.code == 0, outcome.err
    # Two batch sizes of 21 networks each: 30 s for each measurement, a fifth of which is warm-up.
    assert "42 of 42 latencies" in outcome.out
    assert "at most 24 s" in outcome.out
    assert "21.0 minutes at most" in outcome.out
