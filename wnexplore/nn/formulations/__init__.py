"""The formulations: several ways to compute one function of images, activation vectors and weights.

For a layer of `LayerShape`, each maps x (N, C_in, H, W), alpha (N, P·lambda) and weight (C_out·F, lambda)
to (N, C_out, H_out, W_out): generate a kernel for each image, convolve the image with it. They differ only in
time and memory. `why_not` says which are legal for a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from wnexplore.design.methods import FORMULATIONS
from wnexplore.errors import InputError
from wnexplore.nn.formulations.choose import choose, choose_compiled
from wnexplore.nn.formulations.feature_space import shared
from wnexplore.nn.formulations.fused import MAX_TERMS, MIN_SLICE, fused_conv1x1, fuses, is_available
from wnexplore.nn.formulations.generate import generate_kernels as generate_kernels
from wnexplore.nn.formulations.generate import stored_by_input as stored_by_input
from wnexplore.nn.formulations.kernel_space import kernel, needs_gradient
from wnexplore.nn.formulations.layer_shape import Formulation
from wnexplore.nn.formulations.layer_shape import LayerShape as LayerShape
from wnexplore.nn.formulations.published import published
from wnexplore.nn.formulations.single_image import Prepare, Run, runs_single, single
from wnexplore.nn.formulations.whole_batch import whole_batch
from wnexplore.nn.precision import is_cast


def _fused(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None = None
) -> Tensor:
    down, across = layer.stride
    seen = x if layer.stride == (1, 1) else x[:, :, ::down, ::across]
    y = fused_conv1x1(seen, alpha, weight, layer.generator_groups)
    return y if shift is None else y + shift.view(-1, 1, 1)


_FUNCTIONS: dict[str, Formulation] = {
    "published": published,
    "kernel": kernel,
    "shared": shared,
    "fused": _fused,
}


def apply_generated(
    x: Tensor,
    alpha: Tensor,
    weight: Tensor,
    layer: LayerShape,
    formulation: str = "auto",
    shift: Tensor | None = None,
) -> Tensor:
    """The output of `layer` in `formulation`; "auto": in the one that `choose_formulation` names.

    `shift` (C_out,) is added to the output. Under autocast, all tensors are cast as by a convolution. Raises
    `InputError` for tensors of the wrong shape.
    """
    device = x.device.type
    if is_cast(device):
        dtype = torch.get_autocast_dtype(device)
        x, alpha, weight = x.to(dtype), alpha.to(dtype), weight.to(dtype)
        shift = None if shift is None else shift.to(dtype)
    if torch.compiler.is_compiling():
        name = choose_compiled(layer) if formulation == "auto" else formulation
        return _FUNCTIONS[name](x, alpha, weight, layer, shift)
    training = torch.is_grad_enabled() and (x.requires_grad or alpha.requires_grad or weight.requires_grad)
    contiguous = x.is_contiguous()
    if training and not contiguous:
        # For a view, such as half of the channels, backward would keep the full tensor alive.
        x = x.contiguous(memory_format=torch.channels_last if x.stride(1) == 1 else torch.contiguous_format)
    prepare = _plan(layer, formulation, x.shape, alpha.shape, training, device, x.dtype, contiguous)
    return prepare(weight, shift)(x, alpha)


@dataclass(frozen=True, slots=True)
class Prepared:
    """How a layer with these weights runs images of one size where nothing needs a gradient."""

    run: Run
    vectors: torch.Size
    dtype: torch.dtype
    contiguous: bool
    formulation: str
    weight: Tensor
    address: int
    shift: Tensor | None

    def fits(self, x: Tensor, alpha: Tensor, weight: Tensor, formulation: str, shift: Tensor | None) -> bool:
        """Whether it is for these, `x` being of its size."""
        return (
            # In the same memory: a parameter may get other data, and a layer return a new view each time.
            weight.data_ptr() == self.address
            and (weight is self.weight or _is_laid_as(weight, self.weight))
            and shift is self.shift
            and formulation is self.formulation
            and alpha.shape == self.vectors
            and x.dtype is self.dtype
            and x.is_contiguous() is self.contiguous
        )


def prepared(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, formulation: str, shift: Tensor | None
) -> Prepared:
    """As `apply_generated`, for many passes over images as `x`, without gradients and autocast.

    Raises `InputError` as that does.
    """
    contiguous = x.is_contiguous()
    prepare = _plan(layer, formulation, x.shape, alpha.shape, False, x.device.type, x.dtype, contiguous)
    run, address = prepare(weight, shift), weight.data_ptr()
    return Prepared(run, alpha.shape, x.dtype, contiguous, formulation, weight, address, shift)


def _is_laid_as(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.stride() == other.stride() and one.dtype is other.dtype


def choose_formulation(x: Tensor, weight: Tensor, layer: LayerShape) -> str:
    """The name of the formulation that "auto" runs for images `x` (N, C_in, H, W)."""
    if torch.compiler.is_compiling():
        return choose_compiled(layer)
    batch, _, height, width = x.shape
    return choose(layer, batch, height, width, needs_gradient(x, weight), x.device.type, x.dtype)


def why_not(formulation: str, layer: LayerShape) -> str | None:
    """Why `layer` can't run in `formulation`; None if it can."""
    if formulation == "shared" and layer.slices is None:
        return "a group of the generator covers no whole input channels of a filter"
    if formulation == "fused":
        return _why_not_fused(layer)
    return None


