"""Published weights: the whole 0.5x network written again with the port's names, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.built import counts_of
from tests.models.checks import randomise
from wnexplore.design.counts import count
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import ShuffleNetV2, build, load_published_state_dict
from wnexplore.space.skeleton_cache import skeleton_of

CLASSES = 10


class Generated(nn.Module):
    """A convolution of the published networks; `depthwise` or 1x1."""

    def __init__(self, context: int, a: int, b: int, stride: int = 1, *, depthwise: bool = False) -> None:
        super().__init__()
        self.stride, self.depthwise, self.out = stride, depthwise, b
        self.wn_fc1 = nn.Conv2d(context, b if depthwise else 2 * b, 1)
        outputs, groups = (9 * b, b) if depthwise else (a * b, 2 * b)
        self.wn_fc2 = nn.Conv2d(self.wn_fc1.out_channels, outputs, 1, groups=groups, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        kernels = self.wn_fc2(torch.sigmoid(self.wn_fc1(context)))
        images = []
        for image, kernel in zip(x, kernels, strict=True):
            if self.depthwise:
                weight = kernel.reshape(self.out, 1, 3, 3)
                y = functional.conv2d(image[None], weight, stride=self.stride, padding=1, groups=self.out)
            else:
                y = functional.conv2d(image[None], kernel.reshape(self.out, -1, 1, 1))
            images.append(y)
        return torch.cat(images)


class PortBlock(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        half, context = width // 2, max(16, into // 16)
        self.stride = stride
        self.reduce = nn.Conv2d(into, context, 1)
        self.wnet1, self.norm1 = Generated(context, into, half), nn.BatchNorm2d(half)
        self.wnet2 = Generated(context, half, half, stride, depthwise=True)
        self.norm2 = nn.BatchNorm2d(half)
        self.wnet3, self.norm3 = Generated(context, half, width - into), nn.BatchNorm2d(width - into)
        if stride == 2:
            self.wnet_proj_1 = Generated(context, into, into, 2, depthwise=True)
            self.norm_proj_1 = nn.BatchNorm2d(into)
            self.wnet_proj_2, self.norm_proj_2 = Generated(context, into, into), nn.BatchNorm2d(into)

    def forward(self, x: Tensor) -> Tensor:
        evens, odds = (x, x) if self.stride == 2 else (x[:, 0::2], x[:, 1::2])
        context = self.reduce(odds.mean((2, 3), keepdim=True))
        y = torch.relu(self.norm1(self.wnet1(odds, context)))
        y = self.norm2(self.wnet2(y, context))
        y = torch.relu(self.norm3(self.wnet3(y, context)))
        if self.stride == 2:
            evens = self.norm_proj_1(self.wnet_proj_1(evens, context))
            evens = torch.relu(self.norm_proj_2(self.wnet_proj_2(evens, context)))
        return torch.cat((evens, y), 1)


def conv_bn(a: int, b: int, kernel: int, stride: int) -> nn.ModuleDict:
    conv = nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)
    return nn.ModuleDict({"conv": conv, "bn": nn.BatchNorm2d(b)})


class Port(nn.Module):
    """The network of some widths, 0.5x if left out, under the port's names."""

    def __init__(self, widths: tuple[int, int, int] = (48, 96, 192), last: int = 1024) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 24, 3, 2)
        self.layers = nn.ModuleList()
        channels = 24
        for width, repeats in zip(widths, (4, 8, 4), strict=True):
            blocks = [PortBlock(channels, width, 2)]
            blocks += [PortBlock(width // 2, width, 1) for _ in range(repeats - 1)]
            self.layers.append(nn.Sequential(*blocks))
            channels = width
        self.layers.append(conv_bn(channels, last, 1, 1))
        self.head = nn.ModuleDict({"fc": nn.Linear(last, CLASSES)})

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1["bn"](self.conv1["conv"](x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        *stages, last = self.layers
        for stage in stages:
            x = stage(x)
        assert isinstance(last, nn.ModuleDict)
        x = torch.relu(last["bn"](last["conv"](x)))
        logits: Tensor = self.head["fc"](x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def port() -> Port:
    torch.manual_seed(0)
    port = Port().double().eval()
    for module in port.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.2)
    randomise(port)
    return port


@pytest.fixture(scope="module")
def published(port: Port) -> dict[str, Tensor]:
    return port.state_dict()


@pytest.fixture
def model() -> ShuffleNetV2:
    model = build("shufflenet_v2_x0_5", "weightnet", num_classes=CLASSES).double().eval()
    assert isinstance(model, ShuffleNetV2)
    return model


@torch.no_grad()
def agrees(model: nn.Module, port: Port) -> bool:
    torch.manual_seed(1)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = port(x)
    return float((model(x) - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_weights_of_the_port(
    prefix: str, port: Port, published: dict[str, Tensor], model: ShuffleNetV2
) -> None:
    assert not agrees(model, port)
    load_published_state_dict(model, {prefix + key: value for key, value in published.items()})
    assert agrees(model, port)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", "model"])
def test_a_file_and_the_round_trip_through_our_own(
    wrapper: str, port: Port, published: dict[str, Tensor], model: ShuffleNetV2, tmp_path: Path
) -> None:
    torch.save({wrapper: published, "meta": {"epoch": 3}}, tmp_path / "published.pth")
    load_published_state_dict(model, tmp_path / "published.pth")
    assert agrees(model, port)
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    fresh = build("shufflenet_v2_x0_5", "weightnet", num_classes=CLASSES).double().eval()
    fresh.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True))
    assert agrees(fresh, port)


def test_weights_of_the_authors(port: Port, published: dict[str, Tensor], model: ShuffleNetV2) -> None:
    """Their names and shapes: vectors (1, C, 1, 1), grouped weights (P, out, in, 1, 1), two biases."""
    authors: dict[str, Tensor] = {}
    for key, value in published.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("wn_fc2.weight"):
            owner = port.get_submodule(key.removesuffix(".weight"))
            assert isinstance(owner, nn.Conv2d)
            value = value.view(owner.groups, -1, *value.shape[1:])
        elif value.dim() == 1 and not key.startswith("head"):
            value = value.view(1, -1, 1, 1)
        authors[authors_name(key)] = value
    for conv, norm in (("first_conv.0", "first_conv.1"), ("conv_last.0", "conv_last.1")):
        bias = torch.randn_like(authors[f"{norm}.running_mean"])
        authors[f"{conv}.bias"] = bias
        authors[f"{norm}.running_mean"] = authors[f"{norm}.running_mean"] + bias
    load_published_state_dict(model, authors)
    assert agrees(model, port)


def authors_name(key: str) -> str:
    ends = {
        "conv1.conv": "first_conv.0",
        "conv1.bn": "first_conv.1",
        "layers.3.conv": "conv_last.0",
        "layers.3.bn": "conv_last.1",
        "head.fc": "classifier.0",
    }
    for theirs, authors in ends.items():
        if key.startswith(f"{theirs}."):
            return key.replace(theirs, authors)
    _, stage, block, rest = key.split(".", 3)
    return f"features.{(0, 4, 12)[int(stage)] + int(block)}.{rest.replace('norm', 'bn')}"


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(
    published: dict[str, Tensor], model: ShuffleNetV2
) -> None:
    wrong: dict[str, Any] = dict(published)
    del wrong["layers.1.2.wnet2.wn_fc1.bias"]
    wrong["layers.0.0.extra.weight"] = torch.zeros(1)
    wrong["conv1.conv.weight"] = torch.zeros(24, 3, 5, 5)
    wrong["head.fc.bias"] = [0.0]
    wrong["fc.weight"] = published["head.fc.weight"]
    wrong["classifier.0.weight"] = published["head.fc.weight"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_published_state_dict(model, wrong)
    head, *faults = str(error.value).split("\n  ")
    assert "6 keys" in head
    assert sorted(faults) == [
        "missing: stage3.2.branch2.3.fc1.bias (48,), in this network's names",
        "not a tensor: head.fc.bias",
        "unexpected: classifier.0.weight",
        "unexpected: fc.weight",
        "unexpected: layers.0.0.extra.weight",
        "wrong shape: conv1.conv.weight (24, 3, 5, 5), expected (24, 3, 3, 3)",
    ]
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_another_width_and_another_network_are_refused(published: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"of width 48/96/192 .* of width 112/224/448"):
        load_published_state_dict(build("shufflenet_v2_x1_0", "weightnet", num_classes=CLASSES), published)
    with pytest.raises(InputError, match="not a ResNet"):
        load_published_state_dict(build("resnet18"), published)


def test_our_own_names_are_refused(model: ShuffleNetV2) -> None:
    with pytest.raises(InputError, match=r"conv1\.0\.weight"):
        load_published_state_dict(model, model.state_dict())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_unreadable_files_are_refused(content: bytes, model: ShuffleNetV2, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_published_state_dict(model, path)
    with pytest.raises(InputError, match=r"none\.pth"):
        load_published_state_dict(model, str(tmp_path / "none.pth"))


def test_a_file_of_something_else_is_refused(model: ShuffleNetV2, tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"\blist\b"):
        load_published_state_dict(model, tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("backbone", "widths", "last"),
    [
        ("shufflenet_v2_port_x1_0", (116, 232, 464), 1024),
        pytest.param("shufflenet_v2_port_x2_0", (244, 488, 976), 2048, marks=pytest.mark.slow),
        pytest.param("shufflenet_v2_x1_5", (176, 352, 704), 1024, marks=pytest.mark.slow),
    ],
)
def test_weights_of_the_port_at_its_other_widths(
    backbone: str, widths: tuple[int, int, int], last: int
) -> None:
    torch.manual_seed(0)
    port = Port(widths, last).double().eval()
    for module in port.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    model = build(backbone, "weightnet", num_classes=CLASSES).double().eval()
    load_published_state_dict(model, port.state_dict())
    assert agrees(model, port)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in port.parameters())
    point = DesignPoint.of(backbone, "weightnet", resolution=64, num_classes=CLASSES)
    assert count(point, skeleton_of(point)) == counts_of(model.float(), 64)


def test_weights_of_another_width_are_refused_in_one_line(
    published: dict[str, Tensor], model: ShuffleNetV2
) -> None:
    with pytest.raises(InputError) as error:
        load_published_state_dict(model, Port((116, 232, 464)).state_dict())
    theirs, ours = r"\b116/232/464\b.*\b1024\b.*\bshufflenet_v2_port_x1_0\b", r"\b48/96/192\b.*\b1024\b"
    assert re.search(f"{theirs}.*{ours}", str(error.value))
    assert "\n" not in str(error.value)
    larger = build("shufflenet_v2_port_x2_0", "weightnet", num_classes=CLASSES)
    with pytest.raises(InputError, match=r"\b48/96/192\b.*\b244/488/976\b"):
        load_published_state_dict(larger, published)


def test_a_refusal_is_short(published: dict[str, Tensor], model: ShuffleNetV2) -> None:
    some = {key: value for key, value in published.items() if "wn_fc2" not in key}
    with pytest.raises(InputError) as error:
        load_published_state_dict(model, some)
    head, *faults = str(error.value).split("\n  ")
    assert "width 48/96/192" in head
    assert len(faults) == 9
    assert faults[-1].startswith("and ")
