"""wnexplore train, evaluate and predict, and what else reads the checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Command
from tests.training.runs import NETWORK
from wnexplore.cli import main
from wnexplore.data import load_data
from wnexplore.training.checkpoint import open_checkpoint
from wnexplore.training.log import read_log


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a short training."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "mine.py").write_text(NETWORK)
    options = (
        *("--backbone", f"{folder / 'mine.py'}:make", "--method", "weightnet", "--resolution", "16"),
        *("--data", "digits", "--epochs", "3", "--batch-size", "64", "--lr", "0.1", "--device", "cpu"),
    )
    with pytest.raises(SystemExit) as stop:
        main(["train", *options, "--out", str(folder / "run")])
    assert stop.value.code == 0
    return folder / "run"


def best(run: Path) -> Path:
    return run / "checkpoints" / "best.safetensors"


def named(run: Path) -> tuple[object, ...]:
    """The best weights, and the file of their network, as a person names them."""
    return best(run), "--backbone", f"{run.parent / 'mine.py'}:make"


def test_the_best_weights_have_the_accuracy_of_the_log(trained: Path, command: Command) -> None:
    tested = [row for row in read_log(trained) if row.top1 is not None]
    assert [row.epoch for row in tested] == [1, 2, 3]
    largest = max(tested, key=lambda row: row.top1 or 0)
    found = json.loads(command("evaluate", *named(trained), "--json").out)
    # The test runs in batches of another size: a tie may fall otherwise.
    assert found["top1"] == pytest.approx(largest.top1, abs=0.3)
    assert found["top5"] == pytest.approx(largest.top5, abs=0.3)
    assert found["loss"] == pytest.approx(largest.test_loss, rel=1e-3)
    assert found["images"] == 360
    line = command("evaluate", *named(trained)).out
    assert f"top-1 {found['top1']:.2f} %" in line
    assert " 360 " in line


def test_a_training_is_a_row_of_a_table(trained: Path, command: Command) -> None:
    last = [row.top1 for row in read_log(trained) if row.top1 is not None][-1]
    (row,) = json.loads(command("export", trained, "--format", "json").out)
    assert row["top1"] == last
    assert (row["dataset"], row["epochs"], row["seeds"]) == ("digits", 3, 1)


def test_images_in_files_are_seen_as_those_of_the_test(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    split = load_data("digits", resolution=16).test
    network = open_checkpoint(best(trained), f"{trained.parent / 'mine.py'}:make").network
    images, _ = next(iter(split.batches(40, "cpu")))
    with torch.inference_mode():
        shares = network(images).softmax(1)
    paths = []
    for number, pixels in enumerate(split.images[:40, 0].numpy()):  # type: ignore[attr-defined]
        paths.append(tmp_path / f"{number}.png")
        # 16 is white in these digits, 255 in a file.
        Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(paths[-1])
    answers = json.loads(command("predict", *named(trained), *paths, "--json").out)
    for path, expected in zip(paths, shares, strict=True):
        first = answers[str(path)][0]
        assert len(answers[str(path)]) == 5
        assert expected[int(first["class"])] == pytest.approx(first["probability"], abs=0.02)
        assert first["probability"] == pytest.approx(float(expected.max()), abs=0.02)


def test_an_image_that_cant_be_read_is_reported_and_the_others_are_answered(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    Image.new("RGB", (30, 20), "white").save(tmp_path / "white.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    message = command(
        "predict", *named(trained), tmp_path / "bad.png", tmp_path / "white.png", tmp_path / "none.png"
    )
    assert message.code == 1
    assert message.out.startswith(f"{tmp_path / 'white.png'}: ")
    lines = message.err.splitlines()
    assert [line.partition(": ")[2].partition(" image ")[2].partition(": ")[0] for line in lines] == [
        str(tmp_path / "bad.png"),
        str(tmp_path / "none.png"),
    ]


def test_a_checkpoint_says_which_network_to_export(trained: Path, command: Command, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    message = command("export-onnx", "--checkpoint", *named(trained), "--out", tmp_path / "x.onnx")
    assert message.code == 0, message.err
    (point,) = (p.value for p in onnx.load(tmp_path / "x.onnx").metadata_props if "design_point" in p.key)
    assert json.loads(point)["num_classes"] == 10


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--backbone", "resnet18", "--data", "digit"], "'digits'"),
        (["train", "--backbone", "resnet18", "--data", "folder:none"], "none"),
        (["train", "--backbone", "resnet18", "--recipe", "nothing"], "'nothing'"),
        (["train", "--backbone", "resnet18", "--epochs", "2", "--steps", "3"], "steps"),
        (["train", "--backbone", "resnet18", "--ema", "2"], "--ema"),
        (["train", "--backbone", "resnet18", "--method", "weightnet", "--M", "1", "--G", "2"], "G"),
        (["evaluate", "nothing.safetensors"], "nothing.safetensors"),
        (["predict", "nothing.safetensors", "x.png"], "nothing.safetensors"),
        (["export-onnx", "--out", "x.onnx"], "--backbone"),
    ],
)
def test_bad_input_is_one_line(
    command: Command, arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = command(*arguments)
    assert message.code == 2
    assert message.err.count("\n") == 1
    assert line in message.err
    assert list(tmp_path.iterdir()) == []


def test_another_data_set_must_have_the_classes_of_the_network(trained: Path, command: Command) -> None:
    told = command("evaluate", *named(trained), "--data", "shapes:20")
    assert told.code == 2
    assert "20 classes" in told.err
    told = command("evaluate", *named(trained), "--data", "shapes")
    assert told.code == 2
    assert "shapes" in told.err
    assert told.err.count("\n") == 1
