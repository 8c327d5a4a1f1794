"""wnexplore space, search and sweeps of brought networks, from the command line."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Command
from tests.latencies import PLAIN_MS, write_run
from tests.sweeps import OWN, TINY, write_sweep
from wnexplore.design.counts import count
from wnexplore.design.point import AXES, DesignPoint
from wnexplore.design.shipped import find_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.results.record import Record
from wnexplore.results.store import Store, read_records
from wnexplore.space.expansion import space_of
from wnexplore.space.selection import open_points, sample
from wnexplore.space.skeleton_cache import skeleton_of

OWN_SPACE = """\
backbones: [own.py:tiny]
methods: [weightnet]
M: [1, 2, 4]
G: [1]
resolution: [8]
num_classes: [10]
"""
TINY_PER_STAGE: dict[str, Any] = {
    "backbones": ["shufflenet_v2_x0_5"],
    "stem": ["small"],
    "resolution": [8],
    "num_classes": [10],
    "methods": ["plain", "weightnet"],
    "M": [1, 2, 4, 8],
    "G": [1, 2],
    "per_stage": True,
}
TINY_SPACE = ("--backbone", "shufflenet_v2_x0_5", "--stem", "small", "--resolution", 8, "--num-classes", 10)


def test_a_million_points_are_counted_filtered_and_their_front_written(
    command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "front.csv"
    where = "params < 2.6M and flops < 150M"
    outcome = command(
        "space", "shufflenet_per_stage", "--where", where, "--pareto", "params,flops", "--out", out
    )
    assert outcome.code == 0
    assert outcome.out.startswith("1,000,000 points, 241,920 legal, 758,080 illegal\n")
    space = space_of(load_sweep(find_sweep("shufflenet_per_stage")))
    kept = space.legal & ~space.repeated & (space.params < 2_600_000) & (space.flops < 150_000_000)
    assert f"{kept.sum():,} satisfy {where}" in outcome.out
    with out.open() as file:
        rows = [(int(row["params"]), int(row["flops"])) for row in csv.DictReader(file)]
    assert rows
    for params, flops in rows:
        # Nothing that is kept costs less in one and no more in the other.
        assert not (kept & (space.params <= params) & (space.flops < flops)).any()
        assert not (kept & (space.params < params) & (space.flops <= flops)).any()


@pytest.fixture(scope="module")
def timed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with latencies of 40 networks of `TINY_PER_STAGE`."""
    found = space_of(load_sweep(None, {(k,): ("", v) for k, v in TINY_PER_STAGE.items()}))
    points = [found.point(index) for index in sample(open_points(found, None), 40, 1).tolist()]
    directory = tmp_path_factory.mktemp("timed") / "run"
    write_run(directory, points)
    with Store.create(directory) as store:
        for point in (*points, points[0].baseline()):
            counts = count(point, skeleton_of(point))._asdict()
            store.append(Record("complexity", point, {}, value=counts))
    return directory


def test_latencies_are_predicted_filtered_and_their_front_written(
    command: Command, timed_run: Path, space_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "front.csv"
    options = ("--latency", timed_run, "--where", "params < 700k and latency_ratio < 1.25")
    outcome = command("space", space_file, *options, "--pareto", "latency_ms,params", "--out", out)
    assert outcome.code == 0, outcome.err
    assert re.search(r"^[\d,]+ satisfy params < 700k and latency_ratio < 1.25$", outcome.out, re.M)
    assert "latencies are predicted from those in" in outcome.out
    assert "40 networks" in outcome.out
    assert "told apart" in outcome.out
    with out.open() as opened:
        rows = list(csv.DictReader(opened))
    assert rows
    for row in rows:
        assert row["latency_is"] == "predicted"
        assert row["batch_size"] == "1"
        assert float(row["latency_ms"]) == pytest.approx(PLAIN_MS * float(row["latency_ratio"]))
        assert float(row["latency_ratio_low"]) <= float(row["latency_ratio"]) < 1.25
    pairs = sorted((float(row["latency_ms"]), int(row["params"])) for row in rows)
    assert all(a[1] > b[1] for a, b in itertools.pairwise(pairs))
    listed = command("space", space_file, *options, "--sample", 3)
    assert listed.out.count("○") == 4
    assert "○ latencies predicted" in listed.out


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    file = tmp_path / "space.yaml"
    file.write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in TINY_PER_STAGE.items()))
    return file


