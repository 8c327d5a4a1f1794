"""The optimiser of a recipe: its parameter groups and learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from wnexplore.design.protocol import LrSchedule, Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of `recipe` over `parameter_groups`."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group `factor` times its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def lr_factor(step: int, steps: int, warmup: int, schedule: LrSchedule = "cosine") -> float:
    """The factor of the learning rate in step 0, 1, ..., steps - 1.

    It rises linearly to 1 over `warmup` steps, then falls to 0, linearly or along half a cosine
    (Loshchilov and Hutter, ICLR 2017, without restarts).
    """
    if step < warmup:
        return (step + 1) / warmup
    passed = (step - warmup) / (steps - warmup)
    return 1 - passed if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * passed))


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters of `model` for an optimiser: kernels, other matrices, and biases and norms.

    Kernels and the generators' weights have a peak learning rate `recipe.kernel_lr` times that of the rest;
    biases and norms (one dimension) have no weight decay.
    """
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    groups: dict[str, list[nn.Parameter]] = {"kernels": [], "matrices": [], "vectors": []}
    for parameter in model.parameters():
        # The size of a lazy parameter isn't known before the first forward pass.
        if parameter.requires_grad and not is_lazy(parameter):
            kind = "matrices" if id(parameter) in linear else "kernels"
            groups["vectors" if parameter.ndim <= 1 else kind].append(parameter)
    factor = {"kernels": recipe.kernel_lr}
    return [
        {
            "params": parameters,
            "peak_lr": recipe.lr * factor.get(kind, 1.0),
            "weight_decay": 0.0 if kind == "vectors" else recipe.weight_decay,
        }
        for kind, parameters in groups.items()
    ]
