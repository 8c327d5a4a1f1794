"""The activation vectors of a block, made by one matrix, beside each layer's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.nn.blocks import Block
from wnexplore.nn import ActivationVectors, WeightNetConv2d
from wnexplore.nn.activations import LARGE, LONG


class Calls(TorchDispatchMode):
    """Counts how often an operator is called."""

    def __init__(self, operator: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operator, self.count = operator, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is self.operator
        return func(*args, **(kwargs or {}))


def check(block: Block, *, copies: int) -> None:
    """In inference, the block's vectors are those of its layers by themselves, after so many copies."""
    dtype = block.layers()[0].fc1.weight.dtype
    context = torch.randn(3, 5, dtype=dtype)
    with torch.inference_mode(), Calls(torch.ops.aten.cat.default) as seen:
        found = block.alphas(context)
    assert seen.count == copies
    assert set(found) == set(block.layers())
    for layer in block.layers():
        z = context @ layer.fc1.weight.T + layer.fc1.bias
        torch.testing.assert_close(found[layer], layer.activate(z))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_inference_reads_one_matrix_without_a_copy(activation: str) -> None:
    check(Block(activation), copies=0)


def loaded(block: Block) -> Block:
    other = Block()
    other.load_state_dict({name: tensor + 1 for name, tensor in block.state_dict().items()})
    return other


def trained(block: Block) -> Block:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(1)
    return block


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        lambda block: pickle.loads(pickle.dumps(block)),
        lambda block: block.double(),
        lambda block: copy.deepcopy(block).double().float(),
        loaded,
        trained,
    ],
    ids=["deepcopy", "pickle", "double", "and back", "load_state_dict", "trained"],
)
def test_and_it_stays_one_matrix(change: Callable[[Block], Block]) -> None:
    block = change(Block())
    check(block, copies=0)
    with torch.no_grad():
        block.layers()[1].fc1.weight.mul_(-1)
        block.layers()[2].fc1.bias.mul_(-1)
    check(block, copies=0)


def moved(block: Block) -> None:
    weight = block.layers()[1].fc1.weight
    weight.data = weight.data * 2


def replaced(block: Block) -> None:
    block.layers()[1].fc1.weight = nn.Parameter(torch.randn(12, 5))


def of_another(block: Block) -> None:
    layers = block.layers()
    layers[0].fc1.weight = Block().layers()[0].fc1.weight


def parametrised(block: Block) -> None:
    torch.nn.utils.parametrizations.weight_norm(block.layers()[1].fc1)


@pytest.mark.parametrize("change", [moved, replaced, of_another, parametrised])
def test_weights_that_lie_elsewhere_are_followed(change: Callable[[Block], None]) -> None:
    block = Block()
    change(block)
    # The weights are put together; the biases lie as they did.
    check(block, copies=1)


def test_shared_memory_stays_shared() -> None:
    block = Block().share_memory()
    assert all(parameter.is_shared() for parameter in block.parameters())
    check(block, copies=2)


def test_training_reaches_each_layers_own_parameters() -> None:
    block, context = Block(), torch.randn(3, 5)

    fc1s = [parameter for layer in block.layers() for parameter in layer.fc1.parameters()]

    def of(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, fc1s)

    found = of(torch.stack([alpha.square().sum() for alpha in block.alphas(context).values()]).sum())
    apart = [layer.activations(context, context).square().sum() for layer in block.layers()]
    for ours, apart_gradient in zip(found, of(torch.stack(apart).sum()), strict=True):
        torch.testing.assert_close(ours, apart_gradient)


def test_what_happens_to_a_copy_leaves_the_original_alone() -> None:
    block = Block()
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    trained(copy.deepcopy(block))
    trained(pickle.loads(pickle.dumps(block)))
    for name, tensor in block.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    check(block, copies=0)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("features", [LONG - 1, LONG])
@pytest.mark.parametrize("filters", [512, 511])
def test_one_image_reads_a_long_matrix_by_parts(filters: int, features: int, images: int) -> None:
    torch.manual_seed(0)
    layer = WeightNetConv2d(4, filters, 1, M=7, G=1, activation="identity", context_features=features)
    assert 7 * 511 * LONG >= LARGE
    vectors, context = ActivationVectors([layer]), torch.randn(images, features)
    with torch.inference_mode(), Calls(torch.ops.aten.baddbmm.default) as seen:
        found = vectors(context)[layer]
    # 7·511 rows are no eight equal parts.
    assert seen.count == ((filters, features, images) == (512, LONG, 1))
    expected = context.double() @ layer.fc1.weight.double().T + layer.fc1.bias.double()
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-5, atol=1e-5)
