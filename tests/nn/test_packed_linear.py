"""What a GPU runs for a block's activation vectors in training: on a CPU, beside autograd's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nn.blocks import Block
from wnexplore.nn.packed_linear import PackedLinear, SplitVectors

SIZES = [3, 1, 4]


def laid() -> tuple[list[Tensor], list[nn.Parameter]]:
    """Weight (8, 5) and bias (8,), and parameters that are parts of them."""
    torch.manual_seed(0)
    buffers = [torch.randn(8, 5, dtype=torch.float64), torch.randn(8, dtype=torch.float64)]
    return buffers, [nn.Parameter(part) for whole in buffers for part in whole.split(SIZES)]


def by_autograd(context: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    return functional.linear(context, torch.cat(tuple(parameters[:3])), torch.cat(tuple(parameters[3:])))


@pytest.mark.parametrize("frozen", [(), (0,), (0, 1, 2), (3, 4, 5), (1, 4)])
@pytest.mark.parametrize("needs_context", [False, True])
def test_the_product_of_what_lies_side_by_side(frozen: tuple[int, ...], needs_context: bool) -> None:
    (weight, bias), parameters = laid()
    for index in frozen:
        parameters[index].requires_grad_(False)
    context = torch.randn(7, 5, dtype=torch.float64, requires_grad=needs_context)
    z = PackedLinear.apply(context, weight, bias, SIZES, *parameters)
    expected = by_autograd(context, parameters)
    torch.testing.assert_close(z, expected)
    wanted = [tensor for tensor in (context, *parameters) if tensor.requires_grad]
    grad = torch.randn_like(z)
    torch.testing.assert_close(
        torch.autograd.grad(z, wanted, grad), torch.autograd.grad(expected, wanted, grad)
    )


def test_autocast_is_a_linear_layers() -> None:
    buffers, parts = laid()
    weight, bias = (whole.float() for whole in buffers)
    parameters = [nn.Parameter(part.float()) for part in parts]
    context = torch.randn(7, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        z = PackedLinear.apply(context, weight, bias, SIZES, *parameters)
        expected = by_autograd(context, parameters)
    assert z.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(z, expected)
    found = torch.autograd.grad(z.float().square().sum(), [context, *parameters])
    wanted = torch.autograd.grad(expected.float().square().sum(), [context, *parameters])
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in wanted]
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def test_a_parameter_that_changed_before_backward_is_noticed() -> None:
    (weight, bias), parameters = laid()
    z = PackedLinear.apply(torch.randn(7, 5, dtype=torch.float64), weight, bias, SIZES, *parameters)
    with torch.no_grad():
        parameters[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("batch", [1, 7])
def test_parts_are_in_one_piece_and_give_their_gradients_back(batch: int) -> None:
    z = torch.randn(batch, 8, dtype=torch.float64, requires_grad=True)
    parts = SplitVectors.apply(z, SIZES)
    assert all(part.is_contiguous() for part in parts)
    torch.testing.assert_close(parts, z.split(SIZES, 1))
    # One that nothing reads has a gradient of zeros.
    torch.autograd.backward(parts[1:], [torch.ones_like(part) for part in parts[1:]])
    torch.testing.assert_close(z.grad, torch.cat([torch.zeros(batch, 3), torch.ones(batch, 5)], 1).double())


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "identity", "hard_sigmoid", "softmax"])
def test_a_block_trains_the_same_either_way(activation: str) -> None:
    block, context = Block(activation), torch.randn(3, 5)

    def trained(few_operators: bool) -> tuple[list[Tensor], list[Tensor], set[str]]:
        found = list(block.alphas(context, few_operators=few_operators).values())
        fc1s = [layer.fc1 for layer in block.layers()]
        block.zero_grad()
        loss = torch.cat([(part * torch.arange(part.shape[1])).square() for part in found], 1).sum()
        operators = _operators(loss.grad_fn)
        loss.backward()
        return (
            found,
            [one.grad for fc1 in fc1s for one in fc1.parameters() if one.grad is not None],
            operators,
        )

    *expected, usual = trained(False)
    *found, few = trained(True)
    assert "PackedLinearBackward" in few - usual
    torch.testing.assert_close(found, expected)


def _operators(node: Any) -> set[str]:
    """The names of the operators behind a node of the autograd graph."""
    behind = [after for after, _ in node.next_functions if after is not None]
    return {node.name()}.union(*map(_operators, behind))
