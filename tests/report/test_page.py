"""The page of a run as a file: its figures, its details, its size, and that texts stay texts."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.pages import grid, small_run, unpacked, write_page, write_run
from tests.results.records import SMALL, complexity, failure, latency, sweep, training
from wnexplore.cli.report import known_skeleton, read_run
from wnexplore.design.axis_types import GivenAxes
from wnexplore.design.counts import count
from wnexplore.design.point import AXES, DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.export import export
from wnexplore.report.page_data import PageRun, page_data, page_details
from wnexplore.report.page_file import page_file
from wnexplore.results.frame import cells, frame
from wnexplore.results.pick import pick
from wnexplore.space.skeleton_cache import skeleton_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    return read_run(small_run(tmp_path_factory.mktemp("page") / "run"), None, False, None)


def cells_of(data: dict[str, Any], name: str) -> list[Any]:
    column = {**data["rows"], **data["marks"]}[name]
    if "all" in column:
        return [column["all"]] * data["count"]
    return list(column["cells"]) if "cells" in column else [column["of"][at] for at in column["at"]]


def points_of(run: PageRun) -> list[DesignPoint]:
    columns = zip(*(cells(run.rows, axis) for axis in AXES), strict=True)
    return [DesignPoint(**dict(zip(AXES, axes, strict=True))) for axes in columns]


def test_its_cells_are_those_of_the_csv(run: PageRun) -> None:
    data = page_data([run])
    text = export(run.rows, "csv")
    assert isinstance(text, str)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert data["count"] == len(rows) > 20
    for column in data["columns"]:
        found = cells_of(data, column["name"])
        expected = [row[column["name"]] for row in rows]
        if column["kind"] in ("text", "multiplier"):
            assert ["" if cell is None else cell for cell in found] == expected
        else:
            assert found == [float(cell) if cell else None for cell in expected]


def test_the_answer_is_that_of_pick(run: PageRun) -> None:
    answer = page_data([run])["runs"][0]["answer"]
    rows = run.rows[run.rows["batch_size"] == 1].reset_index(drop=True)
    found = pick(rows, "top1", prefer=("latency_ratio", "params"))
    assert answer["title"] == str(found.take.point)
    assert answer["alike"] == len(found.steps[0].alike) - 1
    assert answer["python"] == found.line
    assert any("batch 1" in line for line in answer["among"])


def test_the_answer_names_rows_and_counts_what_is_unsure(run: PageRun) -> None:
    answer = page_data([run])["runs"][0]["answer"]
    taken = run.rows.iloc[answer["rows"]["take"]]
    assert taken["batch_size"] == answer["protocol"]["batch_size"] == 1
    best = max(value for value in cells(run.rows, "top1") if value is not None)
    assert run.rows["top1"][answer["rows"]["best"]] == best
    assert answer["unsure"] == 0
    single = frame([r for r in run.records if r.figure != "training" or r.protocol["seed"] == 0])
    answer = page_data([replace(run, rows=single)])["runs"][0]["answer"]
    assert answer["unsure"] == answer["of"] == 12


def test_points_that_were_not_timed_can_be_taken(tmp_path: Path) -> None:
    untimed = next(r.point for r in sweep() if r.point.M == 8)
    records = [r for r in sweep() if r.figure != "latency" or r.point != untimed]
    data = page_data([read_run(write_run(tmp_path / "run", records), None, False, None)])
    assert data["runs"][0]["answer"]["of"] == 12


def test_keys_name_rows_whatever_comes_before_them(run: PageRun) -> None:
    keys = cells_of(page_data([run]), "key")
    assert len(set(keys)) == len(keys) == len(run.rows)
    later = replace(run, rows=run.rows.iloc[::-1].reset_index(drop=True))
    assert cells_of(page_data([later]), "key") == keys[::-1]


def test_a_run_without_trainings_has_no_point_to_take(tmp_path: Path) -> None:
    records = [record for record in sweep() if record.figure != "training"]
    answer = page_data([read_run(write_run(tmp_path / "run", records), None, False, None)])["runs"][0][
        "answer"
    ]
    assert set(answer) == {"none"}


def test_layers_add_up_to_the_network(run: PageRun) -> None:
    details = page_details([run], known_skeleton)
    assert len(details["rows"]) == len(run.rows)
    legal, points = 0, points_of(run)
    for place, row in enumerate(details["rows"]):
        point = points[place]
        described = details["points"][row["point"]]
        if "stages" not in described:
            continue
        legal += 1
        layers = [layer for stage in described["stages"] for layer in details["stages"][stage]["layers"]]
        expected = count(point, skeleton_of(point))
        assert described["rest"][0] + sum(layer[2] for layer in layers) == expected.params
        assert described["rest"][1] + sum(layer[3] for layer in layers) == expected.flops
        names = [layer[0] for layer in layers]
        assert "stage2.0.branch1.0" in names
    assert legal > 20


@pytest.mark.parametrize("stages", [None, "all+head", "3+pyramid+head"])
def test_the_parts_of_a_detector_add_up_to_it(tmp_path: Path, stages: str | None) -> None:
    axes: GivenAxes = {
        "stages": stages,
        "task": "detection",
        "resolution": 128,
        "num_classes": 2,
        "pyramid_channels": 8,
    }
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, 2, **axes)
    run = read_run(write_run(tmp_path / "run", [complexity(point)]), None, False, None)
    details = page_details([run], known_skeleton)
    (described,) = details["points"]
    found = {details["stages"][stage]["stage"]: details["stages"][stage] for stage in described["stages"]}
    layers = [layer for stage in found.values() for layer in stage["layers"]]
    for at, expected in enumerate(count(point, skeleton_of(point))):
        parts = sum(part[1 + at] for part in described["parts"])
        assert described["rest"][at] + parts + sum(layer[2 + at] for layer in layers) == expected
    assert ("Head" in found) is (stages is not None)
    assert ("Pyramid" in found) is (stages == "3+pyramid+head")
    names = [part[0] for part in described["parts"]]
    assert names == [name if name not in found else f"{name}, other layers" for name in ("Pyramid", "Head")]


def test_rows_have_the_samples_of_their_records(run: PageRun) -> None:
    details = page_details([run], known_skeleton)
    records = {(r.point, r.protocol["batch_size"]): r for r in run.records if r.figure == "latency"}
    points = points_of(run)
    for place, row in enumerate(details["rows"]):
        if "latency" not in row:
            continue
        found = details["latencies"][row["latency"]]
        point = points[place]
        record = records[point, run.rows["batch_size"][place]]
        if record.status != "ok":
            assert found["error"] == record.error
            continue
        times = record.samples["latency_ms"]
        assert found["ms"][0] == pytest.approx(times[0], rel=1e-3)
        assert found["ms"][-1] == pytest.approx(times[-1], rel=1e-3)
        assert len(found["ms"]) == 60
        # The times stand at the rounds in which they were taken.
        assert [float(f"{times[at - 1]:.4g}") for at in found["ms_rounds"]] == found["ms"]
        assert found["rounds"] == len(times) == 120
        assert details["environments"][found["environment"]]["torch"] == "2.14.1"
    seeds = details["trainings"][details["rows"][0]["training"]]["seeds"]
    assert [seed["seed"] for seed in seeds] == [0, 1, 2]
    assert all(len(seed["top1_curve"]) == len(seed["epochs"]) == 5 for seed in seeds)


def test_a_latency_that_failed_says_how(tmp_path: Path) -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", **SMALL)  # type: ignore[arg-type]
    records = [complexity(point), failure("latency", point, "out_of_memory", "")]
    details = page_details(
        [read_run(write_run(tmp_path / "run", records), None, False, None)], known_skeleton
    )
    assert details["latencies"][0]["error"] == "out_of_memory"


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    one = small_run(tmp_path / "a")
    slower = [
        latency(r.point, 1.5 * r.value["latency_ms"], batch_size=r.protocol["batch_size"])
        if r.figure == "latency" and r.status == "ok"
        else r
        for r in sweep()
    ][:-4]
    other = write_run(tmp_path / "b", slower)
    data = page_data([read_run(directory, None, False, None) for directory in (one, other)])
    assert data["run_of"].count(0) == len(frame(sweep()))
    assert set(data["run_of"]) == {0, 1}
    compared = {part["column"]: part for part in data["comparisons"]}
    assert "faster" not in str(compared["latency_ms"]["rows"])
    assert "slower" in str(compared["latency_ms"]["rows"])


def test_more_rows_than_a_browser_draws_are_refused(run: PageRun) -> None:
    with pytest.raises(InputError, match="--where"):
        page_data([run], most_rows=len(run.rows) - 1)
    assert page_data([run], most_rows=len(run.rows))["count"] == len(run.rows)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&%TITLE%"


def test_texts_of_a_run_stay_texts(tmp_path: Path) -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", **SMALL)  # type: ignore[arg-type]
    records = [
        complexity(point),
        latency(point, device_name=HOSTILE),
        *(training(point, dataset=HOSTILE, seed=seed) for seed in (0, 1)),
        replace(latency(point, batch_size=2), status="failed", error=HOSTILE),
    ]
    page = write_page(tmp_path / "page.html", write_run(tmp_path / "run", records)).read_text()
    assert HOSTILE not in page
    assert "onerror" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    data = unpacked(page, "data")
    assert HOSTILE in cells_of(data, "dataset")
    assert HOSTILE in cells_of(data, "error")


def test_only_its_own_scripts_may_run_and_nothing_may_be_requested(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", small_run(tmp_path / "run")).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#x27;", "'").split(";"))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert not re.search(r'(src|href)="', page.partition("<script")[0])


@pytest.mark.slow
@pytest.mark.parametrize(("points", "most"), [(1_000, 2_500_000), (10_000, 6_000_000)])
def test_its_size(points: int, most: int, tmp_path: Path) -> None:
    records = grid(points)
    run = PageRun("run", records, frame(records), ("2026-11-29T10:00:00", "2026-11-29T11:00:00"))
    page = page_file("run", page_data([run]), page_details([run], known_skeleton))
    assert len(run.rows) == points
    assert len(page) <= most
