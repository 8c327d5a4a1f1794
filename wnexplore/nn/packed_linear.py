"""A block's activation vectors in training on a GPU, with fewer operators than autograd.

Small networks are bound by kernel launches: weights packed contiguously are read as one matrix, without a
`torch.cat` in each pass, and one operator splits the vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wnexplore.nn.precision import is_cast


class PackedLinear(torch.autograd.Function):
    """context (N, R), weight (S, R), bias (S,), sizes, parameters -> (N, S): `functional.linear`.

    `parameters` are the parts of `weight` and then of `bias`, (sizes[i], R) and (sizes[i],), views of the
    same memory, and receive the gradients. Under autocast all tensors are cast as by a linear layer.
    """

    @staticmethod
    def forward(
        ctx: Any, context: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], *parameters: Tensor
    ) -> Tensor:
        device = context.device.type
        if is_cast(device):
            dtype = torch.get_autocast_dtype(device)
            context, weight, bias = context.to(dtype), weight.to(dtype), bias.to(dtype)
        # The parameters are saved too, so that autograd detects modifications in place.
        ctx.save_for_backward(context, weight, *parameters)
        ctx.sizes = sizes
        return torch.addmm(bias, context, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (context, weight, *parameters) = grads, ctx.saved_tensors
        needs_context, _, _, _, *needed = ctx.needs_input_grad
        dtype, layers = parameters[0].dtype, len(ctx.sizes)
        parts: list[Tensor | None] = [None] * len(parameters)
        if any(needed[:layers]):
            parts[:layers] = torch.mm(grad.t(), context).to(dtype).split(ctx.sizes)
        if any(needed[layers:]):
            parts[layers:] = grad.sum(0).to(dtype).split(ctx.sizes)
        return torch.mm(grad, weight) if needs_context else None, None, None, None, *parts


class SplitVectors(torch.autograd.Function):
    """z (N, S) -> contiguous (N, sizes[i]) for each i, in one operator."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        parts = tuple(z.new_empty(len(z), size) for size in sizes)
        # One kernel on CUDA. Without `out`, and while a graph is captured, it is one copy per part.
        torch.split_with_sizes_copy(z, sizes, 1, out=parts)
        return parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return torch.cat(grads, 1), None
