"""ODConv: a kernel mixed for each image from a few experts, with attention along all four kernel dimensions.

Source: Li, Zhou, Yao, Omni-Dimensional Dynamic Convolution, ICLR 2022, section 3,
https://openreview.net/forum?id=DmpCfq6Mg39, and the authors' code, https://github.com/OSVAI/ODConv
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wnexplore.nn.context import reduced_channels
from wnexplore.nn.formulations import LayerShape
from wnexplore.nn.formulations.im2col import columns_of
from wnexplore.nn.formulations.layer_shape import Size2d
from wnexplore.nn.formulations.published import convolve_folded
from wnexplore.nn.generated import KernelSum, MethodConv2d, at_least, positive
from wnexplore.nn.init import SMALL_GAIN, init_linear_, kaiming_std
from wnexplore.nn.true_pixels import spatial_mean


class Attentions(NamedTuple):
    """The attentions of each image's kernel, by dimension; None where there is none."""

    channels: Tensor
    """(N, C_in)."""
    filters: Tensor | None
    """(N, C_out)."""
    positions: Tensor | None
    """(N, kh·kw)."""
    experts: Tensor | None
    """(N, experts), with sum 1."""


class ODConv2d(MethodConv2d):
    """A convolution whose kernel is a sum of `experts` kernels weighted by four attentions.

    With v = relu(fc1(mean of x over space)) of the layer's own input, R = max(16, C_in // reduction)
    features, and z = fc2(v) / temperature, it is the kernel

        W[o, i, p] = filters[o] · channels[i] · positions[p] · sum_e experts[e] · weight[e, o, i, p],

    p a position of the kernel, where `experts` is the softmax of its part of z and the others are the
    sigmoid of theirs. As in the authors' code there is no attention over the positions of a 1x1 kernel, none
    over the filters of a depthwise convolution, whose only channel has attention already, and none over a
    single expert. `temperature` is constant; the authors anneal it from 30 to 1 in the first 10 epochs. Their
    attention has batch normalisation after fc1, which has no bias there: it can't train on a batch of one
    image, with one value per feature, and is left out here.

    Parameters: `fc1.weight` (R, C_in), `fc1.bias`, `fc2.weight` (A, R), `fc2.bias`, A the numbers of all
    attentions in the order channels, filters, positions, experts; and `weight`
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
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        self.experts = at_least(1, "experts", experts)
        self.temperature = positive("temperature", temperature)
        hidden = reduced_channels(in_channels, at_least(1, "reduction", reduction))
        depthwise, taps = groups == in_channels == out_channels, math.prod(self.kernel_size)
        self._sizes = {"channels": in_channels}
        self._sizes |= {} if depthwise else {"filters": out_channels}
        self._sizes |= {} if taps == 1 else {"positions": taps}
        self._sizes |= {} if experts == 1 else {"experts": experts}
        self.fc1 = nn.Linear(in_channels, hidden)
        self.fc2 = nn.Linear(hidden, sum(self._sizes.values()))
        self.weight = nn.Parameter(torch.empty(experts, *self.kernel_shape))
        self.shape = LayerShape(
            in_channels,
            out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            groups,
            generator_groups=1,
            inputs_per_group=experts,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters: sigmoids near 1/2, experts near equal, kernels of variance 2/F.

        The authors initialise every kernel with the variance of a plain one and leave the scale to the
        normalisation that follows.
        """
        init_linear_(self.fc1)
        # Small logits at any temperature.
        init_linear_(self.fc2, min(1.0, SMALL_GAIN * self.temperature))
        ((weight, terms, scale),) = self.kernel_sums()
        nn.init.normal_(weight, std=kaiming_std(self.fan_in) / (scale * math.sqrt(terms)))

    def kernel_sums(self) -> tuple[KernelSum, ...]:
        halved = len(self._sizes.keys() - {"experts"})
        return (KernelSum(self.weight, self.experts, 0.5**halved / self.experts),)

    def attentions(self, x: Tensor) -> Attentions:
        """The attentions for images `x` (N, C_in, H, W)."""
        z = self.fc2(self.fc1(spatial_mean(x)).relu()) / self.temperature
        parts = dict(zip(self._sizes, z.split(list(self._sizes.values()), 1), strict=True))
        experts = parts.pop("experts").softmax(1) if "experts" in parts else None
        weighed = {name: part.sigmoid() for name, part in parts.items()}
        return Attentions(weighed["channels"], weighed.get("filters"), weighed.get("positions"), experts)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H_out, W_out), each image with its own kernel.

        The attentions over channels and filters are applied to the images, which is equivalent. Raises
        `InputError` for a tensor of the wrong shape.
        """
        self._check_images(x)
        channels, filters, positions, experts = self.attentions(x)
        x = x * channels[:, :, None, None]
        if experts is None and positions is None:
            y = functional.conv2d(
                x, self.weight[0], None, self.stride, self.padding, self.dilation, self.groups
            )
        else:
            mixed = self.weight.flatten(1) if experts is None else experts @ self.weight.flatten(1)
            if positions is not None:
                mixed = (mixed.unflatten(1, (-1, positions.shape[1])) * positions.unsqueeze(1)).flatten(1)
            y = self._convolved(x, mixed)
        y = y if filters is None else y * filters[:, :, None, None]
        return y if self.absorbed is None else y + self.absorbed[:, None, None]

    def absorb(self, scale: Tensor, shift: Tensor) -> bool:
        """As every kernel is linear in the experts' filters, these take the scale."""
        with torch.no_grad():
            self.weight.mul_(scale.view(-1, 1, 1, 1))
            self._absorb(scale, shift)
        return True

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, experts={self.experts}, temperature={self.temperature}"

    def _convolved(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Each image of `x` convolved with its own row of `kernels` (N, C_out·F)."""
        if not self.shape.pointwise and not torch.compiler.is_compiling():
            return convolve_folded(x, kernels, self.shape, None)
        # A trace for any batch size can't have groups per image.
        size = self.shape.output_size(*x.shape[2:])
        matrices = kernels.reshape(-1, self.out_channels // self.groups, self.fan_in)
        columns = columns_of(x, self.shape).reshape(-1, self.fan_in, size[0] * size[1])
        return torch.bmm(matrices, columns).view(-1, self.out_channels, *size)
