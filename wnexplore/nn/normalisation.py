"""A generated convolution and the batch normalisation after it, as one.

Source: Ioffe & Szegedy, Batch Normalization, ICML 2015, algorithm 2, https://arxiv.org/abs/1502.03167: in
inference the normalisation is y·scale + shift for each channel. A generated kernel is linear in its
activation vector, filter by filter: the scale goes into the few numbers that make the kernel.
"""

from __future__ import annotations

from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from wnexplore.nn.formulations import apply_generated
from wnexplore.nn.generated import GeneratedConv2d

WORTH_FOLDING = 2**17
"""Elements of a batch's input from which, on a CPU, a pass over the output costs more than a few calls per
channel. On other devices, where this was not measured, the variant with the fewest calls is taken."""


def normalised(conv: nn.Module, norm: nn.Module, x: Tensor, alpha: Tensor | None = None) -> Tensor:
    """norm(conv(x)); `alpha` (N, P·lambda) are the activation vectors of `conv` if its block has computed
    them.

    In inference the normalisation is folded into a layer with generated kernels, at no pass over its output,
    unless a hook on one of the two modules needs the tensor between them.
    """
    if alpha is None:
        return cast(Tensor, norm(conv(x)))
    if not isinstance(conv, GeneratedConv2d) or not _in_one(norm, conv):
        return cast(Tensor, norm(conv(x, alpha=alpha)))
    # Functions instead of modules: for a small image, calling modules takes as long as their work.
    weight, bias, mean, variance = _tensors(norm)
    if x.device.type != "cpu" or x.numel() < WORTH_FOLDING:
        y = apply_generated(x, alpha, conv.generator_weight, conv.shape, conv.formulation)
        return torch.batch_norm(y, weight, bias, mean, variance, False, 0.0, norm.eps, True)
    scale = (variance + norm.eps).rsqrt_().mul_(weight)
    shift = torch.addcmul(bias, mean, scale, value=-1)
    by_filter = alpha.view(alpha.shape[0], conv.out_channels, -1) * scale.unsqueeze(1)
    return apply_generated(
        x, by_filter.flatten(1), conv.generator_weight, conv.shape, conv.formulation, shift
    )


def _in_one(norm: nn.Module, conv: GeneratedConv2d) -> TypeGuard[nn.BatchNorm2d]:
    """Whether nothing needs the tensor between the two."""
    return (
        type(norm) is nn.BatchNorm2d
        and not norm.training
        and norm._parameters.get("weight") is not None
        and norm._buffers.get("running_var") is not None
        and conv.formulation != "published"
        and conv.absorbed is None
        and conv.shape.generator_groups % conv.out_channels == 0
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not (conv._forward_hooks or conv._forward_pre_hooks)
        and not (norm._forward_hooks or norm._forward_pre_hooks)
    )


def _tensors(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, bias, mean and variance, (C,) each."""
    parameters, buffers = norm._parameters, norm._buffers
    found = parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], found)
