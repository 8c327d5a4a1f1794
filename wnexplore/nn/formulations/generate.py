"""The generator: activation vectors to kernels, one for each image.

Source: Ma et al., ECCV 2020, section 3: a grouped fully-connected layer without bias. Throughout, `alpha` is
(N, P·lambda), `weight` (C_out·F, lambda) and `groups` P, which divides C_out·F; each group of lambda inputs
makes L = C_out·F/P consecutive elements of the kernel: part of a filter, a filter, or several (CondConv's
single group makes all). lambda·C_out·F multiply-adds per image. `weight` may also be (P, L, lambda), as
`stored_by_input` returns it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def generate_kernels(alpha: Tensor, weight: Tensor, groups: int, out: Tensor | None = None) -> Tensor:
    """(N, C_out·F), each image's kernel contiguous; for lambda = 1 written to `out` (N, P, L), if given."""
    if weight.shape[-1] == 1:
        return torch.mul(alpha.unsqueeze(2), weight.view(groups, -1), out=out).flatten(1)
    return generate_by_group(alpha, weight, groups).transpose(0, 1).flatten(1)


def generate_by_group(alpha: Tensor, weight: Tensor, groups: int, out: Tensor | None = None) -> Tensor:
    """(P, N, L), grouped first: one matrix product per group, no copy.

    Written to `out`, if given.
    """
    terms = weight.shape[-1]
    by_group = alpha.view(-1, groups, terms).transpose(0, 1)
    # The batch is the rows of the product: a batch of one then needs no copy to be moved to the front.
    return torch.bmm(by_group, weight.view(groups, -1, terms).transpose(1, 2), out=out)


def stored_by_input(weight: Tensor, groups: int) -> Tensor:
    """A copy of `weight` as (P, L, lambda), in memory (P, lambda, L), as a product of few rows reads it.

    Where lambda is innermost, one vector for each group times the weights runs at a fraction of the memory's
    speed.
    """
    by_group = weight.detach().view(groups, -1, weight.shape[-1])
    return by_group.transpose(1, 2).contiguous().transpose(1, 2)


def generate_published(alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(N, C_out·F), as in the authors' code: a 1x1 convolution of one pixel in P groups."""
    kernels: Tensor = functional.conv2d(alpha[:, :, None, None], weight[:, :, None, None], groups=groups)
    return kernels.flatten(1)
