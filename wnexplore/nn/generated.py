"""The base classes of the methods' convolutions, with and without generated kernels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from wnexplore.design.methods import FORMULATIONS, METHODS
from wnexplore.errors import InputError, unknown
from wnexplore.nn.formulations import (
    LayerShape,
    Prepared,
    apply_generated,
    check_formulation,
    choose_formulation,
    generate_kernels,
    prepared,
)
from wnexplore.nn.formulations.layer_shape import Size2d, pair
from wnexplore.nn.precision import is_cast


class KernelSum(NamedTuple):
    """How a layer makes its kernel at the start: the sum of `terms` parts of `weight`, each times `scale`.

    By default the kernel has the variance 2/F of an ordinary one. The gradient of each part is `scale` times
    that of the kernel, so that an SGD step on `weight` moves the kernel by terms·scale² of what the same step
    moves an ordinary kernel. A step of Adam, which doesn't depend on the size of gradients, moves it by
    terms·scale.
    """

    weight: Tensor
    terms: int
    scale: float


class MethodConv2d(nn.Module, ABC):
    """The base class of every method's convolution: its sizes, without bias.

    `padding` None keeps the size of the input at stride 1, dilation·(k-1)/2 on each side. Raises `InputError`
    for sizes that fit no convolution.
    """

    bias: None = None
    """None, as in an `nn.Conv2d` without bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d,
        padding: Size2d | None,
        dilation: Size2d,
        groups: int,
    ) -> None:
        super().__init__()
        self.in_channels = at_least(1, "in_channels", in_channels)
        self.out_channels = at_least(1, "out_channels", out_channels)
        self.groups = at_least(1, "groups", groups)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups != 0:
                raise InputError(f"groups = {groups} doesn't divide {name} = {channels}")
        self.kernel_size = size_pair("kernel_size", kernel_size)
        self.stride = size_pair("stride", stride)
        self.dilation = size_pair("dilation", dilation)
        if padding is None:
            self.padding = self._same_padding()
        else:
            self.padding = size_pair("padding", padding, least=0)

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image's kernel, (C_out, C_in/g, kh, kw)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def fan_in(self) -> int:
        """F = C_in/g · kh · kw, the length of one filter."""
        return self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]

    @abstractmethod
    def kernel_sums(self) -> tuple[KernelSum, ...]:
        """How its kernels are made, from which their learning rates follow."""

    def keep_kernel(self, kernel: Tensor) -> bool:
        """Reproduce an ordinary convolution with `kernel`, if the layer can do so and still learn.

        Returns whether it does; if not, the layer is unchanged.
        """
        return False

    def absorb(self, scale: Tensor, shift: Tensor) -> bool:
        """Compute scale·y + shift instead of its output y from here on, (C_out,) each, in evaluation mode.

        So a batch normalisation that follows needs no pass of its own. Returns whether the layer can do so;
        if not, it is unchanged.
        """
        return False

    @property
    def absorbed(self) -> Tensor | None:
        """What is added to the output since `absorb` was called, (C_out,); None before."""
        return self._buffers.get("absorbed_shift")

    def _absorb(self, scale: Tensor, shift: Tensor) -> None:
        """Keep the shift, the scale being taken by the layer's weights."""
        before = self.absorbed
        self.register_buffer("absorbed_shift", shift if before is None else shift.addcmul(before, scale))

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}"
        )

    def _same_padding(self) -> tuple[int, int]:
        (high, wide), (down, across) = self.kernel_size, self.dilation
        if high % 2 == 0 or wide % 2 == 0:
            raise InputError(f"kernel_size = {self.kernel_size} is even: give its padding")
        return down * (high - 1) // 2, across * (wide - 1) // 2

    def _check_images(self, x: Tensor) -> None:
        if not torch.compiler.is_compiling() and (x.dim() != 4 or x.shape[1] != self.in_channels):
            raise InputError(f"x has shape {tuple(x.shape)}: expected (N, {self.in_channels}, H, W)")