def _why_not_fused(layer: LayerShape) -> str | None:
    if not layer.pointwise:
        return "it is for 1x1 convolutions without padding and groups"
    if not fuses(layer):
        return (
            f"it is for lambda of at most {MAX_TERMS} and slices of at least {MIN_SLICE} input channels:"
            " beyond, registers spill"
        )
    if not is_available():
        return (
            "it needs Triton with a C compiler and Python's headers, and a CUDA GPU of compute capability 8.0"
        )
    return None


def check_formulation(formulation: str, layer: LayerShape) -> str:
    """`formulation`; raises `InputError` if `layer` can't run in it."""
    if formulation != "auto" and (reason := why_not(formulation, layer)) is not None:
        raise InputError(f"formulation '{formulation}' is not for this layer: {reason}")
    return formulation


def legal_formulations(layer: LayerShape) -> tuple[str, ...]:
    """Every formulation that `layer` can run in, "auto" left out."""
    return tuple(name for name in FORMULATIONS if why_not(name, layer) is None)


@lru_cache(maxsize=2**14)
def _plan(
    layer: LayerShape,
    formulation: str,
    x: torch.Size,
    alpha: torch.Size,
    training: bool,
    device: str,
    dtype: torch.dtype,
    contiguous: bool,
) -> Prepare:
    """What to run for tensors of these shapes, decided once."""
    if len(x) != 4 or x[1] != layer.in_channels:
        raise InputError(f"x has shape {tuple(x)}: expected (N, {layer.in_channels}, H, W)")
    if alpha != (vectors := (x[0], layer.generator_groups * layer.inputs_per_group)):
        raise InputError(f"alpha has shape {tuple(alpha)}: expected {vectors}")
    batch, _, height, width = x
    name = (
        choose(layer, batch, height, width, training, device, dtype) if formulation == "auto" else formulation
    )
    if name == "kernel" and batch == 1 and contiguous and not training and runs_single(layer, device):
        return single(layer, height, width, device, dtype)
    function = _FUNCTIONS[name]
    planned = None if training or device != "cpu" else whole_batch(name, layer, x, dtype.itemsize)
    if planned is None:
        return lambda weight, shift: lambda x, alpha: function(x, alpha, weight, layer, shift)
    return planned if contiguous else _unless_last(planned, function, layer)


def _unless_last(planned: Prepare, function: Formulation, layer: LayerShape) -> Prepare:
    """`planned` for some of a batch's channels, `function` for channels_last, which the output keeps."""

    def prepare(weight: Tensor, shift: Tensor | None) -> Run:
        run = planned(weight, shift)
        return lambda x, alpha: (
            function(x, alpha, weight, layer, shift) if x.stride(1) == 1 else run(x, alpha)
        )

    return prepare
