"""Networks by name from torchvision, timm and files: loaded, counted, built as design points."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from tests.built import counts_of
from tests.examples import rest_slow
from wnexplore.design.counts import count
from wnexplore.design.external_names import check_name, is_external, source_hash
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models.build import build
from wnexplore.models.external import external_skeleton, load
from wnexplore.nn import GeneratedConv2d
from wnexplore.space.skeleton_cache import skeleton_of

FILE = """
from torch import nn
from blocks import WIDTH, block

def net(num_classes):
    layers = [nn.Conv2d(3, WIDTH, 3, 2, 1), block(WIDTH, 16, 2), block(16, 16, 1), block(16, 32, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))

class Ten(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

made = Ten()
number = 3

def failing(num_classes):
    raise RuntimeError("no such\\nluck")

def leaving():
    raise SystemExit(3)

def numbers():
    return [1, 2]
"""
BLOCKS = """
from torch import nn

WIDTH = 8

class Block(nn.Sequential):
    pass

def block(into, out, stride):
    return Block(
        nn.Conv2d(into, out, 3, stride, 1, groups=4),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.Conv2d(out, out, 5, 1, 2, groups=out, bias=False),
        nn.Conv2d(out, out, (1, 1)),
        nn.ReLU(),
    )
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "blocks.py").write_text(BLOCKS)
    (tmp_path / "net.py").write_text(FILE)
    path = list(sys.path)
    yield tmp_path / "net.py"
    assert sys.path == path, "the folder can be imported from while its file runs"
    sys.modules.pop("blocks", None)


@pytest.mark.parametrize(
    "name", ["timm:resnet50.a1_in1k", "torchvision:resnet18", "a/b.py:net", "C:\\a.py:net"]
)
def test_names_of_networks_from_elsewhere(name: str) -> None:
    assert is_external(name)
    check_name(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:", "torchvision:NAME, timm:NAME or path/to/file.py:function"),
        (":resnet18", "torchvision:NAME"),
        ("tim:resnet18", "'timm'"),
        ("timm:hf_hub:author/net", "torchvision, timm, path/to/file.py"),
        ("net.txt:net", "torchvision, timm, path/to/file.py"),
        ("net.py:net()", "function"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        DesignPoint.of(name)


def test_a_changed_file_has_another_hash(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_bytes(b"one")
    assert source_hash(f"{tmp_path}/net.py:net") == hashlib.sha256(b"one").hexdigest()[:12]
    assert source_hash("timm:resnet18") is None
    with pytest.raises(InputError, match=r"missing.py"):
        source_hash(f"{tmp_path}/missing.py:net")


def test_networks_of_the_libraries() -> None:
    torch.manual_seed(0)
    ours = load("torchvision:resnet18", 7)
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=7)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())
    assert load("timm:mobilenetv3_small_050", 7).get_classifier().out_features == 7  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", "'resnet19'.*resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "'fasterrcnn_resnet50_fpn'"),
        ("timm:mobilnetv3_small_100", "'mobilnetv3_small_100'.*mobilenetv3_small_100"),
        ("timm:qqqqqqqq", "'qqqqqqqq'$"),
    ],
)
def test_unknown_networks_of_the_libraries(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(name, 10)


def test_timm_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'pip install "wnexplore\[timm\]"'):
        load("timm:resnet18", 10)


def test_a_file_may_import_its_neighbours(file: Path) -> None:
    torch.manual_seed(0)
    model = load(f"{file}:net", 5)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert load(f"{file}:Ten", 5)(torch.zeros(2, 3, 32, 32)).shape == (2, 10), "it takes no number of classes"
    assert type(load(f"{file}:net", 5)[1]) is type(model[1]), "one module, not one for each network"  # type: ignore[index]


def test_a_file_that_changed_or_whose_neighbour_did_is_run_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", False)

    def width() -> int:
        model = load(f"{file}:net", 5)
        stem = model.get_submodule("0")
        assert isinstance(stem, nn.Conv2d)
        return stem.out_channels

    assert width() == 8
    blocks = file.parent / "blocks.py"
    written = blocks.stat().st_mtime_ns
    blocks.write_text(BLOCKS.replace("WIDTH = 8", "WIDTH = 4"))
    # Of the same size, within the same tick of the clock.
    os.utime(blocks, ns=(written, written))
    assert width() == 4
    file.write_text(FILE.replace("(3, WIDTH", "(3, 2 * WIDTH").replace("block(WIDTH", "block(2 * WIDTH"))
    assert width() == 8


