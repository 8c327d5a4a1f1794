"""Commands on a network that takes the GPU's context with it, played by one that raises what torch would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.cli.conftest import Command
from tests.data.files import png
from tests.measure.cuda_errors import ADVICE
from tests.sweeps import OWN
from wnexplore.data import load_data
from wnexplore.design.data_source import parse_data
from wnexplore.design.external_names import source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.models import build
from wnexplore.training.checkpoint import CheckpointMetadata, save_checkpoint
from wnexplore.training.evaluate import preparation

LOST = "CUDA error: an illegal memory access was encountered"
ERROR = getattr(torch, "AcceleratorError", RuntimeError)
"""What torch raises where CUDA fails; older versions have no type of its own for it."""
NETWORKS = f"""{OWN}
import torch

Error = getattr(torch, "AcceleratorError", RuntimeError)

class Poisoned(nn.Sequential):
    def forward(self, x):
        if self.poisoned(x):
            raise Error({LOST + ADVICE!r})
        return super().forward(x)

class One(Poisoned):
    def poisoned(self, images):
        return not torch.compiler.is_compiling() and len(images) == 1 and bool(images.any())

class Many(Poisoned):
    def poisoned(self, images):
        return len(images) > 2

def one(num_classes=10):
    return One(*tiny(num_classes))

def many(num_classes=10):
    return Many(*tiny(num_classes))
"""
SMALL = ("--resolution", 8, "--num-classes", 10)
QUICK = ("--seconds", 0.001, "--device", "cpu")


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS)
    return path


def a_checkpoint(networks: Path, function: str, method: str) -> tuple[Path, str]:
    """A checkpoint of the network, and its backbone's name."""
    torch.manual_seed(0)
    name = f"{networks}:{function}"
    pair = () if method == "plain" else (1, 1)
    point = DesignPoint.of(name, method, *pair, resolution=8, num_classes=10)
    data = load_data(parse_data("digits"), resolution=8)
    source = source_hash(point.backbone)
    metadata = CheckpointMetadata(
        point, "digits", data.classes, preparation(data.test), {}, 0, 1, 1.0, source=source
    )
    path = networks.with_name("best.safetensors")
    save_checkpoint(path, build(point), metadata)
    return path, name


def check(command: Command, *arguments: object, resumable: bool = False) -> str:
    """That the command ends with one line, of a lost context, and exit code 1."""
    done = command(*arguments)
    assert done.code == 1, done
    lines = [line for line in done.err.splitlines() if line.startswith("wnexplore: ")]
    assert len(lines) == 1, done
    assert "context was lost" in lines[0]
    assert LOST in lines[0]
    assert "unexpected" not in done.err
    assert ("same command" in lines[0]) == resumable
    return done.out


@pytest.mark.parametrize(
    "command_name", ["evaluate", "predict", "analyze", pytest.param("export-onnx", marks=pytest.mark.slow)]
)
def test_checkpoints(command: Command, networks: Path, tmp_path: Path, command_name: str) -> None:
    function = "many" if command_name in ("evaluate", "analyze") else "one"
    path, backbone = a_checkpoint(networks, function, "weightnet" if command_name == "analyze" else "plain")
    image = tmp_path / "image.png"
    image.write_bytes(png(np.zeros((8, 8), np.uint8)))
    arguments: dict[str, tuple[object, ...]] = {
        "evaluate": (path, "--backbone", backbone, "--device", "cpu", "--json"),
        "predict": (path, image, "--backbone", backbone, "--device", "cpu"),
        "analyze": (path, "--backbone", backbone, "--device", "cpu", "--out", tmp_path / "analysis"),
        "export-onnx": ("--checkpoint", path, "--backbone", backbone, "--out", tmp_path / "x.onnx"),
    }
    assert check(command, command_name, *arguments[command_name]) == ""
    assert not (tmp_path / "analysis").exists()


@pytest.mark.parametrize("options", [("--batch-size", 4), ("--no-latency", "--layers", "--batch-size", 4)])
def test_profile(command: Command, networks: Path, options: tuple[object, ...]) -> None:
    check(command, "profile", "--backbone", f"{networks}:many", *SMALL, *QUICK, *options)


def test_race(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only layers run on the device that is timed, each by itself.
    def poisoned(*_: object) -> Tensor:
        raise ERROR(LOST + ADVICE)

    monkeypatch.setattr("wnexplore.measure.layer_benchmark.apply_generated", poisoned)
    options = ("--batch-size", 4, "--stem", "small", "--resolution", 16, "--layer", "stage2.1.branch2.0")
    check(command, "race", "--backbone", "shufflenet_v2_x0_5", *options, *QUICK)


@pytest.mark.slow
def test_sweeps_and_searches_resume(command: Command, networks: Path, tmp_path: Path) -> None:
    options = ("--backbone", f"{networks}:many", "--method", "plain", *SMALL, *QUICK, "--batch-size", 4)
    for name in ("sweep", "search"):
        out = ("--out", tmp_path / name)
        check(command, name, *options, *out, resumable=True)
        # Which network it was is known, and recorded: the same command has nothing left to do.
        assert "context was lost" not in command(name, *options, *out).err.replace("failed: ", "")
