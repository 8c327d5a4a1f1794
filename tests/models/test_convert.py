"""Networks of one's own: converted, loaded by name, walked, swept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

import wnexplore
from tests.built import counts_of
from tests.examples import examples, rest_slow
from wnexplore.design.axes import ACTIVATIONS
from wnexplore.design.counts import count
from wnexplore.design.external_names import check_name, is_external, source_hash
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import Where, convert
from wnexplore.models.external import load
from wnexplore.nn import CondConv2d, WeightNetConv2d
from wnexplore.nn.selective_kernel import SelectiveKernelConv2d
from wnexplore.space.skeleton_cache import skeleton_of


class Odd(nn.Module):
    """Convolutions of every kind: grouped, dilated, strided, biased, not square, shared, never run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2, bias=False)
        self.dilated = nn.Conv2d(12, 12, 3, padding=2, dilation=2)
        self.flat = nn.Conv2d(12, 8, (1, 3), padding="same", bias=False)
        self.depthwise = nn.Conv2d(8, 8, 5, stride=(2, 1), groups=8)
        self.twice = nn.Conv2d(8, 8, 1)
        self.circular = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.pooled = nn.Conv2d(8, 8, 1)
        self.unused = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.flat(self.dilated(self.grouped(self.stem(x)).relu())).relu())
        x = self.circular(self.twice(self.twice(x)))
        logits: Tensor = self.pooled(x.mean((2, 3), keepdim=True)).flatten(1)
        return logits


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "own": Odd,
    "timm": lambda: timm.create_model("mobilenetv3_small_100", pretrained=False, num_classes=10),
    "torchvision": lambda: models.regnet_y_400mf(weights=None, num_classes=10),
}


def _with_statistics(model: nn.Module) -> nn.Module:
    """Normalisations as after some training, so that no output is nearly constant."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        # Whether a kernel is kept hangs on the activation, whether a network still runs on the network.
        *(("own", activation) for activation in ACTIVATIONS),
        ("timm", "sigmoid"),
        *(
            pytest.param(name, activation, marks=pytest.mark.slow)
            for name, done in (("timm", "sigmoid"), ("torchvision", None))
            for activation in ACTIVATIONS
            if activation != done
        ),
    ],
)
def test_with_one_input_a_group_the_output_is_that_from_before(name: str, activation: str) -> None:
    torch.manual_seed(0)
    model = _with_statistics(NETWORKS[name]()).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model(x)
    done = convert(model, M=1, G=1, activation=activation)
    assert done.model is model
    assert len(done.replaced) == sum(isinstance(module, WeightNetConv2d) for module in model.modules()) > 3
    assert all("kernel kept" in change.reason for change in done.replaced)
    torch.testing.assert_close(model(x), before, rtol=1e-11, atol=1e-12)


def test_in_float32_a_sigmoid_keeps_the_output_to_rounding() -> None:
    model = _with_statistics(NETWORKS["torchvision"]()).eval()
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    torch.testing.assert_close(convert(model, M=1, G=1).model(x), before, rtol=1e-4, atol=1e-4)


def test_what_is_left_is_reported_with_the_reason() -> None:
    done = convert(Odd(), M=1, G=1)
    assert {change.name for change in done.replaced} == {"grouped", "dilated", "flat", "depthwise"}
    reasons, facts = (
        {change.name: change.reason for change in done.left},
        {
            "stem": "stem",
            "twice": "more than once",
            "circular": "circular (1, 1)",
            "pooled": "pooled",
            "unused": "no image",
        },
    )
    assert reasons.keys() == facts.keys()
    assert all(fact in reasons[name] for name, fact in facts.items()), reasons
    assert re.search(r"\b4\b.*\b5\b", str(done).splitlines()[0])
    assert any("circular (1, 1)" in line for line in str(done).splitlines() if line.startswith("  circular "))


@pytest.mark.parametrize(
    ("where", "replaced"),
    [
        ("^d", {"dilated", "depthwise"}),
        (Where(kernel_sizes=[3]), {"grouped", "dilated", "flat"}),
        (Where(stages=[2]), {"depthwise"}),
        (Where(stages=[0, 1], stem=True), {"stem", "grouped", "dilated", "flat"}),
        (Where(names="stem"), set()),
    ],
)
def test_where_says_which(where: Where | str, replaced: set[str]) -> None:
    done = convert(Odd(), "condconv", where=where, experts=3)
    assert {change.name for change in done.replaced} == replaced
    layers = {name for name, module in done.model.named_modules() if isinstance(module, CondConv2d)}
    assert {name.removesuffix(".conv") for name in layers} == replaced


def test_a_pair_that_one_layer_can_not_have_changes_nothing() -> None:
    model = Odd()
    before = [id(module) for module in model.modules()]
    with pytest.raises(IllegalPointError, match=r"\bgrouped\b.*G·C_out = 96"):
        convert(model, M=8, G=8)
    assert [id(module) for module in model.modules()] == before
    for wrong in ({"method": "sse"}, {"reductions": 4}, {"method": "se", "M": 2}):
        with pytest.raises(InputError):
            convert(model, **wrong)


def test_settings_and_device_of_a_convolution_go_over() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)).double().eval()
    model[1].requires_grad_(False)
    done = convert(model, M=2, G=1)
    assert {p.dtype for p in done.model.parameters()} == {torch.float64}
    # What is new learns, though it stands where something was frozen.
    assert {name for name, p in model[1].named_parameters() if not p.requires_grad} == {"bias"}
    assert all(p.requires_grad for p in model[2].parameters())
    kept = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False).requires_grad_(False))
    convert(kept, M=1, G=1)
    assert {name for name, p in kept[1].named_parameters() if not p.requires_grad} == {"fc2.weight"}
    assert not model[1].training


@pytest.mark.parametrize("method", [method for method in METHODS if method != "plain"])
def test_every_parameter_of_every_method_learns(method: str) -> None:
    torch.manual_seed(0)
    axes = {"M": 2, "G": 1} if method == "weightnet" else {}
    model = convert(_with_statistics(NETWORKS["own"]()), method, **axes).model.train()  # type: ignore[arg-type]
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # Adding to all logits of an attention changes nothing; a layer that no image passes has no gradient.
    assert {name for name in still if not name.endswith("attention.bias")} <= {"unused.weight", "unused.bias"}


def test_selective_kernels_replace_what_is_larger_than_a_pixel() -> None:
    done = convert(models.resnet50(weights=None), "sk")
    kernels = {change.name.rpartition(".")[2] for change in done.replaced}
    assert kernels == {"conv2"}
    assert sum(isinstance(module, SelectiveKernelConv2d) for module in done.model.modules()) == 16


@pytest.mark.parametrize(
    "backbone",
    ["timm:mobilenetv3_small_100", pytest.param("torchvision:regnet_y_400mf", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("method", rest_slow(METHODS, "sk", "weightnet"))
def test_counts_of_an_external_network_are_those_of_building_and_running(backbone: str, method: str) -> None:
    point = DesignPoint.of(backbone, method, resolution=64, num_classes=10)
    if method == "weightnet":
        point = DesignPoint.of(
            backbone, method, {1: 1, 2: 2, 3: 2, 4: 4, 5: 2}, 1, resolution=64, num_classes=10
        )
    assert count(point, skeleton_of(point)) == counts_of(wnexplore.build(point), 64)


OWN = """\
import torch
from helper import WIDTH

