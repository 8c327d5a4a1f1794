"""What conversion must not get wrong in networks of every kind: what it sees, keeps, leaves and refuses."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from hypothesis import assume, given
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tests.examples import examples
from tests.models.checks import randomise
from wnexplore.design.legality import IllegalPointError
from wnexplore.errors import InputError
from wnexplore.models import Conversion, Where, convert
from wnexplore.models.conv_calls import layout
from wnexplore.nn import WeightNetConv2d


def names(conversion: Conversion) -> list[str]:
    return [change.name for change in conversion.replaced]


def evaluated(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(x)
    return logits


@given(st.data())
@examples(40)
def test_any_convolution_keeps_its_function(data: st.DataObject) -> None:
    def two(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = data.draw(st.integers(1, 4))
    into, out = (groups * size for size in two(1, 4))
    conv = nn.Conv2d(
        into, out, two(1, 4), two(1, 3), two(0, 3), two(1, 2), groups, bias=data.draw(st.booleans())
    )
    model = nn.Sequential(nn.Conv2d(3, into, 1), conv).double()
    pair = data.draw(st.sampled_from(["1/2", "1", "2", "3", f"1/{out}"]))
    x = torch.randn(3, 3, 13, 11, dtype=torch.float64)
    expected = evaluated(model, x)
    try:
        convert(model, "weightnet", pair, pair, resolution=16)
    except IllegalPointError:
        assume(False)
    assert not isinstance(model[1], nn.Conv2d)
    torch.testing.assert_close(evaluated(model, x), expected, rtol=1e-12, atol=1e-12)


def test_a_resnet_with_several_groups_a_filter_is_what_it_was() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    randomise(model)
    model.double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = evaluated(model, x)
    assert len(convert(model, "weightnet", 4, 4).replaced) == 19
    assert float((evaluated(model, x) - expected).norm() / expected.norm()) < 1e-12


def test_from_the_second_step_on_every_parameter_learns_and_kernels_differ() -> None:
    """In the first one fc1 doesn't read the context yet."""
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_100", num_classes=10)
    convert(model, "weightnet", 1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    layer = next(module for module in model.modules() if isinstance(module, WeightNetConv2d))
    one, other = layer.kernels(torch.randn(2, layer.in_channels, 8, 8))
    assert not torch.equal(one, other)


class Strange(nn.Module):
    """Convolutions that can't be replaced, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.named = nn.Conv2d(8, 8, 1)
        self.alias = self.named
        self.tied, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.other.weight = self.tied.weight
        self.normed = weight_norm(nn.Conv2d(8, 8, 1))
        self.old = nn.utils.spectral_norm(nn.Conv2d(8, 8, 1))
        self.hooked = nn.Conv2d(8, 8, 1)
        self.hooked.register_forward_hook(lambda module, args, output: output + 1)
        self.unused = nn.Conv2d(8, 8, 1)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.uneven = nn.Conv2d(8, 8, 2, padding="same")
        self.upwards = nn.ConvTranspose2d(8, 8, 2, 2)
        self.own = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x)))
        for layer in (self.alias, self.tied, self.other, self.normed, self.old, self.hooked):
            x = layer(x)
        x = self.uneven(self.mirrored(x))
        pixels: Tensor = self.own(self.upwards(x))
        return pixels.mean((2, 3))


def test_what_can_not_be_replaced_is_left_with_its_reason() -> None:
    model = Strange()
    before = dict(model.named_modules())
    conversion = convert(model, M=1, G=1, where=Where(stem=True), resolution=32)
    assert names(conversion) == ["stem", "own"]
    reasons, facts = (
        {change.name: change.reason for change in conversion.left},
        {
            "twice": "more than once",
            "named": "alias",
            "tied": "other.weight",
            "other": "tied.weight",
            "normed": "parametrised",
            "old": "computed",
            "hooked": "hooks",
            "unused": "no image",
            "mirrored": "reflect (1, 1)",
            "uneven": "padding",
            "upwards": "ConvTranspose2d",
        },
    )
    assert reasons.keys() == facts.keys()
    assert all(fact in reasons[name] for name, fact in facts.items()), reasons
    assert all(model.get_submodule(change.name) is before[change.name] for change in conversion.left)


def test_subclasses_and_parts_of_the_methods_own_layers_are_left() -> None:
    model = nn.Sequential(
        Conv2dSame(3, 8, 3, stride=2),
        nn.Conv2d(8, 8, 1),
        Conv2dSame(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    reasons = {change.name: change.reason for change in convert(model, "cbam").left}
    assert "Conv2dSame" in reasons["0"]
    assert reasons["0"] == reasons["2"]
    again = convert(model, "weightnet", 1, 1)
    reasons = {change.name: change.reason for change in again.left}
    assert "ConvBlockAttention" in reasons["1.gate.conv"]
    assert "1.conv" in names(again)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(stages="1+2"), ["1", "2"]),
        (Where(stages=2), ["2"]),
        (Where(kernel_sizes=[(1, 3)]), ["1"]),
        (Where(kernel_sizes=3), ["1", "2"]),
        (Where(kernel_sizes=1), []),
    ],
)
def test_where_takes_what_a_person_writes(where: Where, expected: list[str]) -> None:
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, (1, 3), padding=(0, 1)), nn.Conv2d(8, 8, 3, 2, 1)]
    assert names(convert(nn.Sequential(*layers), "se", where=where)) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("(", r"where is '\('"),
        (Where(stages=[2, 3]), r"stages is '2\+3'"),
        (Where(stages="two"), "stages is 'two'"),
        (Where(kernel_sizes=["3"]), "kernel_sizes is '3'"),  # type: ignore[list-item]
    ],
)
def test_what_can_not_be_meant_is_refused(where: Where | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3)), where=where)


def test_selective_kernels_leave_what_has_no_middle() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 3))
    done = convert(network, "sk")
    assert [change.name for change in done.replaced] == ["2"]
    reasons = {change.name: change.reason for change in done.left}
    assert reasons.keys() == {"0", "1"}
    assert "stem" in reasons["0"]
    assert "method" in reasons["1"]


@pytest.mark.parametrize("method", ["weightnet", "sk"])
def test_a_bias_does_not_change_the_dtype_under_autocast(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3))
    convert(model, method)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 3, 8, 8)).dtype is torch.bfloat16


def test_a_network_without_numbers_is_converted_where_it_is() -> None:
    model = torchvision.models.resnet18(num_classes=10).to("meta")
    convert(model)
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_looking_at_a_network_leaves_it_as_it_was() -> None:
    class Reading(nn.Module):
        """Its code reads numbers, which a copy without any doesn't have."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 2))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers(x)
            return y if y.max().item() < 1e9 else y * 0

    model = Reading()
    model.layers[1].eval()
    before = copy.deepcopy(model.state_dict())
    assert [(seen.name, seen.stage) for seen in layout(model).convs] == [("layers.0", 1), ("layers.2", 2)]
    assert [module.training for module in model.layers] == [True, False, True]
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_for_other_images_is_seen_on_those() -> None:
    layers = [nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 8, 5), nn.Flatten(), nn.Linear(8 * 64, 10)]
    model = nn.Sequential(*layers)
    assert names(convert(model, "weightnet", 1, 1)) == ["2"]
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(InputError, match=r"\b32 pixels\b"):
        convert(model, resolution=32)
