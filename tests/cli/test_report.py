"""wnexplore report as a person runs it."""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests import latencies
from tests.cli.conftest import Command
from tests.report.pages import small_run, unpacked, write_run
from tests.sweeps import write_sweep
from wnexplore.design.point import AXES, DesignPoint
from wnexplore.design.sweep_file import load_sweep
from wnexplore.results.point_lines import profile_line
from wnexplore.results.store import FILE_NAME
from wnexplore.space.expansion import expand


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return small_run(tmp_path / "run")


def test_it_writes_one_file_and_prints_its_path(command: Command, run: Path, tmp_path: Path) -> None:
    outcome = command("report", run)
    assert (outcome.code, outcome.out.strip(), outcome.err) == (0, str(run / "report.html"), "")
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    other = tmp_path / "both.html"
    outcome = command("report", run, run, "--out", other, "--where", "batch_size == 1")
    assert (outcome.code, outcome.out.strip()) == (0, str(other))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "both.html"}
    # A directory given twice is one run.
    assert len(unpacked(other.read_text(), "data")["runs"]) == 1


def test_a_folder_of_any_name(command: Command, tmp_path: Path) -> None:
    run = small_run(tmp_path / "<b>\udce9 &amp;\n'")
    outcome = command("report", run)
    assert outcome.code == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;" in page
    assert unpacked(page, "data")["runs"][0]["name"] == str(run)


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing",),
        ("empty",),
        ("damaged",),
        ("run", "--where", "params < 1"),
        ("run", "--where", "parms < 1"),
        ("run", "--out", "page.png"),
        ("run", "--out", "nowhere/page.html"),
        ("run", "--watch", "--out", "page.html"),
        ("run", "--space", "missing.yaml"),
    ],
)
def test_bad_input_is_one_line_and_no_file(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "empty", ())
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / FILE_NAME).write_bytes((run / FILE_NAME).read_bytes()[:5000])
    before = {path for path in tmp_path.rglob("*") if path.suffix in (".html", ".png")}
    outcome = command("report", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert {path for path in tmp_path.rglob("*") if path.suffix in (".html", ".png")} == before


def test_damaged_records_can_be_left_out(command: Command, run: Path) -> None:
    with closing(sqlite3.connect(run / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE records SET value = '{' WHERE id = 3")
    assert command("report", run).code == 2
    outcome = command("report", run, "--skip-damaged")
    assert outcome.code == 0
    assert "1 damaged record" in outcome.err


def test_a_space_adds_predicted_points(command: Command, tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        "backbones: [shufflenet_v2_x0_5]\nmethods: [weightnet]\nstem: [small]\nresolution: [8]\n"
        "M: [1, 2, 4]\nG: [1]\nper_stage: true\nlatency: false\n",
    )
    points = expand(load_sweep(path)).points
    latencies.write_run(tmp_path / "run", points[:20])
    outcome = command("report", tmp_path / "run", "--space", path)
    assert outcome.code == 0
    data = unpacked((tmp_path / "run" / "report.html").read_text(), "data")
    kinds = data["rows"]["latency_is"]
    assert set(kinds["of"]) == {"measured", "predicted"}


def test_the_line_that_profiles_a_point_does(command: Command) -> None:
    point = DesignPoint.of(
        "shufflenet_v2_x0_5", "weightnet", "2:1+3:2", "1/2", stages="2+3", stem="small", num_classes=10
    )
    program, *words = shlex.split(profile_line(point))
    outcome = command(*words, "--no-latency", "--json")
    assert program == "wnexplore"
    assert outcome.code == 0
    assert DesignPoint.of(**{axis: json.loads(outcome.out)[axis] for axis in AXES}) == point


def test_a_sweep_can_leave_it_out(command: Command, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "backbones: [own.py:tiny]\nresolution: [8]\nlatency: false\n")
    outcome = command("sweep", path, "--out", tmp_path / "run", "--no-report")
    assert outcome.code == 0
    assert "report.html" not in outcome.out + outcome.err
    assert not (tmp_path / "run" / "report.html").exists()
    outcome = command("sweep", path, "--out", tmp_path / "run")
    assert str(tmp_path / "run" / "report.html") in outcome.out
    assert (tmp_path / "run" / "report.html").exists()
