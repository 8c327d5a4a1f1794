"""Networks that want more of a convolution than to run it, and those that give no logits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import external_networks
from wnexplore.design.methods import METHODS, methods_with
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.measure.torch_settings import MEMORY_FORMATS, place
from wnexplore.models import build, convert
from wnexplore.models.external import check_external
from wnexplore.nn import MethodConv2d


class Small(nn.Module):
    """A stem, two convolutions and a classifier; members say what they do with the two."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.a = nn.Conv2d(8, 8, 3, padding="same", bias=bias)
        self.b = nn.Conv2d(8, 8, 3, 2, 1, bias=bias)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.middle(self.stem(x)).mean((2, 3)))
        return logits

    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        return y


class Device(Small):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x.to(self.a.weight.device))


class Penalty(Small):
    def middle(self, x: Tensor) -> Tensor:
        y = super().middle(x)
        return y + 0 * self.b.weight.square().sum() if self.training else y


class ByName(Small):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x) * dict(self.a.named_parameters())["weight"].mean()


class Has(Small):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x) if hasattr(self.a, "weight") else x


class OfClass(Small):
    def middle(self, x: Tensor) -> Tensor:
        y = super().middle(x)
        return y.relu() if isinstance(self.b, nn.Conv2d) else y


class OfExactClass(Small):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x) * (2.0 if type(self.a) is nn.Conv2d else 1.0)


class Sets(Small):
    def middle(self, x: Tensor) -> Tensor:
        self.b.stride = (1, 1)
        return super().middle(x)


class Elsewhere(Small):
    def __init__(self) -> None:
        super().__init__()
        self.listed = [self.a]

    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.listed[0](x))
        return y


class Inside(Small):
    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a._conv_forward(self.a(x), self.stem.weight[:, :1].expand(8, 8, 3, 3), None))
        return y


@pytest.mark.parametrize(
    ("make", "left", "reason"),
    [
        (Device, "a", "reads its weight"),
        (Penalty, "b", "weight in training"),
        (ByName, "a", "KeyError: 'weight'"),
        (Has, "a", "reads its weight"),
        (OfClass, "b", "computes"),
        (OfExactClass, "a", "computes"),
        (Sets, "b", "stride"),
        (Elsewhere, "a", "elsewhere"),
        (Inside, "a", "_conv_forward"),
    ],
)
@pytest.mark.parametrize("method", ["weightnet", "condconv", "se"])
def test_what_a_network_wants_more_of_is_left(
    make: Callable[[], nn.Module], left: str, reason: str, method: str
) -> None:
    torch.manual_seed(0)
    model = make().double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = model(x)
    done = convert(model, method, *((1, 1) if method == "weightnet" else ()))
    assert [change.name for change in done.replaced] == ["b" if left == "a" else "a"]
    assert reason in {change.name: change.reason for change in done.left}[left]
    if method == "weightnet":
        torch.testing.assert_close(model.eval()(x), before)
    model.train()(x).sum().backward()


class Asks(Small):
    """Whether a shortcut fits, by all that a convolution says of itself."""

    def middle(self, x: Tensor) -> Tensor:
        a, b = self.a, self.b
        y = super().middle(x)
        if (b.stride, b.kernel_size, b.in_channels, b.groups) == ((2, 2), (3, 3), b.out_channels, 1):
            y = y + functional.avg_pool2d(x, 2)
        if a.padding == "same" and a.dilation == (1, 1) and b.padding == (1, 1):
            y = y * 2
        return y if a.bias is None else y + a.bias.mean()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"plain"}))
def test_settings_are_answered_as_before(method: str, bias: bool) -> None:
    torch.manual_seed(0)
    model = Asks(bias).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = model(x)
    done = convert(model, method, *((1, 1) if method == "weightnet" else ()))
    assert [change.name for change in done.replaced] == ["a", "b"]
    if method == "weightnet":
        torch.testing.assert_close(model(x), before)
    model.train()(x).sum().backward()


def test_what_was_put_on_a_convolution_is_not_lost() -> None:
    def own_forward(model: Small) -> None:
        model.a.forward = nn.Identity().forward  # type: ignore[method-assign]

    def hook(model: Small) -> None:
        model.a.weight.register_hook(lambda grad: grad * 2)

    def state_hook(model: Small) -> None:
        model.a.register_state_dict_post_hook(lambda *_: None)

    def mask(model: Small) -> None:
        model.a.register_buffer("mask", torch.ones(8))

    changes = {own_forward: "forward is overridden", hook: "hooks", state_hook: "hooks", mask: "holds mask"}
    for change, reason in changes.items():
        model = Small()
        change(model)
        done = convert(model, "condconv")
        assert reason in {change.name: change.reason for change in done.left}["a"]
    norms: list[Callable[[nn.Module], object]] = [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ]
    for norm in norms:
        model = Small()
        norm(model.a)
        assert [change.name for change in convert(model, "condconv").replaced] == ["b"]


