"""Networks from files, of every kind that was once counted wrong: space, profile and sweep say one figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.built import counts_of
from wnexplore.design.counts import count
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.errors import InputError
from wnexplore.measure.layers import OWN_WORK, measure_layers
from wnexplore.measure.roofline import Peaks
from wnexplore.models.build import build
from wnexplore.models.convert import convert
from wnexplore.profile import profile
from wnexplore.walks import walk_of

FILE = """
import torch
from torch import nn
from torch.nn import functional

class Base(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, num_classes)
        self.make()

    def make(self):
        pass

    def forward(self, x):
        return self.fc(self.middle(self.conv(self.stem(x))))

class Vector(Base):
    def make(self):
        self.vector = nn.Parameter(torch.randn(8))
    def middle(self, y):
        return y.mean((2, 3)) * torch.matmul(y.mean((2, 3)), self.vector)[:, None]

class Encoder(Base):
    def make(self):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
    def middle(self, y):
        return self.encoder(y.flatten(2).transpose(1, 2)).mean(1)

class Heads(Base):
    def make(self):
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    def middle(self, y):
        n, c, h, w = y.shape
        return self.inner(y.view(2 * n, c // 2, h, w)).view(n, c, h, w).mean((2, 3))

class Dead(Base):
    def make(self):
        self.aside = nn.Conv2d(8, 8, 3, padding=1)
        self.never = nn.Conv2d(8, 8, 3, padding=1)
    def middle(self, y):
        self.aside(y)
        return y.mean((2, 3))

class Branch(Base):
    def make(self):
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
    def middle(self, y):
        t = functional.adaptive_avg_pool2d(y, 4).flatten(2).transpose(1, 2)
        # Inside, where no border is near: of an image without content it is even.
        if float(y[:, :, 4:-4, 4:-4].std((2, 3)).max()) > 1e-3:
            t = self.attention(t, t, t)[0]
        return t.mean(1)

class Weights(Base):
    def make(self):
        self.kernel = nn.Conv2d(8, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.idle = nn.Identity()
        self.scale = nn.Parameter(torch.ones(8))
    def middle(self, y):
        y = functional.conv2d(y, self.kernel.weight, padding=1)
        return self.twice(self.twice(y)).mean((2, 3)) * self.scale

class Lazy(Base):
    def make(self):
        self.lazy = nn.LazyConv2d(8, 1)
        self.wide = nn.LazyLinear(8)
    def middle(self, y):
        return self.wide(self.lazy(y).flatten(1))

class Fourier(Base):
    def middle(self, y):
        return torch.fft.rfft2(y).abs().mean((2, 3))

def of_size(size, num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.Flatten(),
                         nn.Linear(4 * ((size + 1) // 2) ** 2, num_classes))

def size12(num_classes): return of_size(12, num_classes)
def size36(num_classes): return of_size(36, num_classes)
def size150(num_classes): return of_size(150, num_classes)
def size518(num_classes): return of_size(518, num_classes)

def channels(read, num_classes):
    return nn.Sequential(nn.Conv2d(read, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

def grey(num_classes): return channels(1, num_classes)
def satellite(num_classes): return channels(13, num_classes)

class Side(nn.Module):
    # Its first convolution is not the one that reads the image.
    def __init__(self, num_classes):
        super().__init__()
        self.late, self.first = nn.Conv2d(6, num_classes, 3), nn.Conv2d(3, 6, 3)
    def forward(self, x):
        return self.late(self.first(x)).mean((2, 3))
"""
COMMON = 16 * 16 * 8 * 27 + 16 * 16 * 8 * 72 + 80
"""Stem, convolution and classifier of `Base` at 32 pixels and 10 classes."""
PIXELS = 16 * 16


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "net.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("Vector", 8),
        ("Encoder", 2 * (PIXELS * (4 * 64 + 2 * 8 * 16) + 2 * PIXELS**2 * 8)),
        ("Heads", PIXELS * 2 * 4 * 36),
        ("Dead", PIXELS * 8 * 72),
        ("Branch", 16 * 4 * 64 + 2 * 16**2 * 8),
        ("Weights", PIXELS * (8 * 72 + 2 * 64)),
        ("Lazy", PIXELS * (64 + 64)),
    ],
)
def test_counts_are_those_of_arithmetic(file: Path, name: str, rest: int) -> None:
    point = DesignPoint.of(f"{file}:{name}", resolution=32, num_classes=10)
    walk = walk_of(point)
    assert count(point, walk).flops == COMMON + rest
    told = profile(point, LatencySpec(device="cpu"), timed=False, layers=False)
    assert told["flops"] == COMMON + rest
    assert told["uncounted_products"] == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["Heads", "Dead", "Branch", "Lazy"])
def test_the_closed_form_of_every_method_is_what_the_built_network_counts(
    file: Path, name: str, method: str
) -> None:
    point = DesignPoint.of(f"{file}:{name}", method, resolution=32, num_classes=10)
    torch.manual_seed(0)
    built = counts_of(build(point), 32)
    assert count(point, walk_of(point)) == built


@pytest.mark.parametrize("name", ["Encoder", "Heads", "Dead", "Branch", "Weights"])
@pytest.mark.parametrize("method", ["plain", "gc", "weightnet"])
def test_rows_add_up_to_the_network(file: Path, name: str, method: str) -> None:
    point = DesignPoint.of(f"{file}:{name}", method, resolution=32, num_classes=10)
    model = build(point)
    built = counts_of(model, 32)
    options = {"dtype": "float32", "device": "cpu", "peaks": Peaks(2e10, 5e10), "seconds": 1e-6}
    layers = measure_layers(model, resolution=32, batch_size=2, **options)  # type: ignore[arg-type]
    rows = {row.name: row.to_dict() for row in layers}
    assert len(rows) == len(layers)
    assert sum(row["flops"] for row in rows.values()) == built.flops
    assert sum(row["params"] for row in rows.values()) == built.params
    if name == "Weights":
        assert (rows["kernel"]["flops"], rows["kernel"]["time_ms"]) == (0, 0.0)
        assert rows[""]["kind"] == "Weights" + OWN_WORK
        assert (rows[""]["flops"], rows[""]["params"]) == (PIXELS * 8 * 72, 8)
        assert rows["twice"]["flops"] == 2 * PIXELS * 64
    if name == "Dead":
        assert (rows["never"]["flops"], rows["never"]["bytes"]) == (0, 0)
    if method == "gc":
        own = rows["conv.gate"]
        assert (own["kind"], own["flops"]) == ("GlobalContext" + OWN_WORK, 8 * PIXELS)


def test_what_is_in_no_count_is_told_by_every_command(file: Path) -> None:
    point = DesignPoint.of(f"{file}:Fourier", resolution=32, num_classes=10)
    assert walk_of(point).uncounted == ("_fft_r2c",)
    told = profile(point, LatencySpec(device="cpu"), timed=False, layers=False)
    assert told["uncounted_products"].keys() == {"_fft_r2c"}


@pytest.mark.parametrize("size", [12, 36, 150, 518])
def test_networks_for_one_size_of_any_list_or_none(file: Path, size: int) -> None:
    point = DesignPoint.of(f"{file}:size{size}", "weightnet", 2, 1, resolution=size, num_classes=10)
    built = counts_of(build(point), size)
    assert count(point, walk_of(point)) == built
    assert built.flops > ((size + 1) // 2) ** 2 * (4 * 27 + 4 * 36 + 40)
    plain = build(f"{file}:size{size}", resolution=size, num_classes=10)
    assert len(convert(plain, M=2, G=1, resolution=size).replaced) == 1
    with pytest.raises(InputError, match="can't run on images of 64 pixels"):
        walk_of(DesignPoint.of(f"{file}:size{size}", resolution=64, num_classes=10))


def test_lazy_layers_get_the_size_of_the_points_images(file: Path) -> None:
    name = f"{file}:Lazy"
    for resolution in (20, 32):
        model = build(name, resolution=resolution, num_classes=10)
        assert model.get_parameter("wide.weight").shape == (8, 8 * (resolution // 2) ** 2)
        assert model.training


@pytest.mark.parametrize(("name", "read"), [("grey", "1 channel:"), ("satellite", "13 channels:")])
@pytest.mark.parametrize("method", ["plain", "weightnet"])
def test_images_of_other_channels_are_refused_in_one_line(
    file: Path, name: str, read: str, method: str
) -> None:
    point = DesignPoint.of(f"{file}:{name}", method, resolution=32, num_classes=10)
    for refused in (walk_of, build):
        with pytest.raises(InputError, match=f"is for images of {read} wnexplore's have 3") as caught:
            refused(point)
        assert "\n" not in str(caught.value)


def test_the_channels_of_an_image_are_not_those_of_the_convolution_made_first(file: Path) -> None:
    point = DesignPoint.of(f"{file}:Side", "weightnet", 2, 1, resolution=32, num_classes=10)
    built = counts_of(build(point), 32)
    assert count(point, walk_of(point)) == built
