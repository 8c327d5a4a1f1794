"""evaluate and predict on the same image files, and classes by their names."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Command
from tests.data.files import png, tiff
from tests.data.unreadable import unreadable
from wnexplore.data.folder import IMAGENET_MEAN, IMAGENET_STD
from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.point import DesignPoint
from wnexplore.models import build
from wnexplore.training.checkpoint import CheckpointMetadata, open_checkpoint, save_checkpoint
from wnexplore.training.evaluate import test_data as data_for

CLASSES = ("cat", "ant", "dog")
FOLDERS = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, crop=224 / 256, ranges={"uint16": (0, 4095)})
DIGITS = Preprocessing((0.3,) * 3, (0.4,) * 3, grey=True)


def a_checkpoint(path: Path, how: Preprocessing, classes: tuple[str, ...] = CLASSES) -> Path:
    torch.manual_seed(0)
    point = DesignPoint.of("shufflenet_v2_x0_5", stem="small", resolution=32, num_classes=len(classes))
    network = build(point)
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 32, 32) + 1)  # statistics that normalise
    save_checkpoint(
        path, network, CheckpointMetadata(point, "digits", classes, how, {}, seed=0, step=1, epoch=1.0)
    )
    return path


@pytest.fixture(scope="module", params=["folder", "digits"])
def checkpoint(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Weights for images as in folders, and as digits are: grey, and resized whole."""
    how = FOLDERS if request.param == "folder" else DIGITS
    return a_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.safetensors", how)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """val/CLASS with an image of each kind in every class."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        folder = tmp_path / "images" / "val" / name
        folder.mkdir(parents=True)
        pixels = random.integers(256, size=(50, 70, 4), dtype=np.uint8)
        full = Image.fromarray(pixels, "RGBA")
        exif = Image.Exif()
        exif[0x0112] = 6
        full.convert("RGB").save(folder / "turned.jpg", exif=exif)
        full.save(folder / "transparent.png")
        full.convert("CMYK").save(folder / "cmyk.jpg")
        full.convert("1").save(folder / "bits.png")
        full.resize((3, 900)).save(folder / "high.png")
        full.resize((32, 32)).convert("L").save(folder / "as large.png")
        deep = random.integers(4096, size=(40, 30, 3), dtype=np.uint16)
        (folder / "grey.png").write_bytes(png(deep[..., 0]))
        (folder / "colours.png").write_bytes(png(deep))
        (folder / "grey.tif").write_bytes(tiff(deep[..., 0], order=">"))
        (folder / "floats.tif").write_bytes(tiff((deep[..., 0] / 4095).astype(np.float32)))
    return tmp_path / "images"


def loss_by_predict(command: Command, checkpoint: Path, folder: Path) -> float:
    """Mean cross-entropy of the images of `folder` by what `predict` answers."""
    paths = sorted(path for path in folder.rglob("*.*") if path.is_file())
    message = command("predict", checkpoint, *paths, "--json", "--device", "cpu")
    assert message.code == 0
    answers = {
        path: {answer["class"]: answer["probability"] for answer in found}
        for path, found in json.loads(message.out).items()
    }
    return sum(-math.log(found[Path(path).parent.name]) for path, found in answers.items()) / len(paths)


def test_predict_sees_images_as_evaluate_does(command: Command, checkpoint: Path, images: Path) -> None:
    message = command("evaluate", checkpoint, "--data", f"folder:{images}", "--json", "--device", "cpu")
    assert message.code == 0
    found = json.loads(message.out)
    assert found["images"] == 30
    assert found["test_loss"] == found["loss"]
    assert found["loss"] == pytest.approx(loss_by_predict(command, checkpoint, images), rel=1e-5)


def test_images_that_differ_give_other_answers(command: Command, checkpoint: Path, images: Path) -> None:
    """Nothing above is white, or black, whatever it shows."""
    paths = sorted((images / "val").rglob("*.*"))
    message = command("predict", checkpoint, *paths, "--json", "--device", "cpu")
    answers = json.loads(message.out)
    for name in {path.name for path in paths}:
        assert len({json.dumps(answers[str(path)]) for path in paths if path.name == name}) == 3, name


