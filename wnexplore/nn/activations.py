"""The activation vectors of a block at once: one matrix product for all its layers' fc1.

Source: Ma et al., WeightNet, ECCV 2020, section 3: every convolution of a block reads the same context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wnexplore.nn.context import Context
from wnexplore.nn.packed_linear import PackedLinear, SplitVectors
from wnexplore.nn.parameters import parameter
from wnexplore.nn.pooled_linear import PooledLinear, pooled_linear
from wnexplore.nn.weightnet import WeightNetConv2d


class ActivationVectors(nn.Module):
    """Context (N, R) -> each layer of a block with its activation vectors (N, M·C_out).

    The layers keep their own fc1; this has no parameters. It packs the fc1 weights contiguously in memory, so
    that inference, and training on a GPU, read them as one matrix. Where they are no longer contiguous, and
    in training on a CPU, they are concatenated in each forward pass. All layers share one activation function
    and were made with `context_features` R. Layers in the published formulation use plain autograd: they are
    the reference for comparisons.
    """

    def __init__(self, layers: Iterable[WeightNetConv2d]) -> None:
        super().__init__()
        # In a tuple, so that they aren't registered as submodules a second time.
        self._layers = tuple(layers)
        self._fc1s = tuple(layer.fc1 for layer in self._layers)
        self._sizes = [fc1.out_features for fc1 in self._fc1s]
        self._scaled = [
            layer for layer in self._layers if (layer.shape.slices or 0) * layer.shape.inputs_per_group == 1
        ]
        self._apart = self._layers[0].activation == "softmax"
        self.pooled: PooledLinear | None = None
        self._pack()

    def parameters_read(self) -> list[nn.Parameter]:
        """The layers' parameters that a forward pass reads."""
        return [parameter for fc1 in self._fc1s for parameter in fc1.parameters()]

    def forward(self, context: Tensor, *, few_operators: bool | None = None) -> dict[nn.Module, Tensor]:
        """The activation vectors of `context` (N, R).

        `few_operators` selects the way of training on a GPU, where each operator's start takes longer than
        its work; None selects it there.
        """
        trains = self._trains_by_few_operators(context) if few_operators is None else few_operators
        z = self._packed_linear(context) if trains else None
        if z is None:
            z = _linear(context, self._joined("weight"), self._joined("bias"))
        return self._of_layers(z, trains)

    def of_images(self, x: Tensor) -> dict[nn.Module, Tensor] | None:
        """The activation vectors of a block's input `x` (N, C, H, W), without a context in between.

        None if the context has to be computed: before `settle_for_inference`, and where that is faster.
        """
        pooled = self.pooled
        return None if pooled is None or not pooled.runs(x) else self._of_layers(pooled.forward(x), False)

    def settle_for_inference(self, context: Context) -> None:
        """Know how to compute the vectors from the images of which `context` is; not to be trained then."""
        ordinary = all(type(fc1) is nn.Linear for fc1 in self._fc1s)
        published = any(layer.formulation == "published" for layer in self._layers)
        if ordinary and not published and type(context) is Context:
            weight, bias = (
                torch.cat([parameter(fc1, name).detach() for fc1 in self._fc1s])
                for name in ("weight", "bias")
            )
            self.pooled = pooled_linear(context, weight, bias)

    def _of_layers(self, z: Tensor, trains: bool) -> dict[nn.Module, Tensor]:
        """fc1's outputs (N, sum of M·C_out) -> each layer's activation vectors."""
        parts: Sequence[Tensor]
        if self._apart:
            parts = [
                layer.activate(part)
                for layer, part in zip(self._layers, z.split(self._sizes, 1), strict=True)
            ]
        elif trains and any(layer.formulation in ("auto", "shared") for layer in self._scaled):
            # One operator makes all of them contiguous: `Scaled`'s gradients would copy them one at a time.
            parts = SplitVectors.apply(self._layers[0].activate(z), self._sizes)
        else:
            parts = self._layers[0].activate(z).split_with_sizes(self._sizes, 1)
        return dict(zip(self._layers, parts, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_laid": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._pack()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # A block's layers come before this module and have been moved already.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._pack()
        return self

    def _pack(self) -> None:
        """Move the fc1 parameters into one contiguous buffer."""
        self._packed: dict[str, _Packed] = {}
        for name in ("weight", "bias"):
            parameters = [fc1._parameters.get(name) for fc1 in self._fc1s]
            found = [parameter for parameter in parameters if parameter is not None]
            # Memory shared with other processes stays where it is.
            shared = any(parameter.device.type == "cpu" and parameter.is_shared() for parameter in found)
            if len(found) == len(parameters) and not shared:
                self._packed[name] = _Packed(found, self._sizes)

    def _trains_by_few_operators(self, context: Tensor) -> bool:
        return (
            context.device.type != "cpu"
            and torch.is_grad_enabled()
            and not _is_traced()
            and any(layer.formulation != "published" for layer in self._layers)
        )

    def _packed_linear(self, context: Tensor) -> Tensor | None:
        """fc1's outputs (N, sum of M·C_out) without a copy; None if the parameters aren't contiguous."""
        current = {name: [parameter(fc1, name) for fc1 in self._fc1s] for name in ("weight", "bias")}
        laid = {name: self._packed.get(name) for name in current}
        buffers = [
            packed.buffer
            for name, packed in laid.items()
            if packed is not None and packed.holds(current[name])
        ]
        if len(buffers) < len(current):
            return None
        z: Tensor = PackedLinear.apply(context, *buffers, self._sizes, *current["weight"], *current["bias"])
        return z

    def _joined(self, name: str) -> Tensor:
        parameters, laid = [parameter(fc1, name) for fc1 in self._fc1s], self._packed.get(name)
        if laid is None or torch.is_grad_enabled() or _is_traced() or not laid.holds(parameters):
            return torch.cat(parameters)
        return laid.buffer


LONG = 128
"""Features from which splitting the product pays: shorter rows are read fast enough."""
LARGE = 2**18
"""Smallest number of elements of such a matrix."""
_PARTS = 8
"""Largest number of threads it can keep busy."""


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`functional.linear`; for a single vector in parts of the matrix, which a CPU would otherwise read on
    one core.
    """
    rows, features = weight.shape
    large = features >= LONG and rows * features >= LARGE and rows % _PARTS == 0
    one = x.shape[0] == 1 and x.device.type == "cpu" and not torch.is_grad_enabled()
    if not large or not one or _is_traced():
        return functional.linear(x, weight, bias)
    vectors = x.t().expand(_PARTS, features, 1)
    parts = torch.baddbmm(bias.view(_PARTS, -1, 1), weight.view(_PARTS, -1, features), vectors)
    return parts.view(1, rows)


def _is_traced() -> bool:
    """Whether a tracer or compiler is recording: it knows only the parameters."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


class _Packed:
    """Parameters packed into one buffer, which this object keeps alive."""

    def __init__(self, parameters: list[nn.Parameter], sizes: list[int]) -> None:
        self.buffer = torch.cat([parameter.detach() for parameter in parameters])
        for tensor, part in zip(parameters, self.buffer.split(sizes), strict=True):
            tensor.data = part
        self._addresses = [parameter.data_ptr() for parameter in parameters]

    def holds(self, parameters: list[Tensor]) -> bool:
        """Whether `parameters` are the packed ones and still in their places."""
        addresses = [parameter.data_ptr() for parameter in parameters if type(parameter) is nn.Parameter]
        return addresses == self._addresses
