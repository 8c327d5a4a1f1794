"""Dynamic convolution: a kernel mixed for each image from a few, with weights that add up to one.

Source: Chen, Dai, Liu, Chen, Yuan, Liu, Dynamic Convolution: Attention over Convolution Kernels, CVPR
2020, section 3, https://arxiv.org/abs/1912.03458
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wnexplore.nn.context import reduced_channels
from wnexplore.nn.formulations.layer_shape import Size2d
from wnexplore.nn.generated import GeneratedConv2d, KernelSum, at_least, positive
from wnexplore.nn.init import SMALL_GAIN, init_linear_, kaiming_std
from wnexplore.nn.true_pixels import spatial_mean


class DynamicConv2d(GeneratedConv2d):
    """A convolution whose kernel is the sum of `experts` kernels, each times its attention.

    The attention is softmax(z / temperature), z = fc2(relu(fc1(mean of x over space))), of the layer's
    own input; fc1 leaves R = max(16, C_in // reduction) features. `temperature` is constant; the paper
    anneals it from 30 to 1 in the first 10 epochs.

    Parameters: `fc1.weight` (R, C_in), `fc1.bias`, `fc2.weight` (experts, R), `fc2.bias` and `weight`
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
        reduction: int = 16,
        temperature: float = 30.0,
        formulation: str = "auto",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, None)
        self.experts = at_least(1, "experts", experts)
        self.temperature = positive("temperature", temperature)
        hidden = reduced_channels(in_channels, at_least(1, "reduction", reduction))
        self.fc1 = nn.Linear(in_channels, hidden)
        self.fc2 = nn.Linear(hidden, experts)
        self.weight = nn.Parameter(torch.empty(experts, *self.kernel_shape))
        self._set_generator(1, experts, formulation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters: attention near 1/experts, mixed kernels of variance 2/F."""
        init_linear_(self.fc1)
        # Small logits at any temperature.
        init_linear_(self.fc2, min(1.0, SMALL_GAIN * self.temperature))
        nn.init.normal_(self.weight, std=kaiming_std(self.fan_in) * math.sqrt(self.experts))

    def kernel_sums(self) -> tuple[KernelSum, ...]:
        return (KernelSum(self.weight, self.experts, 1 / self.experts),)

    @property
    def generator_weight(self) -> Tensor:
        return self.weight.flatten(1).t()

    def activations(self, x: Tensor, context: Tensor | None) -> Tensor:
        z: Tensor = self.fc2(self.fc1(spatial_mean(x)).relu())
        return (z / self.temperature).softmax(1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, experts={self.experts}, temperature={self.temperature}"