def small(num_classes):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, WIDTH, 3, stride=2, padding=1, bias=False), torch.nn.BatchNorm2d(WIDTH),
        torch.nn.ReLU(),
        torch.nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2 * WIDTH, num_classes))

def wrong():
    return 3

def broken():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("WIDTH = 8\n")
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def test_a_file_of_the_user_is_a_backbone(script: Path) -> None:
    point = DesignPoint.of(f"{script}:small", "weightnet", 2, 1, resolution=32, num_classes=7)
    model = wnexplore.build(point)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert [name for name, m in model.named_modules() if isinstance(m, WeightNetConv2d)] == ["3.conv"]
    assert count(point, skeleton_of(point)) == counts_of(model, 32)
    before = source_hash(point.backbone)
    script.write_text(OWN + "\n# changed\n")
    assert source_hash(point.backbone) != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:mobilenetv3_smal_100", "mobilenetv3_small_100"),
        ("torchvision:resnet181", "'resnet181'.*resnet18"),
        ("{script}:wrong", "int.*torch.nn.Module"),
        ("{script}:broken", "RuntimeError: no such luck"),
        ("{script}:missing", "'missing'"),
        ("nowhere.py:make", "nowhere.py"),
    ],
)
def test_a_network_that_is_not_there_is_reported_in_one_line(script: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(name.format(script=script), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm:", ":resnet18", "tim:resnet18", "file.py:a-b"])
def test_a_malformed_name_is_no_backbone(name: str) -> None:
    assert is_external(name)
    with pytest.raises(InputError):
        check_name(name)
    with pytest.raises(InputError):
        DesignPoint.of(name)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.sampled_from([1, 2, 4]), st.booleans())
@examples(25, suppress_health_check=[HealthCheck.too_slow])
def test_a_kept_kernel_convolves_as_before(
    size: int, stride: int, dilation: int, groups: int, bias: bool
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 12, size, stride, padding=1, dilation=dilation, groups=groups, bias=bias),
    ).double()
    x = torch.randn(3, 3, 11, 13, dtype=torch.float64)
    before = model(x)
    assert len(convert(model, M="1/2", G="1/2", resolution=16).replaced) == 1
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)


def test_a_transformer_counts_as_arithmetic_says() -> None:
    point = DesignPoint.of("timm:vit_tiny_patch16_224", num_classes=10)
    built = counts_of(wnexplore.build(point), 224)
    tokens, width = 14 * 14 + 1, 192
    per_layer = tokens * width * width * (3 + 1 + 4 + 4) + 2 * tokens * tokens * width
    patches = 14 * 14 * width * 3 * 16 * 16
    assert built.flops == patches + 12 * per_layer + 10 * width
    assert count(point, skeleton_of(point)) == built
