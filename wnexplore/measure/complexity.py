"""Parameters and FLOPs of a network, counted on the published formulation."""

from __future__ import annotations

import warnings
from collections import Counter
from math import prod
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # fvcore's import uses a decorator that newer torch warns about.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

from wnexplore.measure.failure import Failure, is_context_lost
from wnexplore.models.conv_calls import one_pass
from wnexplore.models.copies import images_like
from wnexplore.models.detector_parts import has_parts, part_counts
from wnexplore.models.multiply_adds import Products
from wnexplore.nn import formulation_set
from wnexplore.results.network_profile import Complexity


def measure_complexity(model: nn.Module, resolution: int, batch_size: int = 1) -> Complexity:
    """Count `model` on images of shape (batch_size, 3, resolution, resolution).

    The counts are per image, and equal for every `batch_size`. The model is unchanged.
    Raises `RuntimeError` as torch does if the model can't run on such images.
    """
    products = count_products(model, resolution, batch_size)
    operators, unknown = _by_fvcore(model, resolution, batch_size)
    params, flops = sum(p.numel() for p in model.parameters()), _per_image(products.total, batch_size)
    return Complexity(
        params=params,
        flops=flops,
        fvcore_flops=None if operators is None else sum(operators.values()),
        operators=dict(operators or {}),
        uncounted=dict(sorted({**unknown, **products.uncounted}.items())),
        uncounted_products=dict(sorted(products.uncounted.items())),
        parts=_parts(model, products, params, flops, batch_size),
    )


def count_products(model: nn.Module, resolution: int, batch_size: int = 1) -> Products:
    """The matrix products of one forward pass of a batch. Raises as `measure_complexity` does."""
    # FLOPs never depend on the formulation that runs: the published one has no extra multiply-adds.
    with formulation_set(model, "published"):
        seen = one_pass(model, resolution, counted=True, batch_size=batch_size, channels=(3,))
    return seen.products


def _parts(
    model: nn.Module, products: Products, params: int, flops: int, batch_size: int
) -> dict[str, dict[str, int]]:
    """The counts of a detector's parts; {} for another network."""
    if not has_parts(model):
        return {}
    found = part_counts(model, products, batch_size)
    backbone = params - sum(part.params for part in found), flops - sum(part.flops for part in found)
    counts = {"backbone": backbone, **{part.name: (part.params, part.flops) for part in found}}
    return {name: {"params": of[0], "flops": of[1]} for name, of in counts.items()}


def _by_fvcore(
    model: nn.Module, resolution: int, batch_size: int
) -> tuple[Counter[str] | None, dict[str, int]]:
    """fvcore's counts per image by operator, None if it fails, and the operators that it doesn't count."""
    images = _images_like(model, resolution, batch_size)
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        # With gradients enabled, so that attention is not one operator.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), warnings.catch_warnings(), formulation_set(model, "published"):
            # fvcore works by tracing; the deprecation warnings are not about the model.
            warnings.simplefilter("ignore")
            analysis = FlopCountAnalysis(model, images)
            analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            analysis.tracer_warnings("none")
            batch = analysis.by_operator()
            unknown = analysis.unsupported_ops()
    # Its rules have gaps, such as a matrix times a vector, and it may fail on some networks.
    except Exception as error:
        if Failure.of(error).status == "out_of_memory" or is_context_lost(error):
            raise
        return None, {}
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in was_training.items():
            module.training = training
    names = {operator.removeprefix("aten::"): calls for operator, calls in unknown.items()}
    one = Counter({operator: _per_image(int(count), batch_size) for operator, count in batch.items()})
    return one, {name: calls for name, calls in names.items() if name not in _COUNTED}


_COUNTED = frozenset(
    {
        *("baddbmm", "addbmm", "mv", "dot", "vdot", "addmv", "inner", "tensordot", "bilinear", "cdist"),
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
        *("conv_tbc", "affine_grid_generator", "linalg_multi_dot", "chain_matmul", "matrix_power"),
        *("linalg_matrix_power", "linalg_vecdot", "torchvision::deform_conv2d", "_trilinear"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
    }
)
"""Operators without a rule in fvcore that `flops` counts."""


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Queries (..., L, E), keys (..., S, E), values (..., S, V): L·S·(E + V) multiply-adds."""
    queries, keys, values = (get_shape(tensor) for tensor in inputs[:3])
    *batch, length, size = queries
    return Counter(attention=prod(batch) * length * keys[-2] * (size + values[-1]))


def _per_image(count: int, batch_size: int) -> int:
    quotient, rest = divmod(count, batch_size)
    if rest:
        raise ValueError(f"{count} operations don't divide over a batch of {batch_size}")
    return quotient


def _images_like(model: nn.Module, resolution: int, batch_size: int) -> torch.Tensor:
    like = images_like(model)
    return torch.zeros(batch_size, 3, resolution, resolution, device=like.device, dtype=like.dtype)