FAMILIES = {
    "xcit_nano_12_p16_224": (224, 27),
    "davit_tiny": (224, 27),
    "edgenext_small": (64, 24),
    "poolformer_s12": (64, 27),
    "mobilevit_xxs": (64, 34),
    "repvgg_a0": (64, 43),
    "ghostnet_050": (64, 79),
    "coat_lite_tiny": (224, 3),
    "pvt_v2_b0": (64, 17),
    "levit_128s": (224, 3),
    "starnet_s1": (64, 79),
    "inception_next_atto": (64, 63),
    "nest_tiny": (224, 2),
    "hrnet_w18_small": (64, 90),
}
"""timm's network -> pixels, convolutions that can be replaced."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_timm_run_as_before_and_learn(name: str) -> None:
    torch.manual_seed(0)
    resolution, replaced = FAMILIES[name]
    model = timm.create_model(name, num_classes=10).double().eval()
    x = torch.randn(2, 3, resolution, resolution, dtype=torch.float64)
    before = model(x)
    assert len(convert(model, M=1, G=1).replaced) == replaced
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-11)
    model.train()(x).square().sum().backward()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(Path(external_networks.__file__).read_text())
    return tmp_path / "net.py"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("Mapped", "dict with out, aux"),
        ("Pair", "tuple of 2"),
        ("Features", r"\(N, 10, 1, 1\)"),
        ("Second", "32 pixels.*TypeError: .*forward.*mask"),
        ("Leaves", "32 pixels.*SystemExit: 3$"),
        ("same", "same module"),
        ("part", "same module conv"),
        ("tensor", "same tensor conv.weight"),
        ("carried", "weights.* in "),
    ],
)
def test_networks_that_are_no_classifiers_are_refused(file: Path, function: str, message: str) -> None:
    for method in ("plain", "condconv"):
        with pytest.raises(InputError, match=message) as caught:
            build(f"{file}:{function}", method, resolution=32, num_classes=10)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "classes", "message"),
    [
        ("PairInTraining", 10, "tuple of 2 in training"),
        ("ten", 7, r"\b10 classes\b.*\b7\b"),
        ("ten", 12, r"\b10 classes\b.*\b12\b"),
        ("Frozen", 10, "gradient"),
        ("in_double", 10, "float64.*float32"),
        ("in_bfloat16", 10, "bfloat16.*float32"),
    ],
)
def test_networks_that_can_not_be_trained_are_refused_for_training(
    file: Path, function: str, classes: int, message: str
) -> None:
    build(f"{file}:{function}", resolution=32)
    with pytest.raises(InputError, match=message):
        check_external(f"{file}:{function}", 32, classes)


def test_a_shared_activation_is_no_shared_network(file: Path) -> None:
    build(f"{file}:activation", resolution=32)


@pytest.mark.parametrize("name", ["Main", pytest.param("torchvision:googlenet", marks=pytest.mark.slow)])
def test_of_several_heads_the_main_one_is_trained(file: Path, name: str) -> None:
    point = DesignPoint.of(name if ":" in name else f"{file}:{name}", "se", resolution=96, num_classes=10)
    check_external(point.backbone, 96, 10)
    model = build(point).train()
    logits = model(torch.randn(2, 3, 96, 96))
    assert isinstance(logits, Tensor)
    assert logits.shape == (2, 10)


def test_what_a_network_prints_is_not_output(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build(f"{file}:Speaks", "condconv", resolution=32)
    capsys.readouterr()
    model(torch.randn(2, 3, 32, 32))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "to be seen on standard error\n")
    assert sys.stdout is not sys.stderr


def test_one_file_is_one_point(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "link.py").symlink_to(file)
    monkeypatch.chdir(file.parent)
    names = ("net.py", "./net.py", str(file), "link.py", f"../{file.parent.name}/net.py")
    assert {DesignPoint.of(f"{name}:ten").backbone for name in names} == {"net.py:ten"}
    monkeypatch.chdir("/")
    assert DesignPoint.of("timm:resnet18").backbone == "timm:resnet18"


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv3d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(self.flat(x)[:, :, None]).mean((2, 3, 4))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [*methods_with("experts"), "Conv3d"])
def test_tensors_of_five_dimensions_stand_in_channels_last(kind: str) -> None:
    torch.manual_seed(0)
    model = Deep() if kind == "Conv3d" else build("shufflenet_v2_x0_5", kind, num_classes=10)
    x = torch.randn(2, 3, 64, 64)
    before = model.eval()(x)
    place(model, "cpu", torch.float32, MEMORY_FORMATS["channels_last"])
    assert any(p.dim() == 5 for p in model.parameters())
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.dim() == 4)
    after = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    model.train()(x).sum().backward()
    assert kind == "Conv3d" or any(isinstance(module, MethodConv2d) for module in model.modules())
