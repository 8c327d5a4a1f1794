"""A block's activation vectors in training on a GPU, by fewer operators than autograd would have.

A GPU waits for calls: weights that lie side by side in memory are read as one matrix, where `torch.cat` would
put them together in each pass, and vectors are taken apart by one operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wnexplore.nn.precision import is_cast


class SideBySide(torch.autograd.Function):
    """context (N, R), weight (S, R), bias (S,), sizes, parameters -> (N, S): `functional.linear`.

    `parameters` are the parts of `weight` and then those of `bias`, (sizes[i], R) and (sizes[i],), in whose
    memory these lie: the gradients are theirs. Under autocast all is cast as a linear layer casts it.
    """

    @staticmethod
    def forward(
        ctx: Any, context: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], *parameters: Tensor
    ) -> Tensor:
        device = context.device.type
        if is_cast(device):
            dtype = torch.get_autocast_dtype(device)
            context, weight, bias = context.to(dtype), weight.to(dtype), bias.to(dtype)
        # The parameters too, which nothing reads: autograd sees by them whether they are as they were.
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


class Parts(torch.autograd.Function):
    """z (N, S) -> (N, sizes[i]) each, in memory of their own, by one operator."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        parts = tuple(z.new_empty(len(z), size) for size in sizes)
        # One kernel on CUDA. Without `out`, and while a graph is captured, it is a copy for each part.
        torch.split_with_sizes_copy(z, sizes, 1, out=parts)
        return parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return torch.cat(grads, 1), None