def test_bad_files_are_reported_and_the_others_answered(
    command: Command, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    bad = {name: message for name, message in unreadable(tmp_path / "bad").items() if "\0" not in name}
    good = images / "val" / "cat" / "bits.png"
    paths = [f"{tmp_path}/bad/{name}" for name in bad]
    message = command("predict", checkpoint, *paths[:5], good, *paths[5:], good, "--device", "cpu")
    assert message.code == 1
    assert message.out.startswith(f"{good}: ")
    assert message.out.count("\n") == 1
    lines = message.err.splitlines()
    assert len(lines) == len(bad)
    for line, reason in zip(lines, bad.values(), strict=True):
        assert f"{tmp_path}/bad/" in line
        assert reason in line
    assert command("predict", checkpoint, good, good, "--device", "cpu").code == 0


def test_a_damaged_image_is_reported_with_the_reason(command: Command, images: Path, tmp_path: Path) -> None:
    (images / "val" / "cat" / "\x1b[31mred.png").write_bytes(b"no image")
    weights = a_checkpoint(tmp_path / "best.safetensors", FOLDERS)
    done = command("evaluate", weights, "--data", f"folder:{images}", "--device", "cpu")
    assert done.code == 0, done.err
    reason = "not an image of a supported format"
    assert done.err == f"skipped, as it can't be read: {images}/val/cat/\\x1b[31mred.png: {reason}\n"


def test_names_of_files_that_are_no_text_are_escaped(
    command: Command, checkpoint: Path, images: Path
) -> None:
    odd = images / "val" / "cat" / "a\nb\x1b[31m\udcff.png"
    shutil.copy(images / "val" / "cat" / "bits.png", odd)
    message = command("predict", checkpoint, odd, "--device", "cpu")
    assert message.code == 0
    assert "a\\nb\\x1b[31m\\udcff.png: " in message.out
    message = command("predict", checkpoint, odd, "--device", "cpu", "--json")
    assert list(json.loads(message.out)) == [str(odd)]


def evaluated(command: Command, checkpoint: Path, images: Path) -> tuple[dict[str, float], str]:
    message = command("evaluate", checkpoint, "--data", f"folder:{images}", "--json", "--device", "cpu")
    assert message.code == 0, message.err
    return json.loads(message.out), message.err


def test_classes_are_known_by_their_names_in_any_order(
    command: Command, images: Path, tmp_path: Path
) -> None:
    losses = []
    for order in ((0, 1, 2), (2, 0, 1)):
        classes = tuple(CLASSES[index] for index in order)
        checkpoint = a_checkpoint(tmp_path / "x.safetensors", FOLDERS, classes)
        found, _ = evaluated(command, checkpoint, images)
        assert found["loss"] == pytest.approx(loss_by_predict(command, checkpoint, images), rel=1e-5)
        losses.append(found["loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_a_data_set_of_some_of_the_classes_is_tested_against_all(
    command: Command, images: Path, tmp_path: Path
) -> None:
    checkpoint = a_checkpoint(tmp_path / "x.safetensors", FOLDERS)
    shutil.rmtree(images / "val" / "cat")
    found, message = evaluated(command, checkpoint, images)
    assert found["images"] == 20
    assert found["loss"] == pytest.approx(loss_by_predict(command, checkpoint, images), rel=1e-5)
    assert "'cat'" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"ant": "a_ant", "cat": "b_cat"}, "'a_ant', 'b_cat'"),
        ({"ant": "Ant"}, "'Ant'"),
        ({"": "bee"}, "'bee'"),
        ({"ant": "a\n\x1b[31m"}, "'a\\n\\x1b[31m'"),
    ],
)
def test_other_classes_are_refused_by_name(
    command: Command, images: Path, tmp_path: Path, renamed: dict[str, str], message: str
) -> None:
    checkpoint = a_checkpoint(tmp_path / "x.safetensors", FOLDERS)
    for old, new in renamed.items():
        if old:
            (images / "val" / old).rename(images / "val" / new)
        else:
            shutil.copytree(images / "val" / "cat", images / "val" / new)
    done = command("evaluate", checkpoint, "--data", f"folder:{images}")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_deep_images_that_the_training_had_none_of_are_reported(
    command: Command, images: Path, tmp_path: Path
) -> None:
    plain = a_checkpoint(tmp_path / "x.safetensors", Preprocessing(IMAGENET_MEAN, IMAGENET_STD, crop=0.875))
    _, message = evaluated(command, plain, images)
    facts = r"\buint16\b.*\b0\b.*\b65535\b.*\b4095$"
    assert re.search(rf"{images}/val\b.*{facts}", message, re.M)
    deep, colours = images / "val" / "cat" / "grey.png", images / "val" / "cat" / "colours.png"
    done = command("predict", plain, deep, colours, images / "val" / "cat" / "bits.png")
    assert done.code == 0
    assert re.fullmatch(rf"{deep}\b.*{facts}", done.err.rstrip("\n"))
    known = a_checkpoint(tmp_path / "y.safetensors", FOLDERS)
    assert command("predict", known, deep, colours).err == ""


def test_the_range_of_a_training_is_in_its_checkpoint(images: Path, tmp_path: Path) -> None:
    path = a_checkpoint(tmp_path / "x.safetensors", FOLDERS)
    trained = open_checkpoint(path)
    assert trained.metadata.preparation == FOLDERS
    data = data_for(trained, f"folder:{images}", None, lambda line: None)
    assert data.classes == CLASSES


def test_a_network_that_diverged_is_reported(command: Command, images: Path, tmp_path: Path) -> None:
    path = a_checkpoint(tmp_path / "x.safetensors", FOLDERS)
    trained = open_checkpoint(path)
    with torch.no_grad():
        next(trained.network.parameters()).fill_(float("nan"))
    save_checkpoint(path, trained.network, trained.metadata)
    done = command("evaluate", path, "--json", "--data", f"folder:{images}")
    assert (done.code, done.out) == (1, "")
    assert "finite" in done.err
    done = command("predict", path, images / "val" / "cat" / "bits.png")
    assert (done.code, done.out) == (1, "")
    assert "finite" in done.err
