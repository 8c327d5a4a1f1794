"""The commands with detectors, from a training to its boxes drawn on images."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import wnexplore
from tests.cli.conftest import Command
from tests.data.coco_folder import content, write_coco
from wnexplore.cli import main
from wnexplore.models import build
from wnexplore.models.detector import Detector
from wnexplore.results.store import read_records
from wnexplore.training.checkpoint import open_checkpoint, save_checkpoint
from wnexplore.training.log import read_log

DETECTOR = (
    *("--backbone", "shufflenet_v2_x0_5", "--task", "detection", "--resolution", 64),
    *("--pyramid-channels", 8),
)
SHORT = ("--device", "cpu", "--epochs", 1, "--batch-size", 8)
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")


def run_to_end(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 0


@pytest.fixture(scope="module")
def scenes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training on scenes."""
    out = tmp_path_factory.mktemp("scenes") / "run"
    run_to_end("train", *DETECTOR, "--data", "scenes:2x16", *SHORT, "--out", out)
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as COCO's."""
    return write_coco(tmp_path_factory.mktemp("coco"), content(8, 0), content(5, 1))


@pytest.fixture(scope="module")
def coco_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The run directory of a training on image files."""
    out = tmp_path_factory.mktemp("trained") / "run"
    options = ("--method", "weightnet", "--M", 2, "--G", 2, "--scales", "48,64")
    run_to_end("train", *DETECTOR, *options, "--data", f"coco:{images}", *SHORT, "--out", out)
    return out


def best(run: Path) -> Path:
    return run / "checkpoints" / "best.safetensors"


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory, coco_run: Path) -> Path:
    """The checkpoint of `coco_run` with scores so high that there are boxes."""
    trained = open_checkpoint(best(coco_run))
    assert isinstance(trained.network, Detector)
    nn.init.constant_(trained.network.head.classification_head.cls_logits.bias, 0.0)
    path = tmp_path_factory.mktemp("eager") / "eager.safetensors"
    save_checkpoint(path, trained.network, trained.metadata)
    return path


def test_a_training_is_a_row_of_a_table(scenes_run: Path, command: Command) -> None:
    (record,) = read_records(scenes_run)
    assert (record.point.task, record.point.pyramid_channels) == ("detection", 8)
    assert record.value.keys() >= set(FIGURES)
    assert "top1" not in record.value
    (row,) = json.loads(command("export", scenes_run, "--format", "json").out)
    assert row["ap"] == record.value["ap"] == read_log(scenes_run)[-1].ap
    assert (row["dataset"], row["epochs"], row["seeds"], row["task"]) == ("scenes:2x16", 1, 1, "detection")
    shown = command("table", scenes_run)
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^ *AP$", shown.out, re.M)
    assert "pyramid of 8 channels · scenes:2x16" in shown.out
    assert "top-1" not in shown.out


@pytest.mark.parametrize("data", ["scenes", "coco"])
def test_evaluate_says_average_precision(
    data: str, command: Command, scenes_run: Path, coco_run: Path
) -> None:
    run, count = {"scenes": (scenes_run, 8), "coco": (coco_run, 5)}[data]
    done = command("evaluate", best(run), "--device", "cpu", "--batch-size", 3, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["images"] == count
    assert found.keys() >= set(FIGURES)
    assert "loss" not in found
    assert "test_loss" not in found
    # No box of these images has 96² pixels.
    assert found["ap_large"] is None
    assert found["ap"] == pytest.approx(read_log(run)[-1].ap, abs=1e-3)
    said = command("evaluate", best(run), "--device", "cpu").out
    assert re.search(rf": AP {found['ap']:.2f} %, AP50 .* AR {found['ar']:.2f} % on {count} images", said)
    assert "APl" not in said


def test_a_detector_is_tested_on_another_data_set_of_its_classes(
    command: Command, coco_run: Path, images: Path, tmp_path: Path
) -> None:
    other = write_coco(tmp_path, content(2, 5), content(3, 6))
    done = command("evaluate", best(coco_run), "--data", f"coco:{other}", "--device", "cpu", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["images"] == 3


def test_boxes_are_drawn_on_images_of_their_size(
    command: Command, eager: Path, images: Path, tmp_path: Path
) -> None:
    names = ("000000.png", "000001.png")
    paths = [images / "val2017" / name for name in names]
    (tmp_path / "broken.png").write_bytes(b"no image")
    options = ("--device", "cpu", "--out", tmp_path / "drawn")
    done = command("predict", eager, *paths, tmp_path / "broken.png", *options, "--min-score", 0)
    assert done.code == 1
    assert f"can't read image {tmp_path / 'broken.png'}" in done.err
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == list(names)
    for path, line in zip(paths, done.out.splitlines(), strict=True):
        assert line.startswith(f"{path}: ")
        assert re.search(r"(pear|quince|apple) \d+\.\d % at \d+, \d+, \d+, \d+", line)
        before, after = (np.asarray(Image.open(one)) for one in (path, tmp_path / "drawn" / path.name))
        assert after.shape == before.shape
        assert (after != before).any()
    # Without boxes an image is drawn as it is.
    done = command("predict", eager, paths[0], *options, "--min-score", 1)
    assert done.out == f"{paths[0]}: no object\n"
    before, after = (np.asarray(Image.open(one)) for one in (paths[0], tmp_path / "drawn" / names[0]))
    assert (after == before).all()


def test_predicted_boxes_are_those_of_the_network(command: Command, eager: Path, images: Path) -> None:
    path = images / "val2017" / "000001.png"
    done = command("predict", eager, path, "--min-score", 0.2, "--json", "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    (found,) = json.loads(done.out).values()
    trained = open_checkpoint(eager)
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1) / 255
    with torch.inference_mode():
        (expected,) = trained.network.eval()([pixels])
    kept = expected["scores"] >= 0.2
    assert 0 < len(found) == kept.sum()
    assert [one["score"] for one in found] == pytest.approx(expected["scores"][kept].tolist(), abs=1e-5)
    assert sorted(found, key=lambda one: -one["score"]) == found
    boxes = torch.tensor([one["box"] for one in found])
    torch.testing.assert_close(boxes, expected["boxes"][kept], atol=1e-2, rtol=0)
    assert {one["class"] for one in found} <= {"quince", "apple", "pear"}
    # Of 32x48 pixels.
    assert (boxes >= 0).all()
    assert (boxes[:, [0, 2]] <= 32).all()
    assert (boxes[:, [1, 3]] <= 48).all()


@pytest.mark.slow
def test_a_checkpoint_is_exported(command: Command, coco_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    done = command("export-onnx", "--checkpoint", best(coco_run), "--out", path)
    assert (done.code, done.err) == (0, "")
    session = onnxruntime.InferenceSession(path)
    pixels = torch.randn(2, 3, 64, 64)
    network = open_checkpoint(best(coco_run)).network.eval()
    with torch.inference_mode():
        expected = network(pixels)
    # Nine anchors in each place of five levels; scores of three classes, and boxes.
    assert expected.shape == (2, 9 * (8 * 8 + 4 * 4 + 2 * 2 + 1 + 1), 7)
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-3)


def test_the_parts_of_a_profile_sum_to_its_totals(command: Command) -> None:
    done = command("profile", *DETECTOR, "--num-classes", 3, "--no-latency", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found["parts"]) == ["backbone", "pyramid", "head"]
    for figure in ("params", "flops"):
        parts = [part[figure] for part in found["parts"].values()]
        assert min(parts) > 0
        assert sum(parts) == found[figure]
    network = build("shufflenet_v2_x0_5", task="detection", resolution=64, num_classes=3, pyramid_channels=8)
    assert sum(p.numel() for p in network.parameters()) == found["params"]
    shown = command("profile", *DETECTOR, "--num-classes", 3, "--no-latency").out
    assert all(re.search(rf"^\W*{part}\b", shown, re.M) for part in found["parts"])


@pytest.mark.slow
def test_a_sweep_compares_detectors(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    grid = ("--method", "plain,weightnet", "--M", 2, "--G", 2, "--data", "scenes:2x16", "--seeds", 2)
    done = command("sweep", *DETECTOR, *grid, *SHORT[:4], "--no-latency", "--jobs", 1, "--out", run)
    assert done.code == 0, done.err
    assert re.search(r"\bAP +Δ AP\b", done.out)
    trained = [record for record in read_records(run) if record.figure == "training"]
    assert [(r.point.method, r.protocol["seed"]) for r in trained] == [
        *(("plain", 0), ("plain", 1), ("weightnet", 0), ("weightnet", 1)),
    ]
    with (run / "results.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"plain", "weightnet"}
    for method, row in rows.items():
        values = [record.value["ap"] for record in trained if record.point.method == method]
        assert float(row["ap"]) == pytest.approx(sum(values) / 2, abs=1e-9)
        assert float(row["seeds"]) == 2
    gap = float(rows["weightnet"]["ap"]) - float(rows["plain"]["ap"])
    assert float(rows["weightnet"]["ap_diff"]) == pytest.approx(gap, abs=1e-9)
    assert (run / "report.html").stat().st_size > 10_000
    found = json.loads(command("pick", run, "--objective", "ap", "--prefer", "params", "--json").out)
    assert "plain" in json.dumps(found)
    chosen = command("pick", run, "--objective", "ap", "--prefer", "params")
    assert (chosen.code, chosen.err) == (0, "")
    line = chosen.out.splitlines()[-1]
    built = eval(line, {"wnexplore": wnexplore})
    assert isinstance(built, Detector)
    assert sum(p.numel() for p in built.parameters()) == float(rows["plain"]["params"])


IMPOSSIBLE: list[tuple[tuple[object, ...], str]] = [
    (("train", *DETECTOR, "--data", "digits", *SHORT), "expected scenes or coco, or --task classification"),
    (("train", *DETECTOR, "--data", "shapes:2x8", *SHORT), "'shapes:2x8' is for task classification"),
    (("train", *DETECTOR[:2], "--data", "scenes:2x16", *SHORT), "or --task detection"),
    (("train", *DETECTOR, "--data", "scenes:2x1", *SHORT), "expected 4 to 10000000 images"),
    (("train", *DETECTOR, "--data", "coco:nowhere", *SHORT), "no folder nowhere"),
    (("train", *DETECTOR, "--stem", "small", "--data", "scenes", *SHORT), "no feature map at stride 16"),
    (("train", *DETECTOR, "--scales", "0", "--data", "scenes", *SHORT), "option --scales"),
    (("train", *DETECTOR[:2], "--scales", "64", "--data", "digits", *SHORT), "scales is for detection"),
    (("train", *DETECTOR, "--lr-schedule", "step", "--data", "scenes", *SHORT), "milestones"),
    (("profile", *DETECTOR, "--stem", "small", "--no-latency"), "no feature map at stride 16"),
    (("profile", *DETECTOR[:2], "--pyramid-channels", 8), "'classification' has no pyramid_channels"),
    (("profile", *DETECTOR, "--pyramid-channels", 0), "pyramid_channels is '0'"),
    (("profile", *DETECTOR[:2], "--task", "detect"), "'detection'"),
    (("sweep", *DETECTOR, "--data", "digits"), "expected scenes or coco, or --task classification"),
    (("sweep", *DETECTOR[:2], "--data", "scenes:2x16"), "or --task detection"),
    (("sweep", *DETECTOR[:6], "--resolution", 4000, "--data", "scenes:2x900"), "more than the 2.0 GB"),
    (("train", *DETECTOR, "--batch-norm", "frozen", "--data", "scenes", *SHORT), "or start_from"),
    (
        ("search", *DETECTOR, "--data", "scenes:2x16", "--objectives", "top1,flops"),
        "objective 'top1' isn't what every training on 'scenes:2x16' gives: choose from ap, ap50, ap75, ar",
    ),
    (("search", *DETECTOR, "--data", "scenes:2x16", "--objectives", "ap_large"), "objective 'ap_large'"),
]


@pytest.mark.parametrize(("given", "message"), IMPOSSIBLE)
def test_what_can_not_be_is_one_line(
    given: tuple[object, ...], message: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*given)
    assert (done.code, done.out) == (2, ""), done.err
    assert message in done.err
    assert done.err.startswith("wnexplore: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_detector_is_tested_on_boxes_of_its_classes_alone(command: Command, scenes_run: Path) -> None:
    for data, message in (("digits", "is for classification"), ("scenes:3x8", "it doesn't know")):
        done = command("evaluate", best(scenes_run), "--data", data)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert done.err.count("\n") == 1


def test_a_network_that_classifies_draws_no_boxes(command: Command, tmp_path: Path) -> None:
    backbone = ("--backbone", "shufflenet_v2_x0_5", "--resolution", 16, "--stem", "small")
    run = tmp_path / "run"
    trained = command("train", *backbone, "--data", "shapes:2x16", *SHORT, "--out", run)
    assert trained.code == 0, trained.err
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    done = command("predict", best(run), tmp_path / "a.png", "--out", tmp_path / "drawn")
    assert (done.code, done.out) == (2, "")
    assert "--out is for a detector" in done.err
    assert not (tmp_path / "drawn").exists()
    done = command("predict", best(run), tmp_path / "a.png", "--min-score", 0.1)
    assert (done.code, done.out) == (2, "")
    assert "--min-score is for a detector" in done.err
    done = command("evaluate", best(run), "--data", "scenes:2x8")
    assert (done.code, done.out) == (2, "")
    assert "is for detection" in done.err


def test_two_images_of_one_name_are_not_drawn_over_each_other(
    command: Command, eager: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "a.bmp"):
        Image.new("RGB", (20, 30)).save(tmp_path / name)
    done = command("predict", eager, tmp_path / "a.png", tmp_path / "a.bmp", "--out", tmp_path / "drawn")
    assert (done.code, done.out) == (2, "")
    assert "would both be drawn as a.png" in done.err
    assert not (tmp_path / "drawn").exists()
