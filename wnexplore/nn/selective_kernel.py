"""Selective kernels (SKNet): two convolutions with different receptive fields, mixed channel by channel.

Source: Li, Wang, Hu, Yang, Selective Kernel Networks, CVPR 2019, section 3.1,
https://arxiv.org/abs/1903.06586
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from wnexplore.errors import InputError
from wnexplore.nn.context import reduced_channels
from wnexplore.nn.formulations.layer_shape import Size2d
from wnexplore.nn.generated import KernelSum, MethodConv2d, at_least, size_pair
from wnexplore.nn.init import SMALL_GAIN, kaiming_std
from wnexplore.nn.true_pixels import spatial_mean


class SelectiveKernelConv2d(MethodConv2d):
    """A weighted sum of two paths: (N, C_in, H, W) -> (N, C_out, H_out, W_out).

    Each path is a convolution without bias, normalisation and ReLU, the second one at twice the dilation
    of the first (the paper's efficient form of 5x5 next to 3x3). For each channel the two weights are the
    softmax of fc2(relu(norm(fc1(v)))), v the mean over space of the sum of the paths, fc1 to
    max(16, C_out // reduction) features; fc1 and fc2 have no biases. `padding` is the first path's; None
    keeps the size of the input at stride 1.

    `norm` normalises over the batch: as in every implementation, a training step on one single image
    raises torch's `ValueError`.

    Raises `InputError` for an impossible size, such as a 1x1 kernel, whose two paths would be equal.
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
        reduction: int = 16,
    ) -> None:
        kernel = size_pair("kernel_size", kernel_size)
        if kernel == (1, 1):
            raise InputError("kernel_size is 1x1: selective kernels need a larger one")
        if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
            raise InputError(f"kernel_size = {kernel} is even: its two paths can't give the same size")
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups)
        (high, wide), (down, across), reach = self.padding, self.dilation, self._same_padding()

        def path(padding: Size2d, dilation: Size2d) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(
                    in_channels, out_channels, kernel, self.stride, padding, dilation, groups, bias=False
                ),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            )

        # The second path's larger receptive field is padded, so that both outputs align.
        further = high + reach[0], wide + reach[1]
        self.paths = nn.ModuleList(
            [path((high, wide), (down, across)), path(further, (2 * down, 2 * across))]
        )
        hidden = reduced_channels(out_channels, at_least(1, "reduction", reduction))
        self.fc1 = nn.Linear(out_channels, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, 2 * out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters; every weight of a path starts near 1/2."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=kaiming_std(module.weight[0].numel()))
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.reset_parameters()
        nn.init.normal_(self.fc1.weight, std=1 / math.sqrt(self.fc1.in_features))
        nn.init.normal_(self.fc2.weight, std=SMALL_GAIN / math.sqrt(self.fc2.in_features))

    def kernel_sums(self) -> tuple[KernelSum, ...]:
        """Ordinary kernels: each is normalised within its path, whatever the weight of the path."""
        kernels = (module.weight for module in self.modules() if isinstance(module, nn.Conv2d))
        return tuple(KernelSum(kernel, 1, 1.0) for kernel in kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `InputError` for a tensor of the wrong shape."""
        self._check_images(x)
        near, far = self.paths[0](x), self.paths[1](x)
        pooled = spatial_mean(near) + spatial_mean(far)
        z = self.fc2(self.norm(self.fc1(pooled)).relu())
        # Under autocast softmax returns float32, which must not change the dtype of the images.
        weights = z.view(-1, 2, self.out_channels, 1, 1).softmax(1).to(near.dtype)
        mixed: Tensor = near * weights[:, 0] + far * weights[:, 1]
        return mixed