def test_two_folders_have_each_its_own_neighbours(file: Path) -> None:
    other = file.parent / "other"
    other.mkdir()
    (other / "net.py").write_text(FILE)
    (other / "blocks.py").write_text(BLOCKS.replace("WIDTH = 8", "WIDTH = 4"))
    widths = [load(f"{folder}/net.py:net", 5)[0].out_channels for folder in (file.parent, other) * 2]  # type: ignore[index]
    assert widths == [8, 4, 8, 4]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nett", r"'nett'.*\bnet\b"),
        ("failing", "RuntimeError: no such luck$"),
        ("leaving", "SystemExit: 3$"),
        ("numbers", "list.*torch.nn.Module"),
        ("made", "'made'"),
        ("number", "'number'"),
    ],
)
def test_what_a_file_does_wrong_is_reported_in_one_line(file: Path, function: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(f"{file}:{function}", 10)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net.py"):
        load(f"{tmp_path}/net.py:net", 10)
    (tmp_path / "net.py").write_text("def net(:")
    with pytest.raises(InputError, match="SyntaxError"):
        load(f"{tmp_path}/net.py:net", 10)


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        pytest.param("torchvision:resnet18", 19, marks=pytest.mark.slow),
        ("torchvision:squeezenet1_1", 25),
        pytest.param("torchvision:regnet_y_400mf", 52, marks=pytest.mark.slow),
        pytest.param("timm:mobilenetv3_small_100", 33, marks=pytest.mark.slow),
        pytest.param("timm:convnext_atto", 39, marks=pytest.mark.slow),
    ],
)
def test_skeletons_count_as_the_network_does(name: str, sites: int) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    skeleton = external_skeleton(name, 64, 10)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(skeleton.blocks) == sites
    in_blocks = [site for block in skeleton.blocks for site in block.sites]
    counted = counts_of(load(name, 10), 64)
    assert skeleton.params + sum(site.weights for site in in_blocks) == counted.params
    assert skeleton.flops + sum(site.weights * site.pixels for site in in_blocks) == counted.flops


def test_attention_is_counted_as_its_two_products() -> None:
    skeleton = external_skeleton("timm:vit_tiny_patch16_224", 224, 10)
    assert skeleton.blocks == (), "its only convolution is the first one"
    tokens, width = 14 * 14 + 1, 192
    # Each layer: queries, keys and values, the two products, what follows them, and 4 times as wide a pair.
    layer = tokens * width * 3 * width + 2 * tokens**2 * width + tokens * width**2 + 8 * tokens * width**2
    assert skeleton.flops == 14 * 14 * 3 * 16**2 * width + 12 * layer + width * 10


def test_stages_are_those_of_large_images(file: Path) -> None:
    small, large = (external_skeleton(f"{file}:net", resolution, 10) for resolution in (8, 224))
    assert [block.stage for block in small.blocks] == [2] * 3 + [2] * 3 + [3] * 3
    assert [block.stage for block in large.blocks] == [block.stage for block in small.blocks]
    assert [block.gate_pixels for block in small.blocks] == [4] * 6 + [1] * 3
    block = large.blocks[1]
    assert (block.name, block.context_channels, block.gate_channels) == ("1.3", 16, 16)
    assert block.sites[0].depthwise


@pytest.mark.parametrize("method", rest_slow(METHODS, "plain", "cbam", "condconv", "weightnet"))
def test_counts_equal_those_of_the_network_built_and_run(file: Path, method: str) -> None:
    point = DesignPoint.of(f"{file}:net", method, resolution=32, num_classes=10)
    assert count(point, external_skeleton(point.backbone, 32, 10)) == counts_of(build(point), 32)


def test_points_of_a_file(file: Path) -> None:
    name = f"{file}:net"
    plain = build(name, num_classes=10)
    assert not any(isinstance(module, GeneratedConv2d) for module in plain.modules())
    some = build(name, "weightnet", {2: 4, 3: 1}, {2: 1, 3: 1}, stages="2+3", num_classes=10)
    assert {layer.M for layer in some.modules() if isinstance(layer, GeneratedConv2d)} == {4, 1}
    only = build(name, "condconv", stages=3, num_classes=10)
    assert [n for n, layer in only.named_modules() if isinstance(layer, GeneratedConv2d)] == [
        "3.0.conv",
        "3.3",
        "3.4.conv",
    ]
    with pytest.raises(InputError, match=r"stages is '2\+5'.*2, 3"):
        build(name, "se", stages="2+5")
    with pytest.raises(IllegalPointError, match=r"\b1\.0\b"):
        build(name, "weightnet", 4, 4, num_classes=10)


SMALL_IMAGES = """
from torch import nn

def net(num_classes):
    layers = [nn.Conv2d(3, 8, 5), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16 * 25, num_classes))
"""


def test_a_network_for_images_of_one_small_size_is_a_backbone(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SMALL_IMAGES)
    point = DesignPoint.of(f"{tmp_path}/net.py:net", "weightnet", 4, 2, resolution=32, num_classes=10)
    model = build(point)
    assert isinstance(model.get_submodule("2.conv"), GeneratedConv2d)
    traced = measure_complexity(model, 32)
    assert count(point, external_skeleton(point.backbone, 32, 10)) == (traced.params, traced.flops)


def test_images_on_which_a_network_can_not_run_are_reported_in_one_line() -> None:
    """It says so by an assertion of its own."""
    with pytest.raises(
        InputError,
        match=r"\b64 pixels\b.*AssertionError: Input height \(64\)",
    ):
        skeleton_of(DesignPoint.of("timm:vit_tiny_patch16_224", resolution=64, num_classes=10))