def test_predicted_points_are_picked_and_said_to_be_predicted(
    command: Command, timed_run: Path, space_file: Path
) -> None:
    options: tuple[object, ...] = ("pick", timed_run, "--space", space_file, "--objective", "params")
    options += ("--prefer", "latency_ms", "--where", "method == weightnet and latency_ratio < 1.2")
    outcome = command(*options, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    space = space_of(load_sweep(space_file))
    expected = min((space.params[i], i) for i in np.flatnonzero(space.legal).tolist()[1:])[0]
    assert found["take"]["params"] == expected
    records = {str(record.point) for record in read_records(timed_run)}
    for rival in (found["take"], found["runner_up"]):
        point = DesignPoint.from_dict({axis: rival[axis] for axis in AXES})
        assert rival["latency_is"] == ("measured" if str(point) in records else "predicted")
    shown = command(*options)
    assert "predicted" in shown.out
    # Accuracies are of trained networks alone.
    assert command("pick", timed_run, "--space", space_file, "--objective", "top1").code == 2


def test_predicted_points_are_plotted_hollow(
    command: Command, timed_run: Path, space_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figure.svg"
    axes = ("--x", "latency_ratio", "--y", "latency_ms", "--pareto", "--out", out)
    assert command("plot", timed_run, "--space", space_file, *axes).code == 0
    assert "hollow" in out.read_text()
    assert command("plot", timed_run, *axes).code == 0
    assert "hollow" not in out.read_text()
    assert "--space" in command("plot", timed_run, "--space", space_file).err


def test_latencies_that_do_not_fit_the_space_are_refused(command: Command, timed_run: Path) -> None:
    wrong: dict[tuple[object, ...], str] = {
        ("--backbone", "resnet18", "--latency", timed_run): "made of resnet18 plain",
        (*TINY_SPACE, "--latency", "nowhere"): "nowhere",
        (*TINY_SPACE, "--pareto", "latency_ms,params"): "--latency RUN",
        (*TINY_SPACE, "--latency", timed_run, "--where", "batch_size == 3"): "protocol in --where",
    }
    for options, message in wrong.items():
        outcome = command("space", *options)
        assert outcome.code == 2, options
        assert message in outcome.err
        assert outcome.err.count("\n") == 1


def test_a_small_space_is_listed_with_what_is_wrong_in_it(command: Command) -> None:
    outcome = command(
        "space", *TINY_SPACE, "--method", "weightnet", "--M", "1,2", "--G", "1,2", "--reduction", "16,32"
    )
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "8 points, 6 legal, 2 illegal"
    assert re.fullmatch(r"  2 .*\bM\b.*\bG", lines[1])
    assert "stage2.0.branch1.0" in lines[2]
    assert re.search(r"^3 .*\bduplicates\b", outcome.out, re.M)
    assert outcome.out.count("weightnet") >= 3
    assert "min 415.90 k" in outcome.out


def test_points_that_are_the_same_function_are_marked(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "points.csv"
    options = (*TINY_SPACE, "--method", "weightnet", "--M", "1", "--G", "1", "--reduction", "16,32,4")
    outcome = command("space", *options, "--out", out)
    assert outcome.code == 0
    # 116 channels at the most: a sixteenth of them is less than the 16 features that there are at least.
    assert re.search(r"  \S+ weightnet M=1 G=1 .*reduction=32 equals \S+ weightnet M=1 G=1", outcome.out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["reduction"], row["same_as"]) for row in rows] == [("16", ""), ("32", "0"), ("4", "")]
    assert rows[0]["params"] == rows[1]["params"]


def test_counting_alone_counts_what_a_condition_keeps(command: Command) -> None:
    options = (
        *TINY_SPACE,
        "--method",
        "plain,weightnet",
        "--M",
        "1,2",
        "--G",
        "1",
        "--where",
        "params < 500k",
    )
    outcome = command("space", *options, "--count")
    assert outcome.code == 0
    assert outcome.out == "3 points, 3 legal, 0 illegal\n2 satisfy params < 500k\n"


def test_counting_alone_knows_no_largest_space(command: Command) -> None:
    Ms = ",".join(map(str, range(1, 51)))
    outcome = command(
        "space", "--backbone", "resnet50", "--method", "weightnet", "--M", Ms, "--per-stage", "--count"
    )
    assert outcome.code == 0
    # G = 2: the even half of M.
    assert outcome.out.startswith(f"{50**4:,} points, {25**4:,} legal")


def test_a_sample_is_the_same_for_a_seed(command: Command, tmp_path: Path) -> None:
    texts = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        out = tmp_path / f"{name}.csv"
        assert (
            command("space", "shufflenet_per_stage", "--sample", 50, "--seed", seed, "--out", out).code == 0
        )
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].count("\n") == 51


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "sweep file"),
        (("nothing",), "unknown sweep 'nothing'"),
        ((*TINY_SPACE, "--where", "parms < 3"), "'params'"),
        ((*TINY_SPACE, "--where", "params < 3"), "no point is left"),
        ((*TINY_SPACE, "--pareto", "params,top1"), "'top1'"),
        ((*TINY_SPACE, "--pareto", "params", "--sample", 3), "--sample"),
        ((*TINY_SPACE, "--sample", 3, "--seed", -1), "--seed"),
        ((*TINY_SPACE, "--pareto", ""), "params, flops"),
        ((*TINY_SPACE, "--count", "--out", "points.csv"), "--count"),
        (("--backbone", "resnet18", "--width", "0.5"), "width"),
        (("--backbone", "shufflenet_v2"), "width"),
        (("--backbone", "timm:nothing_at_all"), "'nothing_at_all'"),
        ((*TINY_SPACE, "--M", "2:1+3:2"), "2, 3, 4"),
        ((*TINY_SPACE, "--out", "/nowhere/at/all.csv"), "/nowhere/at/all.csv"),
    ],
)
def test_bad_input_is_one_line(command: Command, options: tuple[object, ...], message: str) -> None:
    outcome = command("space", *options)
    assert outcome.code == 2
    assert outcome.out == "" or message == "no point is left"
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_width_stands_for_a_backbone(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "widths.csv"
    options = (
        "--backbone",
        "shufflenet_v2,mobilenet_v2",
        "--width",
        "0.75,1",
        "--method",
        "plain",
        "--out",
        out,
    )
    assert command("space", *options).code == 0
    with out.open() as file:
        names = [row["backbone"] for row in csv.DictReader(file)]
    assert names == ["shufflenet_v2_x0_75", "shufflenet_v2_x1_0", "mobilenet_v2_x0_75", "mobilenet_v2"]


def test_a_search_from_the_command_line_resumes(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: tuple[object, ...]
    options = ("search", write_sweep(tmp_path, OWN_SPACE), "--per-stage", "--no-latency", "--out", run)
    options += ("--objectives", "params,flops", "--budget", "params < 20k")
    first = command(*options, "--trials", 2)
    assert first.code == 0, first.err
    assert re.search(r"\b2 points\b", first.err)
    assert "Pareto-optimal in params (smaller), FLOPs (smaller)" in first.out
    assert command(*options, "--trials", 4).code == 0
    records = read_records(run)
    assert len(records) == len({record.key for record in records}) == 4
    assert all(record.value["params"] < 20_000 for record in records)
    assert {"results.csv", "study.db", "sweep.yaml"} <= {path.name for path in run.iterdir()}
    refused = command(*options, "--trials", 4, "--seed", 1)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert refused.err.count("\n") == 1


@pytest.mark.slow
def test_networks_of_the_user_are_swept_as_any_other(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    backbones = ["timm:mobilenetv3_small_100", "torchvision:regnet_y_400mf", f"{script}:tiny"]
    text = TINY.replace("own.py:tiny", ", ".join([*backbones[:2], "own.py:tiny"]))
    text = text.replace("resolution: [8]", "resolution: [32]").replace(
        "batch_sizes: [1, 2]", "batch_sizes: [2]"
    )
    file = write_sweep(tmp_path, text.replace("M: [1, 2]", "M: [2]").replace("G: [1, 2]", "G: [1]"))
    outcome = command("sweep", file, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    records = read_records(tmp_path / "run")
    assert {record.status for record in records} == {"ok"}
    found = {(r.figure, r.point.backbone, r.point.method) for r in records}
    assert found == {
        (figure, backbone, method)
        for figure in ("complexity", "latency")
        for backbone in backbones
        for method in ("plain", "weightnet")
    }
    script.write_text(OWN.replace("16", "24"))
    assert command("sweep", file, "--out", tmp_path / "run").code == 0
    # A file that has changed is measured again, the others are not.
    assert len(read_records(tmp_path / "run")) == len(records) + 4
    profiled = command(
        "profile", "--backbone", backbones[2], "--resolution", 32, "--method", "weightnet", "--G", 32
    )
    assert profiled.code == 2
    assert "layer 3" in profiled.err