class GeneratedConv2d(MethodConv2d):
    """A convolution without bias whose kernel is generated from a context for each image.

    With `context_features` R, the layer's block passes the context (N, R); with None the layer computes a
    context from its input. Sizes are as in `MethodConv2d`.

    A subclass defines the activation vectors in `activations` and the generator's weights in
    `generator_weight`, and calls `_set_generator` at the end of its constructor. `formulation` may be set at
    any time to any of `wnexplore.nn.formulations.legal_formulations(layer.shape)` or "auto": the same output.
    """

    formulation: str
    shape: LayerShape

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d,
        padding: Size2d | None,
        dilation: Size2d,
        groups: int,
        context_features: int | None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        if context_features is not None:
            at_least(1, "context_features", context_features)
        self.context_features = context_features
        self._prepared: dict[torch.Size, Prepared] = {}

    @property
    def activation_range(self) -> tuple[float, float] | None:
        """The bounds of the activation vectors; None if they are unbounded."""
        return 0.0, 1.0

    @property
    @abstractmethod
    def generator_weight(self) -> Tensor:
        """The generator's weight (C_out·F, lambda)."""

    @abstractmethod
    def activations(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The activation vectors of a batch, (N, P·lambda), from its context or, if None, from `x`."""

    def kernels(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The kernels of a batch, (N, C_out, C_in/g, kh, kw), from `context` (N, R) or else from `x`."""
        alpha = self.activations(x, context)
        made = generate_kernels(alpha, self.generator_weight, self.shape.generator_groups)
        return made.view(-1, *self.kernel_shape)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        alpha: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H_out, W_out), each image with its own kernel.

        `context` (N, R) is given if and only if the layer was made with `context_features`; a block that has
        computed the activation vectors of all its layers passes `alpha` (N, P·lambda) instead. `shift`
        (C_out,) is added to the output. Raises `InputError` for tensors of the wrong shape.
        """
        if alpha is None:
            self._check(x, context)
            alpha = self.activations(x, context)
        absorbed = self._buffers.get("absorbed_shift")
        if absorbed is not None:
            shift = absorbed if shift is None else absorbed + shift
        weight, formulation = self.generator_weight, self.formulation
        if torch.is_grad_enabled() or not _is_ordinary(x):
            return apply_generated(x, alpha, weight, self.shape, formulation, shift)
        # Small layers are bound by Python, which decides nothing in the next pass.
        kept = self._prepared.get(x.shape)
        if kept is None or not kept.fits(x, alpha, weight, formulation, shift):
            kept = prepared(x, alpha, weight, self.shape, formulation, shift)
            if len(self._prepared) >= MAX_SIZES or x.shape in self._prepared:
                # Other weights, of which those of other sizes know nothing either.
                self._prepared.clear()
            self._prepared[x.shape] = kept
        return kept.run(x, alpha)

    def absorb(self, scale: Tensor, shift: Tensor) -> bool:
        """As every kernel is linear in the generator's weight, filter by filter, that takes the scale."""
        with torch.no_grad():
            self.generator_weight.mul_(scale.repeat_interleave(self.fan_in).unsqueeze(1))
            self._absorb(scale, shift)
        return True

    def settle_for_inference(self) -> None:
        """Store the weights as inference on a CPU reads them; the layer can't be trained, nor saved, then."""

    def formulation_of(self, x: Tensor) -> str:
        """The formulation that runs for images `x` (N, C_in, H, W) in the current mode."""
        if self.formulation != "auto":
            return self.formulation
        return choose_formulation(x, self.generator_weight, self.shape)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, context_features={self.context_features}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": {}}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # Otherwise they would keep the memory of weights that are moved.
        self._prepared.clear()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _set_generator(self, groups: int, inputs_per_group: int, formulation: str) -> None:
        """Set the generator: P groups of lambda inputs."""
        self.shape = LayerShape(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            groups,
            inputs_per_group,
        )
        if formulation not in ("auto", *FORMULATIONS):
            raise unknown("formulation", formulation, ("auto", *FORMULATIONS))
        self.formulation = check_formulation(formulation, self.shape)

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        if torch.compiler.is_compiling():
            return
        self._check_images(x)
        if self.context_features is None:
            if context is not None:
                raise InputError(
                    "a context was given to a layer that computes its own (context_features=None)"
                )
        elif context is None:
            raise InputError(f"context is missing: expected shape (N, {self.context_features})")
        elif context.shape != (x.shape[0], self.context_features):
            expected = (x.shape[0], self.context_features)
            raise InputError(f"context has shape {tuple(context.shape)}: expected {expected}")


MAX_SIZES = 8
"""Image sizes for which a layer remembers how it runs."""


def _is_ordinary(x: Tensor) -> bool:
    """Whether operators on `x` simply run: nothing records, traces or casts them."""
    return (
        type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._get_tracing_state() is None
        and not is_cast(x.device.type)
    )


def generated_layers(model: nn.Module, wanted: str | None = None) -> dict[str, GeneratedConv2d]:
    """The layers of `model` with generated kernels, by their dotted names.

    Raises `InputError` if it has none, or none called `wanted`.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, GeneratedConv2d)}
    if not layers:
        *others, last = (name for name, method in METHODS.items() if method.kind == "generated")
        raise InputError(
            "no layer of this network has generated kernels, made of activation vectors: expected"
            f" {', '.join(others)} or {last}"
        )
    if wanted is not None and wanted not in layers:
        nearest = get_close_matches(wanted, layers, n=3, cutoff=0)
        raise InputError(f"unknown layer '{wanted}': the nearest names are {', '.join(nearest)}")
    return layers


@contextmanager
def formulation_set(model: nn.Module, formulation: str) -> Iterator[None]:
    """All layers of `model` with generated kernels in `formulation`, until the context ends.

    Raises `InputError` if one of them can't run in it.
    """
    layers = [module for module in model.modules() if isinstance(module, GeneratedConv2d)]
    before = [layer.formulation for layer in layers]
    for layer in layers:
        check_formulation(formulation, layer.shape)
    try:
        for layer in layers:
            layer.formulation = formulation
        yield
    finally:
        for layer, formulation in zip(layers, before, strict=True):
            layer.formulation = formulation


def at_least(least: int, name: str, value: int) -> int:
    """`value`, if it is a whole number of at least `least`; `InputError` naming `name` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is '{value}': expected a whole number of at least {least}")
    return value


def positive(name: str, value: float) -> float:
    """`value`, if it is a finite number above 0; `InputError` naming `name` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} is '{value}': expected a number above 0")
    return value


def size_pair(name: str, size: Size2d, least: int = 1) -> tuple[int, int]:
    if not isinstance(size, int) and (not isinstance(size, tuple) or len(size) != 2):
        raise InputError(f"{name} is '{size}': expected a whole number or (height, width)")
    high, wide = pair(size)
    return at_least(least, name, high), at_least(least, name, wide)
