"""WeightNet: kernels generated from a context by two fully-connected layers, the second one grouped.

Source: Ma, Zhang, Huang, Sun, WeightNet: Revisiting the Design Space of Weight Networks, ECCV 2020,
section 3, https://arxiv.org/abs/2007.11823
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from wnexplore.design.axes import ACTIVATIONS
from wnexplore.design.generator import generator_shape
from wnexplore.design.multiplier import Multiplier, parse_multiplier
from wnexplore.errors import unknown
from wnexplore.nn.context import Context
from wnexplore.nn.formulations import generate_kernels, stored_by_input
from wnexplore.nn.formulations.layer_shape import Size2d
from wnexplore.nn.generated import GeneratedConv2d, KernelSum, at_least
from wnexplore.nn.init import SMALL_GAIN, init_linear_, kaiming_std
from wnexplore.nn.parameters import parameter
from wnexplore.nn.pooled_linear import PooledLinear, pooled_linear


class WeightNetConv2d(GeneratedConv2d):
    """A convolution whose kernel is alpha = activation(fc1(context)) through the grouped layer fc2.

    fc1 is a biased linear layer from the context's R features to M·C_out, fc2 a grouped one without bias
    from there to C_out·F in G·C_out groups of lambda = M/G inputs; `M` and `G` may be whole numbers,
    decimals or fractions ("1/48"). `context_features` None adds the layer's own `reduce`, a `Context`
    with `reduction`. `activation` is sigmoid (published), hard_sigmoid, tanh, identity, or softmax over
    the lambda inputs of each group (all ones where lambda is 1). `formulation` selects how the output is
    computed: "auto", or one of "published", "kernel", "shared" and "fused" that is legal for the layer.

    Parameters: `fc1.weight` (M·C_out, R), `fc1.bias`, `fc2.weight` (C_out·F, lambda) and, without
    `context_features`, `reduce.weight` (R, C_in), `reduce.bias`.

    A depthwise convolution is no special case here; the published networks give it (M/G, 1), see
    `wnexplore.design.stage_design.StageDesign.pair`.

    Raises `InputError` for an illegal (M, G), name or size.
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
        M: Multiplier = 2,
        G: Multiplier = 2,
        reduction: int = 16,
        activation: str = "sigmoid",
        context_features: int | None = None,
        formulation: str = "auto",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, context_features
        )
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        at_least(1, "reduction", reduction)
        self.M = parse_multiplier(M, "M")
        self.G = parse_multiplier(G, "G")
        self.activation = activation
        shape = generator_shape(self.M, self.G, out_channels, self.fan_in)

        self.reduce: Context | None = None
        self.pooled: PooledLinear | None = None
        if context_features is None:
            self.reduce = Context(in_channels, reduction)
            context_features = self.reduce.out_features
        self.fc1 = nn.Linear(context_features, shape.inputs)
        self.fc2 = GroupedLinear(shape.inputs, shape.outputs, shape.groups)
        self._set_generator(shape.groups, shape.inputs_per_group, formulation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting parameters.

        fc1 is small, so that alpha starts near a constant alpha0 (see `resting_alpha`); fc2 is such that the
        kernels, sums of lambda terms alpha0·B, start with a plain convolution's variance 2/F. The authors'
        code draws fc1 and fc2 with std 1/R and G/F instead and leaves the scale to batch normalisation: see
        `wnexplore.models.published_start`.
        """
        if self.reduce is not None:
            self.reduce.reset_parameters()
        init_linear_(self.fc1, SMALL_GAIN)
        terms = self.fc2.inputs_per_group
        bias, alpha0 = resting_alpha(self.activation, terms)
        nn.init.constant_(self.fc1.bias, bias)
        nn.init.normal_(self.fc2.weight, std=kaiming_std(self.fan_in) / (alpha0 * math.sqrt(terms)))

    @property
    def generator_weight(self) -> Tensor:
        return parameter(self._modules["fc2"] or self.fc2, "weight")

    def activations(self, x: Tensor, context: Tensor | None) -> Tensor:
        z: Tensor
        if self.pooled is not None and self.pooled.runs(x):
            z = self.pooled(x)
        else:
            z = self.fc1(context if self.reduce is None else self.reduce(x))
        return self.activate(z)

    def activate(self, z: Tensor) -> Tensor:
        """The activation function on fc1's outputs (N, P·lambda)."""
        if self.activation == "softmax":
            groups = z.view(-1, self.fc2.groups, self.fc2.inputs_per_group)
            return groups.softmax(-1).flatten(1)
        return _ELEMENTWISE[self.activation](z)

    @property
    def activation_range(self) -> tuple[float, float] | None:
        return {"tanh": (-1.0, 1.0), "identity": None}.get(self.activation, (0.0, 1.0))

    def kernel_sums(self) -> tuple[KernelSum, ...]:
        terms = self.fc2.inputs_per_group
        _, alpha0 = resting_alpha(self.activation, terms)
        return (KernelSum(self.fc2.weight, terms, alpha0),)

    def settle_for_inference(self) -> None:
        if type(self.reduce) is Context and type(self.fc1) is nn.Linear and self.formulation != "published":
            self.pooled = pooled_linear(self.reduce, self.fc1.weight, self.fc1.bias)
        weight, groups = self.fc2.weight, self.shape.generator_groups
        several = self.shape.inputs_per_group > 1 and groups % self.out_channels == 0
        if several and weight.dim() == 2 and weight.device.type == "cpu" and self.formulation != "published":
            self.fc2.weight = nn.Parameter(stored_by_input(weight, groups), requires_grad=False)

    def keep_kernel(self, kernel: Tensor) -> bool:
        if self.shape.inputs_per_group > 1:
            return False
        with torch.no_grad():
            self.fc1.weight.zero_()
            alpha = self.activate(self.fc1.bias.unsqueeze(0))  # (1, P), the same number in every group
            self.fc2.weight.copy_(kernel.reshape(-1, 1) / alpha[0, 0])
        self.fc2.weight.requires_grad_(kernel.requires_grad)
        return True

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, M={self.M}, G={self.G}, activation={self.activation}"


def resting_alpha(activation: str, inputs_per_group: int) -> tuple[float, float]:
    """The initial bias of fc1, and alpha0, the value of the activation function there.

    1/2, where sigmoid is steepest and tanh is far from its zero; 1 for identity, 1/lambda for softmax.
    """
    if activation == "tanh":
        return math.atanh(0.5), 0.5
    if activation == "identity":
        return 1.0, 1.0
    return 0.0, 1 / inputs_per_group if activation == "softmax" else 0.5


_ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": functional.hardsigmoid,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


class GroupedLinear(nn.Module):
    """A linear layer without bias in `groups` independent groups.

    (N, in_features) -> (N, out_features); `groups` divides both. Its `weight` has shape
    (out_features, in_features/groups), row i reading group i // (out_features/groups), and is initialised by
    the layer that owns it.
    """

    def __init__(self, in_features: int, out_features: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.inputs_per_group = in_features // groups
        self.weight = nn.Parameter(torch.empty(out_features, self.inputs_per_group))

    def forward(self, x: Tensor) -> Tensor:
        return generate_kernels(x, self.weight, self.groups)

    def extra_repr(self) -> str:
        outputs = self.weight.shape[0]
        return f"{self.inputs_per_group * self.groups}, {outputs}, groups={self.groups}"
