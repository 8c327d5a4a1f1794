"""What a network that is built counts to, without fvcore's own figures, which take longer than ours."""

from torch import nn

from wnexplore.design.counts import Counts
from wnexplore.measure.complexity import count_products


def counts_of(model: nn.Module, resolution: int) -> Counts:
    """The parameters of `model` and the multiply-adds of one image, as `measure_complexity` has them."""
    params = sum(p.numel() for p in model.parameters())
    return Counts(params, count_products(model, resolution).total)
