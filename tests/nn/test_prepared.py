"""What a layer remembers of how it runs: never an earlier weight, size or setting."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wnexplore.nn import CondConv2d, GeneratedConv2d, WeightNetConv2d
from wnexplore.nn.generated import MAX_SIZES

DOUBLE = torch.float64


def layer_of(**options: object) -> WeightNetConv2d:
    torch.manual_seed(0)
    usual = {"in_channels": 4, "out_channels": 6, "kernel_size": 1, "M": 2, "G": 1} | options
    return WeightNetConv2d(**usual).double().eval()  # type: ignore[arg-type]


def remembered(layer: GeneratedConv2d, x: Tensor) -> Tensor:
    """The output for `x`, twice the same: decided anew, and as remembered."""
    with torch.no_grad():
        first = layer(x)
        assert layer._prepared
        again: Tensor = layer(x)
    assert torch.equal(again, first)
    return again


def check(layer: GeneratedConv2d, x: Tensor) -> None:
    """What runs in inference is what autograd runs."""
    torch.testing.assert_close(remembered(layer, x), layer(x).detach(), rtol=1e-12, atol=1e-12)


def loaded(layer: WeightNetConv2d) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})


def stepped(layer: WeightNetConv2d) -> None:
    with torch.no_grad():
        layer.fc2.weight.mul_(2)


def replaced(layer: WeightNetConv2d) -> None:
    layer.fc2.weight = nn.Parameter(layer.fc2.weight.detach() + 1)


def with_other_data(layer: WeightNetConv2d) -> None:
    layer.fc2.weight.data = layer.fc2.weight.detach() + 1


def parametrised(layer: WeightNetConv2d) -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    parametrize.register_parametrization(layer.fc2, "weight", Twice())


def settled(layer: WeightNetConv2d) -> None:
    layer.settle_for_inference()


def absorbed(layer: WeightNetConv2d) -> None:
    layer.absorb(torch.full((6,), 2.0, dtype=DOUBLE), torch.ones(6, dtype=DOUBLE))


def other_formulation(layer: WeightNetConv2d) -> None:
    layer.formulation = "shared"


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(
    "change",
    [loaded, stepped, replaced, with_other_data, parametrised, settled, absorbed, other_formulation],
)
def test_a_change_of_the_layer_is_followed(
    change: Callable[[WeightNetConv2d], None], kernel_size: int, images: int
) -> None:
    layer, x = layer_of(kernel_size=kernel_size), torch.randn(images, 4, 5, 5, dtype=DOUBLE)
    before = remembered(layer, x)
    change(layer)
    after = remembered(layer, x)
    check(layer, x)
    same = change in (settled, other_formulation)
    assert torch.allclose(before, after) is same


def test_each_size_and_layout_has_its_own() -> None:
    layer = layer_of(kernel_size=3)
    for size in range(3, 3 + 2 * MAX_SIZES):
        for x in (torch.randn(2, 4, size, 5, dtype=DOUBLE), torch.randn(1, 4, size, 5, dtype=DOUBLE)):
            check(layer, x)
            check(layer, x.contiguous(memory_format=torch.channels_last))
            check(layer, torch.randn(len(x), 8, size, 5, dtype=DOUBLE)[:, ::2])
    assert len(layer._prepared) <= MAX_SIZES


def test_a_layer_whose_weight_is_a_new_view_each_time_is_decided_once() -> None:
    layer, x = CondConv2d(4, 6, 1, experts=3).double().eval(), torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    check(layer, x)
    known = dict(layer._prepared)
    check(layer, x)
    assert layer._prepared == known


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_remembers_nothing_of_the_original(
    again: Callable[[WeightNetConv2d], WeightNetConv2d],
) -> None:
    layer, x = layer_of(), torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    before = remembered(layer, x)
    other = again(layer)
    assert not other._prepared
    stepped(other)
    check(other, x)
    assert torch.equal(remembered(layer, x), before)


def test_nothing_is_remembered_of_moved_weights() -> None:
    layer, x = layer_of(), torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    remembered(layer, x)
    layer.float()
    assert not layer._prepared, "their memory is free"
    torch.testing.assert_close(remembered(layer, x.float()), layer(x.float()).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_traced_layer_reads_the_weights_of_each_pass() -> None:
    layer, x = layer_of(), torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    remembered(layer, x)
    with torch.no_grad():
        traced = torch.jit.trace(layer, x)
        stepped(layer)
        torch.testing.assert_close(traced(x), remembered(layer, x), rtol=1e-6, atol=1e-6)
