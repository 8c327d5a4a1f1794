"""CondConv: a kernel mixed for each image from a few experts.

Source: Yang, Bender, Le, Ngiam, CondConv: Conditionally Parameterized Convolutions for Efficient
Inference, NeurIPS 2019, section 3, https://arxiv.org/abs/1904.04971
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wnexplore.nn.formulations.layer_shape import Size2d
from wnexplore.nn.generated import GeneratedConv2d, KernelSum, at_least
from wnexplore.nn.init import SMALL_GAIN, init_linear_, kaiming_std
from wnexplore.nn.true_pixels import spatial_mean


class CondConv2d(GeneratedConv2d):
    """A convolution whose kernel is the sum of `experts` kernels, each times its routing weight.

    The routing weights are sigmoid(routing(v)), v the spatial mean of the layer's own input, as
    published, or the block's context (N, R) when `context_features` is R. This is WeightNet at
    M = experts/C_out, G = 1/C_out.

    Parameters: `routing.weight` (experts, C_in or R), `routing.bias` (experts) and `weight`
    (experts, C_out, C_in/g, kh, kw).

    Raises `InputError` for an impossible size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        *,
        experts: int = 4,
        context_features: int | None = None,
        formulation: str = "auto",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, context_features
        )
        self.experts = at_least(1, "experts", experts)
        self.routing = nn.Linear(in_channels if context_features is None else context_features, experts)
        self.weight = nn.Parameter(torch.empty(experts, *self.kernel_shape))
        self._set_generator(1, experts, formulation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters: routing weights near 1/2, mixed kernels of variance 2/F."""
        init_linear_(self.routing, SMALL_GAIN)
        nn.init.normal_(self.weight, std=kaiming_std(self.fan_in) / (0.5 * math.sqrt(self.experts)))

    def kernel_sums(self) -> tuple[KernelSum, ...]:
        return (KernelSum(self.weight, self.experts, 0.5),)

    @property
    def generator_weight(self) -> Tensor:
        return self.weight.flatten(1).t()

    def activations(self, x: Tensor, context: Tensor | None) -> Tensor:
        weights: Tensor = self.routing(spatial_mean(x) if context is None else context).sigmoid()
        return weights

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, experts={self.experts}"
