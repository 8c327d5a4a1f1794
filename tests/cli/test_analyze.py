import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.cli.conftest import Command
from wnexplore.data import load_data
from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.point import DesignPoint
from wnexplore.models import build
from wnexplore.nn import WeightNetConv2d
from wnexplore.training.analyze import analyze
from wnexplore.training.checkpoint import CheckpointMetadata, open_checkpoint, save_checkpoint


def _checkpoint(path: Path, method: str, *, constant: bool = False) -> Path:
    torch.manual_seed(0)
    point = DesignPoint.of("shufflenet_v2_x0_5", method, stem="small", resolution=16, num_classes=10)
    network = build(point)
    for module in network.modules():
        if isinstance(module, WeightNetConv2d):
            # As a training would leave it: fc1 starts out small.
            nn.init.normal_(module.fc1.weight, std=0.0 if constant else 2.0)
    how = Preprocessing((0.5,) * 3, (0.5,) * 3)
    classes = tuple("0123456789")
    save_checkpoint(
        path, network, CheckpointMetadata(point, "digits", classes, how, {}, seed=0, step=1, epoch=1.0)
    )
    return path


@pytest.fixture(scope="module")
def weightnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("weightnet") / "best.safetensors", "weightnet")


def test_looks_at_every_layer_and_writes_files(command: Command, weightnet: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = command("analyze", weightnet, "--samples", 40, "--out", out, "--device", "cpu")
    assert done.code == 0, done.err
    assert re.search(r"\bdigits\b.*\b40\b.*\b780\b", done.out)
    files = ["kernels.csv", "similarity.png", "alpha.png", "tsne.png"]
    assert done.out.splitlines()[-4:] == [str(out / name) for name in files]
    rows = list(csv.DictReader((out / "kernels.csv").open()))
    assert len(rows) == 54
    assert all(line["layer"] in done.out for line in rows)
    first = rows[0]
    assert (first["layer"], first["in_channels"], first["kernel_size"], first["stride"], first["groups"]) == (
        *("stage2.0.branch1.0", "24", "3x3", "2x2", "24"),
    )
    for row in rows:
        low, mean = float(row["cosine_min"]), float(row["cosine_mean"])
        assert -1 <= low < mean < 1, row
        # Of 40 images 780 pairs: the mean lies between those of the two kinds of pairs.
        kinds = float(row["cosine_within_class"]), float(row["cosine_between_classes"])
        assert min(kinds) <= mean <= max(kinds)
        assert 0 < float(row["alpha_std"]) <= 0.5
    for name in files[1:]:
        with Image.open(out / name) as picture:
            picture.load()
            assert picture.width == 700
    before = {name: (out / name).read_bytes() for name in files}
    other = command(
        *("analyze", weightnet, "--samples", 40, "--out", out, "--layer", "stage3.1.branch2.3", "--seed", 1)
    )
    assert other.code == 0
    changed = {name for name in files if (out / name).read_bytes() != before[name]}
    assert changed == {"tsne.png"}


def test_one_kernel_for_all_images_has_no_map(command: Command, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "best.safetensors", "weightnet", constant=True)
    done = command("analyze", path, "--samples", 8, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("alpha.png", "kernels.csv", "similarity.png"),
    ]
    assert "t-SNE" in done.err
    rows = list(csv.DictReader((tmp_path / "out" / "kernels.csv").open()))
    assert {row["alpha_dead"] for row in rows} == {"1.0"}
    assert min(float(row["cosine_min"]) for row in rows) == pytest.approx(1)


def test_images_in_folders_are_taken_from_all_classes(
    command: Command, weightnet: Path, tmp_path: Path
) -> None:
    for part in ("train", "val"):
        for label in range(10):
            folder = tmp_path / "data" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(4 if part == "val" else 1):
                Image.new("RGB", (20, 20), (25 * label, 60 * number, 0)).save(folder / f"{number}.png")
    done = command(
        *("analyze", weightnet, "--data", f"folder:{tmp_path / 'data'}", "--samples", 20),
        *("--out", tmp_path / "out", "--device", "cpu"),
    )
    assert done.code == 0, done.err
    assert re.search(r"\bfolder\b.*\b20\b.*\b190\b", done.out)
    rows = list(csv.DictReader((tmp_path / "out" / "kernels.csv").open()))
    # Two of each class: 10 pairs within, 180 between.
    row = rows[-1]
    within, between = float(row["cosine_within_class"]), float(row["cosine_between_classes"])
    assert float(row["cosine_mean"]) == pytest.approx((10 * within + 180 * between) / 190)


def test_classes_of_other_names_are_refused(command: Command, weightnet: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        for label in range(10):
            folder = tmp_path / "data" / part / f"class{label}"
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(folder / "0.png")
    out = tmp_path / "out"
    done = command("analyze", weightnet, "--data", f"folder:{tmp_path / 'data'}", "--out", out)
    assert done.code == 2
    assert "'class0'" in done.err
    assert not out.exists()


@pytest.mark.parametrize("samples", [50, 90])
def test_drawn_images_are_taken_from_all_classes(weightnet: Path, samples: int) -> None:
    # Image i is of class i modulo 10: every tenth one would be of one class.
    data = load_data("shapes:10x400", resolution=16)
    found = analyze(open_checkpoint(weightnet), data, samples=samples, layer=None, seed=0, device="cpu")
    assert found.map is not None
    counts = np.bincount(found.map.labels, minlength=10)
    assert counts.sum() == samples
    assert counts.min() >= 2


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (("--layer", "stage3.1.branch2"), "stage3.1.branch2.0"),
        (("--samples", "1"), "--samples"),
        (("--data", "mnist"), "'mnist'"),
        (("--data", "shapes:20"), "20 classes"),
        (("--device", "tpu"), "tpu"),
        (("--out", "FILE"), "FILE"),
    ],
)
def test_what_can_not_be_is_reported_in_one_line(
    command: Command, weightnet: Path, tmp_path: Path, requested: tuple[str, str], message: str
) -> None:
    (tmp_path / "FILE").touch()
    option, value = requested
    given = tmp_path / value if option == "--out" else value
    out = () if option == "--out" else ("--out", tmp_path / "out")
    done = command("analyze", weightnet, *out, option, given)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err


def test_a_method_without_generated_kernels_is_named(command: Command, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "best.safetensors", "se")
    done = command("analyze", path, "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "'se'" in done.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_reported(command: Command, tmp_path: Path) -> None:
    done = command("analyze", tmp_path / "none.safetensors")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "none.safetensors" in done.err
