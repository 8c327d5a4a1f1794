import json
import os
import re
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import wnexplore
from tests.cli.conftest import Command
from tests.sweeps import OWN
from wnexplore.design.point import DesignPoint
from wnexplore.models.onnx_export import Check

SMALL = (
    *("export-onnx", "--backbone", "resnet18", "--stem", "small", "--resolution", "16"),
    *("--num-classes", "10"),
)
TIMED = ("sweep", *SMALL[1:], "--device", "cpu", "--runtime", "onnxruntime", "--seconds", "0.001")


@pytest.mark.slow
def test_writes_the_network_of_the_point_and_the_seed(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    done = command(*SMALL, "--method", "se", "--seed", 3, "--out", path)
    assert (done.code, done.err) == (0, "")
    found = re.fullmatch(r"(.+): \d+\.\d MB, opset \d+, logits at most (\S+) of the largest .+\n", done.out)
    assert found, done.out
    assert found[1] == str(path)
    assert float(found[2]) <= 1e-4
    session = onnxruntime.InferenceSession(path)
    point = DesignPoint.from_dict(
        json.loads(session.get_modelmeta().custom_metadata_map["wnexplore.design_point"])
    )
    assert (point.method, point.resolution, point.num_classes) == ("se", 16, 10)
    torch.manual_seed(3)
    _same(wnexplore.build(point), path)


def test_takes_weights_from_a_checkpoint(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    backbone = f"{tmp_path / 'own.py'}:tiny"
    network = wnexplore.build(backbone, num_classes=10)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    path = tmp_path / "network.onnx"
    requested = ("--backbone", backbone, "--resolution", 16, "--num-classes", 10)
    done = command("export-onnx", *requested, "--checkpoint", tmp_path / "weights.pth", "--out", path)
    assert done.code == 0, done.err
    _same(network, path)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (("--method", "wightnet"), "'weightnet'"),
        (("--method", "weightnet", "--M", "1", "--G", "2"), "groups"),
        (("--seed", "-1"), "--seed"),
        (("--seed", "x"), "--seed"),
        (("--checkpoint", "nowhere.pth"), "nowhere.pth"),
        (("--out", "network.pth"), ".onnx"),
        (("--out", "nowhere/network.onnx"), "nowhere/network.onnx"),
        (("--out", "folder.onnx"), "folder.onnx"),
        (("--out", "a\0.onnx"), "--out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_is_reported_in_one_line(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requested: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    done = command(*SMALL, "--out", "network.onnx", *requested)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["folder.onnx"]


def test_weights_of_another_network(command: Command, tmp_path: Path) -> None:
    other = wnexplore.build("resnet18", "se", stem="small", num_classes=10)
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    done = command(*SMALL, "--checkpoint", tmp_path / "weights.pth", "--out", tmp_path / "network.onnx")
    assert done.code == 2
    assert "weights.pth" in done.err
    assert done.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["weights.pth"]


def test_where_onnx_is_not_installed_the_extra_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for requested in ((*SMALL, "--out", tmp_path / "network.onnx"), (*TIMED, "--out", tmp_path / "run")):
        done = command(*requested)
        assert done.code == 2
        assert 'pip install "wnexplore[onnx]"' in done.err
        assert done.err.count("\n") == 1
        assert not os.listdir(tmp_path)


def test_a_file_that_differs_from_torch_is_an_error(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wnexplore.models.onnx_export.check_onnx", lambda *a, **b: Check(18, float("nan")))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(OWN)
    tiny = ("export-onnx", "--backbone", f"{tmp_path}/own/own.py:tiny", "--resolution", 16)
    done = command(*tiny, "--out", tmp_path / "network.onnx")
    assert (done.code, done.out) == (1, "")
    assert re.search(r"\bnan\b.*\b1 and 7\b.*\b0\.0001\b", done.err)
    assert os.listdir(tmp_path) == ["own"]
    (tmp_path / "network.onnx").write_bytes(b"of before")
    assert command(*tiny, "--out", tmp_path / "network.onnx").code == 1
    assert (tmp_path / "network.onnx").read_bytes() == b"of before"


def _same(network: nn.Module, path: Path) -> None:
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = network.eval()(images)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
