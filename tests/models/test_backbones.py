"""The networks against torchvision's, against the list of generated layers, and against themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.examples import rest_slow
from tests.models.checks import METHODS, check_gradients, check_start, parameter_count, randomise
from wnexplore.design.axes import STEMS
from wnexplore.design.backbones import BACKBONES, ResNetSpec, ShuffleNetV2Spec
from wnexplore.design.conv_sites import block_convs
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import ResNet, ShuffleNetV2, build
from wnexplore.nn import GeneratedConv2d

SMALL = ShuffleNetV2Spec((48, 96, 192))


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("shufflenet_v2_x0_5", ShuffleNetV2Spec((48, 96, 192), even_branches=True)),
        ("shufflenet_v2_x0_5", BACKBONES["shufflenet_v2_x0_5"]),
        ("shufflenet_v2_x1_0", ShuffleNetV2Spec((116, 232, 464), even_branches=True)),
        ("shufflenet_v2_x1_5", ShuffleNetV2Spec((176, 352, 704), even_branches=True)),
        ("shufflenet_v2_x2_0", ShuffleNetV2Spec((244, 488, 976), last_width=2048, even_branches=True)),
        ("resnet18", BACKBONES["resnet18"]),
        ("resnet34", BACKBONES["resnet34"]),
        ("resnet50", BACKBONES["resnet50"]),
    ],
)
def test_plain_networks_are_torchvisions(name: str, spec: ShuffleNetV2Spec | ResNetSpec) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    randomise(theirs)
    ours = ShuffleNetV2(spec) if isinstance(spec, ShuffleNetV2Spec) else ResNet(spec)
    ours.eval().load_state_dict(theirs.state_dict())
    assert parameter_count(ours) == parameter_count(theirs)
    with torch.no_grad():
        x = torch.randn(2, 3, 64, 64)
        expected = theirs(x)
        assert float((ours(x) - expected).norm() / expected.norm()) < 1e-5


def test_golden_parameter_counts() -> None:
    assert parameter_count(build("shufflenet_v2_x0_5")) == 1_366_792
    expected = published_parameter_count((48, 96, 192), (4, 8, 4), 1000)
    assert expected == pytest.approx(1_462_880, rel=0.01)
    assert parameter_count(build("shufflenet_v2_x0_5", "weightnet", M=2, G=2)) == expected


def published_parameter_count(widths: tuple[int, ...], repeats: tuple[int, ...], classes: int) -> int:
    """The sum written out for M = G = 2: lambda = 1, so fc2 has as many weights as a plain kernel."""

    def full(context: int, a: int, b: int) -> int:  # fc1, fc2, normalisation of a 1x1 convolution
        return (context + 1) * 2 * b + a * b + 2 * b

    def depthwise(context: int, a: int) -> int:
        return (context + 1) * a + 9 * a + 2 * a

    total = 3 * 24 * 9 + 2 * 24
    channels = 24
    for width, repeat in zip(widths, repeats, strict=True):
        half = width // 2
        r = max(16, channels // 16)
        total += (channels + 1) * r + depthwise(r, channels) + full(r, channels, channels)
        total += full(r, channels, half) + depthwise(r, half) + full(r, half, width - channels)
        r = max(16, half // 16)
        total += (repeat - 1) * ((half + 1) * r + 2 * full(r, half, half) + depthwise(r, half))
        channels = width
    return total + channels * 1024 + 2 * 1024 + 1025 * classes


@pytest.mark.parametrize("backbone", BACKBONES)
def test_generated_layers_are_those_that_design_lists(backbone: str) -> None:
    with torch.device("meta"):
        model = build(backbone, "weightnet", M=1, G=1)
    built = {
        name: (m.in_channels, m.out_channels, m.kernel_size, m.groups)
        for name, m in model.named_modules()
        if isinstance(m, GeneratedConv2d)
    }
    listed = {
        layer.name: (layer.in_channels, layer.out_channels, (layer.kernel_size,) * 2, layer.groups)
        for layer in block_convs(backbone)
    }
    assert built == listed


@pytest.mark.parametrize(("backbone", "prefix"), [("resnet18", "layer"), ("shufflenet_v2_x0_5", "stage")])
def test_stages_without_the_method_are_plain(backbone: str, prefix: str) -> None:
    with torch.device("meta"):
        model = build(backbone, "weightnet", stages=[3, 4])
        plain = build(backbone)
    made = {name.split(".")[0] for name, m in model.named_modules() if isinstance(m, GeneratedConv2d)}
    assert made == {f"{prefix}3", f"{prefix}4"}
    for ours, other in zip(model.named_parameters(), plain.named_parameters(), strict=False):
        if ours[0].startswith(f"{prefix}3"):
            break
        assert ours[0] == other[0]
        assert ours[1].shape == other[1].shape


@pytest.mark.parametrize("stem", rest_slow(STEMS, "small"))
@pytest.mark.parametrize("axes", METHODS, ids=lambda axes: axes["method"])
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "resnet18"])
def test_every_parameter_gets_a_gradient(backbone: str, axes: dict[str, Any], stem: str) -> None:
    check_gradients(build(backbone, stem=stem, num_classes=10, **axes), 64 if stem == "imagenet" else 32)


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("axes", METHODS, ids=lambda axes: axes["method"])
@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - {"shufflenet_v2_x0_5", "resnet18"}))
def test_every_parameter_gets_a_gradient_in_the_larger_networks(
    backbone: str, axes: dict[str, Any], stem: str
) -> None:
    check_gradients(build(backbone, stem=stem, num_classes=10, **axes), 64 if stem == "imagenet" else 32)


@pytest.mark.parametrize("axes", METHODS, ids=lambda axes: axes["method"])
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "resnet18"])
def test_an_image_gets_the_same_logits_alone_and_in_a_batch(backbone: str, axes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build(backbone, stem="small", num_classes=10, **axes).eval()
    randomise(model)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            model(x), torch.cat([model(image[None]) for image in x]), rtol=1e-4, atol=1e-4
        )


STARTS = [
    *METHODS,
    {"method": "condconv", "experts": 16},
    {"method": "weightnet", "M": 1, "G": 1},
    {"method": "weightnet", "M": 16, "G": 1},
    {"method": "weightnet", "M": 16, "G": 1, "activation": "softmax"},
    {"method": "weightnet", "M": "1/2", "G": "1/2"},
]


@pytest.mark.parametrize("axes", STARTS, ids=lambda axes: "-".join(map(str, axes.values())))
def test_fresh_logits_are_of_order_one(axes: dict[str, Any]) -> None:
    check_start("shufflenet_v2_x0_5", axes)


@pytest.mark.parametrize("axes", METHODS, ids=lambda axes: axes["method"])
def test_fresh_logits_of_a_resnet_are_of_order_one(axes: dict[str, Any]) -> None:
    check_start("resnet18", axes)


@pytest.mark.slow
@pytest.mark.parametrize("axes", STARTS, ids=lambda axes: "-".join(map(str, axes.values())))
@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - {"shufflenet_v2_x0_5"}))
def test_fresh_logits_of_the_larger_networks_are_of_order_one(backbone: str, axes: dict[str, Any]) -> None:
    check_start(backbone, axes)


def test_the_small_stem_keeps_the_resolution() -> None:
    for backbone in ("shufflenet_v2_x0_5", "resnet18"):
        model = build(backbone, stem="small")
        seen: list[Tensor] = []
        model.get_submodule("maxpool").register_forward_hook(lambda _module, _x, y, seen=seen: seen.append(y))
        model.eval()(torch.randn(1, 3, 32, 32))
        assert seen[0].shape[2:] == (32, 32)


def test_build_takes_a_point_or_its_axes() -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 1, 1, stem="small", num_classes=7)
    torch.manual_seed(0)
    one = build(point).state_dict()
    torch.manual_seed(0)
    other = build(
        backbone="shufflenet_v2_x0_5", method="weightnet", M=1, G="1", stem="small", num_classes=7
    ).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(InputError, match="point"):
        build(point, M=2)  # type: ignore[call-overload]


def test_an_illegal_pair_is_refused_with_the_layer_before_anything_is_built() -> None:
    state = torch.get_rng_state()
    with pytest.raises(IllegalPointError, match=r"stage2\.0\.branch1\.0\b"):
        build("shufflenet_v2_x0_5", "weightnet", M=1, G=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(InputError, match="'resnet50'"):
        build("resnet5O")
    with pytest.raises(InputError, match=r"\bM\b"):
        build("resnet50", M=2)


def test_a_state_dict_restores_the_channel_order_it_was_made_in() -> None:
    torch.manual_seed(0)
    published = ShuffleNetV2(SMALL, stem="small", num_classes=10).eval()
    assert "published_order" not in published.state_dict()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        default = published(x)
        plain_state = {key: value.clone() for key, value in published.state_dict().items()}
        published.use_published_order()
        expected = published(x)
        assert not torch.allclose(expected, default)

        fresh = ShuffleNetV2(SMALL, stem="small", num_classes=10).eval()
        fresh.load_state_dict(published.state_dict())
        torch.testing.assert_close(fresh(x), expected)
        wrapped = nn.Sequential(ShuffleNetV2(SMALL, stem="small", num_classes=10)).eval()
        wrapped.load_state_dict({f"0.{key}": value for key, value in published.state_dict().items()})
        torch.testing.assert_close(wrapped(x), expected)

        published.load_state_dict({"fc.bias": torch.zeros(10)}, strict=False)
        torch.testing.assert_close(published(x), expected)
        published.load_state_dict(plain_state)
        torch.testing.assert_close(published(x), default)
        assert "published_order" not in published.state_dict()
