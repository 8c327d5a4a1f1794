"""Parameters and FLOPs of a network, counted by fvcore on the published formulation."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # fvcore decorates a function at import in a way that torch has come to warn about.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

from wnexplore.nn import formulation_set

MULTIPLY_ADD_OPERATORS = frozenset(
    {"conv", "linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "einsum", "attention"}
)
"""What the `flops` column counts: convolutions, linear layers, matrix products, by fvcore's names.

"attention" stands for the two products of a fused attention, for which fvcore has no rule.
"""


@dataclass(frozen=True)
class Complexity:
    """The counts of one network for one image of its resolution."""

    params: int
    flops: int
    """Multiply-adds of convolutions, linear layers and matrix products."""
    fvcore_flops: int
    """fvcore's own total: the same and batch normalisation, by its conventions."""
    operators: dict[str, int] = field(default_factory=dict)
    """Operator -> its share of `fvcore_flops`."""
    uncounted: dict[str, int] = field(default_factory=dict)
    """Operator that fvcore has no rule for -> how often it runs; elementwise and pooling work."""

    def to_dict(self) -> dict[str, Any]:
        """The counts as a record's value."""
        return asdict(self)


def measure_complexity(model: nn.Module, resolution: int, batch_size: int = 1) -> Complexity:
    """Count `model` on images of shape (batch_size, 3, resolution, resolution).

    The counts are those of one image: the same for every `batch_size`. The model is left as it was.
    Raises `RuntimeError` as torch does if the model can't run on such images.
    """
    per_operator, uncounted = _analyse(model, resolution, batch_size)
    total = per_operator[""]
    flops = sum(n for operator, n in total.items() if operator in MULTIPLY_ADD_OPERATORS)
    return Complexity(
        params=sum(p.numel() for p in model.parameters()),
        flops=flops,
        fvcore_flops=sum(total.values()),
        operators=dict(total),
        uncounted=uncounted,
    )


def layer_flops(model: nn.Module, resolution: int) -> dict[str, int]:
    """Multiply-adds of one image in every submodule, by dotted name; those inside it included."""
    per_operator, _ = _analyse(model, resolution, 1)
    return {
        name: sum(n for operator, n in counts.items() if operator in MULTIPLY_ADD_OPERATORS)
        for name, counts in per_operator.items()
    }


def _analyse(
    model: nn.Module, resolution: int, batch_size: int
) -> tuple[dict[str, Counter[str]], dict[str, int]]:
    """Counts of one image, module -> operator -> number, and what fvcore could not count."""
    images = _images_like(model, resolution, batch_size)
    was_training = model.training
    model.eval()
    try:
        # What a design costs on paper never depends on the formulation that runs; in the published one
        # every multiply-add is in an operator that fvcore counts.
        with torch.no_grad(), warnings.catch_warnings(), formulation_set(model, "published"):
            # Tracing is how fvcore works; its notices of deprecation are not about the model.
            warnings.simplefilter("ignore")
            analysis = FlopCountAnalysis(model, images)
            analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            analysis.tracer_warnings("none")
            batch = analysis.by_module_and_operator()
            uncounted = analysis.unsupported_ops()
    finally:
        model.train(was_training)
    one = {
        module: Counter({operator: _per_image(n, batch_size) for operator, n in counts.items()})
        for module, counts in batch.items()
    }
    return one, {operator.removeprefix("aten::"): n for operator, n in sorted(uncounted.items())}


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Queries (..., L, E), keys (..., S, E), values (..., S, V): L·S·(E + V) multiply-adds."""
    queries, keys, values = (get_shape(each) for each in inputs[:3])
    *batch, length, size = queries
    return Counter(attention=math.prod(batch) * length * keys[-2] * (size + values[-1]))


def _per_image(count: float, batch_size: int) -> int:
    whole, rest = divmod(int(count), batch_size)
    if rest:
        raise ValueError(f"{count} operations don't divide over a batch of {batch_size}")
    return whole


def _images_like(model: nn.Module, resolution: int, batch_size: int) -> torch.Tensor:
    weight = next(model.parameters())
    return torch.zeros(batch_size, 3, resolution, resolution, device=weight.device, dtype=weight.dtype)
