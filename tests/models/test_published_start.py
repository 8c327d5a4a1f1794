"""The authors' start, compared with the arithmetic of their code on the published widths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wnexplore import InputError, build
from wnexplore.design.methods import METHODS
from wnexplore.models.published_start import start_as_published
from wnexplore.nn import CondConv2d
from wnexplore.nn.weightnet import GroupedLinear

SHUFFLENET, RESNET = "shufflenet_v2_x0_5", "resnet18"
SEEDS = 2
WIDTHS = (48, 96, 192)
"""Of the stages of ShuffleNetV2 0.5x."""

# Method, its axes, the numerator of a pointwise kernel's 1/C_in, and the deviation of a depthwise one.
DESIGNS: list[tuple[str, dict[str, Any], float, float]] = [
    ("plain", {}, 1, 1),
    ("plain", {"stem": "small"}, 1, 1),
    ("se", {}, 1, 1),
    ("weightnet", {"M": 1, "G": 1}, 1, 1 / 9),
    ("weightnet", {"M": 2, "G": 2}, 2, 1 / 9),
    ("weightnet", {"M": 2, "G": 2, "stem": "small"}, 2, 1 / 9),
    ("weightnet", {"M": 8, "G": 1}, 1, 1 / 9),
    ("weightnet", {"M": "1/2", "G": "1/4", "depthwise": "plain"}, 1 / 4, 1),
    ("weightnet", {"M": 3, "G": 3, "depthwise": "full"}, 3, 3 / 9),
]


@pytest.mark.parametrize(("method", "axes", "pointwise", "depthwise"), DESIGNS)
def test_every_parameter_starts_as_the_arithmetic_says(
    method: str, axes: dict[str, Any], pointwise: float, depthwise: float
) -> None:
    found = drawn(SHUFFLENET, method, **axes)
    assert {name.partition(".")[0] for name in found} == {
        "conv1",
        "stage2",
        "stage3",
        "stage4",
        "conv5",
        "fc",
    }
    for name, values in found.items():
        if name.endswith("bias") or values.ndim == 1:
            norm = name.replace("bias", "weight") in found and found[name.replace("bias", "weight")].ndim == 1
            constant = 1.0 if name.endswith("weight") else 0.0001 if norm else 0.0
            assert (values == torch.tensor(constant)).all(), name
        else:
            check_deviation(name, values, expected(name, pointwise, depthwise))


def expected(name: str, pointwise: float, depthwise: float) -> float:
    """The deviation of a weight of ShuffleNetV2 0.5x."""
    if name in ("conv1.0.weight", "fc.weight") or ".se." in name:
        return 0.01
    if name == "conv5.0.weight":
        return 1 / WIDTHS[-1]
    stage, block, layer = name.split(".", 2)
    number = int(stage.removeprefix("stage")) - 2
    into = (24, *WIDTHS)[number] if block == "0" else WIDTHS[number] // 2
    if layer == "reduce.weight":
        return 1 / into
    if layer.endswith("fc1.weight"):
        # All blocks reduce to max(16, C/16) = 16 features.
        return 1 / 16
    if layer.startswith(("branch1.0", "branch2.3")):
        return depthwise
    return pointwise / (WIDTHS[number] // 2 if layer.startswith("branch2.5") else into)


@pytest.mark.parametrize(
    ("backbone", "method", "axes", "deviations"),
    [
        (RESNET, "plain", {}, {"conv1": 0.01, "layer1.0.conv1": 1 / 64, "layer4.0.downsample.0": 1 / 256}),
        # With another G in stage 1 than in stage 4, where R = max(16, 512/16) = 32.
        (
            RESNET,
            "weightnet",
            {"M": 2, "G": {1: 2, 4: 1}, "stages": "1+4", "stem": "small"},
            {
                "conv1": 0.01,
                "layer1.0.conv2.fc2": 2 / (64 * 9),
                "layer2.0.conv2": 1 / 128,
                "layer4.1.reduce": 1 / 512,
                "layer4.1.conv1.fc1": 1 / 32,
                "layer4.1.conv1.fc2": 1 / (512 * 9),
                "fc": 0.01,
            },
        ),
        (SHUFFLENET, "condconv", {}, {"stage4.1.branch2.0": 1 / 4, "stage4.1.branch2.0.routing": 1 / 96}),
        (
            SHUFFLENET,
            "dynamic",
            {"experts": 8},
            {"stage2.1.branch2.0": 1 / 8, "stage2.1.branch2.0.fc2": 1 / 16},
        ),
        (
            SHUFFLENET,
            "odconv",
            {"experts": 2},
            {"stage4.1.branch2.3": 1 / 2, "stage4.1.branch2.3.fc1": 1 / 96},
        ),
        (SHUFFLENET, "sk", {}, {"stage4.1.branch2.3.paths.1.0": 1, "stage4.1.branch2.3.fc1": 1 / 96}),
        (SHUFFLENET, "cbam", {}, {"stage4.1.se.fc1": 0.01, "stage4.1.se.conv": 0.01}),
        ("mobilenet_v2", "plain", {}, {"features.0.0": 0.01, "features.2.conv.1.0": 1, "classifier.1": 0.01}),
        ("mobilenet_v3_small", "se", {}, {"features.1.block.1.fc1": 0.01, "classifier.0": 0.01}),
    ],
)
def test_other_networks_and_methods_follow_the_rule(
    backbone: str, method: str, axes: dict[str, Any], deviations: dict[str, float]
) -> None:
    found = drawn(backbone, method, seeds=1, **axes)
    for name, deviation in deviations.items():
        check_deviation(name, found[f"{name}.weight"], deviation)
    last_norms = {RESNET: "layer1.0.bn2", "mobilenet_v2": "features.2.conv.3"}
    if backbone in last_norms:
        assert (found[f"{last_norms[backbone]}.weight"] == 1).all()


def test_shapes_are_those_of_grouped_layers() -> None:
    torch.manual_seed(0)
    # A generator with one group has a weight of four dimensions; CondConv is one.
    layers = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 64, 3),
            "grouped": nn.Conv2d(64, 128, 3, groups=4),
            "six_groups": GroupedLinear(24, 600 * 6, 6),
            "one_group": GroupedLinear(5, 4000, 1),
            "condconv": CondConv2d(32, 32, 3, experts=5),
        }
    )
    start_as_published(layers)
    deviations = {"first": 0.01, "grouped": 1 / 32, "six_groups": 1 / 600, "one_group": 0.2, "condconv": 0.2}
    for name, deviation in deviations.items():
        check_deviation(name, layers[name].get_parameter("weight").detach(), deviation)


@pytest.mark.parametrize("method", METHODS)
def test_signals_and_gradients_are_finite_with_every_method(method: str) -> None:
    torch.manual_seed(0)
    network = build(SHUFFLENET, method, stem="small", num_classes=10, init="published")
    logits = network(torch.randn(8, 3, 16, 16))
    nn.functional.cross_entropy(logits, torch.arange(8)).backward()
    assert logits.isfinite().all()
    assert float(logits.detach().std()) < 10
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_kernels_dont_start_near_zero(activation: str) -> None:
    network = build(SHUFFLENET, "weightnet", 1, 1, activation=activation, init="published")
    biases = [value for name, value in network.named_parameters() if name.endswith("fc1.bias")]
    assert biases
    assert all((bias > 0.5).all() for bias in biases)


def test_the_default_is_as_without_it() -> None:
    given: Any
    networks = []
    for given in ({}, {"init": "default"}):
        torch.manual_seed(0)
        networks.append(build(SHUFFLENET, "weightnet", num_classes=2, **given))
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("backbone", "init", "message"),
    [
        ("resnet18", "publishd", "unknown init 'publishd': did you mean 'published'"),
        ("resnet18", None, "unknown init 'None'"),
        ("torchvision:resnet18", "published", "torchvision:resnet18 has its own start"),
    ],
)
def test_an_impossible_start_is_one_line(backbone: str, init: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(backbone, init=init)


def drawn(backbone: str, method: str, seeds: int = SEEDS, **axes: Any) -> dict[str, Tensor]:
    """Name -> the values of a parameter at the start, stacked over seeds as further rows."""
    found: dict[str, list[Tensor]] = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        network = build(backbone, method, num_classes=10, init="published", **axes)
        for name, parameter in network.named_parameters():
            found.setdefault(name, []).append(parameter.detach())
    return {name: torch.cat(values) for name, values in found.items()}


def check_deviation(name: str, values: Tensor, deviation: float) -> None:
    """`values` are normal with mean 0 and that standard deviation, up to five standard errors."""
    count = values.numel()
    assert float(values.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * count)), name
    assert abs(float(values.mean())) < 5 * deviation / math.sqrt(count), name
    assert float(values.abs().max()) < 7 * deviation, name
