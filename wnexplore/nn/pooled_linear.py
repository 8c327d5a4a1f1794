"""A context and the linear layer that reads it, as one product where only inference matters.

Source: Ma et al., WeightNet, ECCV 2020, section 3, https://arxiv.org/abs/2007.11823: there is no activation
between the layer that reduces the pooled channels and fc1, so that both are one linear function of these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wnexplore.nn.context import Context
from wnexplore.nn.precision import is_cast
from wnexplore.nn.true_pixels import is_padded

WORTH_MERGING = 2**19
"""Multiply-adds, beyond those of the two layers, which take as long as the operators that are saved."""

WORTH_STORING = 2**17
"""Such of one image, each with a weight of its own: with more of them memory grows and nothing is saved."""

_DTYPES = (torch.float32, torch.float64)
"""The dtypes in which the product of two matrices may stand for them."""


def pooled_linear(context: Context, weight: Tensor, bias: Tensor) -> PooledLinear | None:
    """linear(context(x)) as one, for `weight` (S, R) and `bias` (S); None where that never pays."""
    more = context.in_features * len(weight) - weight.numel() - context.weight.numel()
    pays = more <= WORTH_STORING and weight.dtype in _DTYPES
    return PooledLinear(context, weight, bias, more) if pays else None


class PooledLinear(nn.Module):
    """(N, C, H, W) -> (N, S): the mean over space, then one linear layer with buffers of its own.

    These aren't saved, and don't follow the parameters that they are made of.
    """

    def __init__(self, context: Context, weight: Tensor, bias: Tensor, more: int) -> None:
        super().__init__()
        with torch.no_grad():
            exact, reduce = weight.double(), context.weight.double()
            merged = (exact @ reduce).t().contiguous()
            offset = torch.addmv(bias.double(), exact, context.bias.double())
        self.register_buffer("weight", merged.to(weight.dtype), persistent=False)
        self.register_buffer("bias", offset.to(bias.dtype), persistent=False)
        self._more = more

    def runs(self, x: Tensor) -> bool:
        """Whether it stands for the two layers with images `x`, and costs less than they do."""
        return (
            len(x) * self._more <= WORTH_MERGING
            and not torch.is_grad_enabled()
            and x.dtype in _DTYPES
            and not is_padded()
            and not is_cast(x.device.type)
            and not torch.compiler.is_compiling()
            and torch._C._get_tracing_state() is None
        )

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        weight, bias = self._buffers["weight"], self._buffers["bias"]
        assert weight is not None
        assert bias is not None
        return torch.addmm(bias, x.sum((2, 3)), weight, alpha=1 / pixels)
