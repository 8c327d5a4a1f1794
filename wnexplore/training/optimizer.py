"""The optimiser of a recipe: its parameter groups, learning rates and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wnexplore.design.protocol import LrSchedule, Recipe
from wnexplore.errors import shown
from wnexplore.models.detector_parts import PARTS, has_parts
from wnexplore.nn import Gate, MethodConv2d


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of `recipe` over `parameter_groups`, frozen parameters too: they may be unfrozen later.

    It leaves parameters without a gradient alone.
    """
    frozen = [group for group in parameter_groups(model, recipe, frozen=True) if group["params"]]
    groups = [*parameter_groups(model, recipe), *frozen]
    fused = not any(parameter.is_complex() for group in groups for parameter in group["params"])
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)
    optimizer = torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=fused,
    )
    optimizer.register_step_pre_hook(_begin_late_momenta)
    return optimizer


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the `state` of an optimiser with the same parameters and recipe.

    That of an older version may lack the groups of frozen parameters, which come last.

    Raises `ValueError` for what no such optimiser has. torch itself takes any shapes, and its fused kernels
    then write beyond a tensor's memory.
    """
    groups, given = optimizer.state_dict()["param_groups"], state["param_groups"]
    if isinstance(given, list):
        lacking = optimizer.param_groups[len(given) :]
        if not any(parameter.requires_grad for group in lacking for parameter in group["params"]):
            given = [*given, *groups[len(given) :]]
    if not isinstance(given, list) or len(given) != len(groups):
        raise ValueError(f"the optimiser has not {len(groups)} groups of parameters")
    for current, other in zip(groups, given, strict=True):
        # Other versions of torch have other options; common ones must be equal.
        for name in current.keys() & other.keys() - {"lr"}:
            if type(current[name]) is not type(other[name]) or current[name] != other[name]:
                raise ValueError(f"{name} of the optimiser differs")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted = {"step", "exp_avg", "exp_avg_sq"}
    if isinstance(optimizer, torch.optim.SGD):
        wanted = {"momentum_buffer"} if groups[0]["momentum"] else set()
    for number, figures in state["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise ValueError(f"the optimiser has no parameter {shown(number)}")
        if not isinstance(figures, dict) or figures.keys() != wanted:
            raise ValueError(f"the optimiser's figures of parameter {number} are others")
        for name, value in figures.items():
            shape = torch.Size() if name == "step" else parameters[number].shape
            if not _is_figure(value, shape):
                raise ValueError(f"{name} of the optimiser's parameter {number} doesn't suit it")
    optimizer.load_state_dict({**state, "param_groups": given})


def _is_figure(value: Any, shape: torch.Size) -> bool:
    """Whether `value` is a tensor of numbers that aren't whole, of `shape`, without overlapping elements."""
    if not isinstance(value, Tensor) or value.shape != shape:
        return False
    if not (value.is_floating_point() or value.is_complex()):
        return False
    return value.stride() == torch.empty_like(value).stride()


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group `factor` times its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def lr_factor(
    step: int, steps: int, warmup: int, schedule: LrSchedule = "cosine", milestones: Sequence[int] = ()
) -> float:
    """The factor of the learning rate in step 0, 1, ..., steps - 1.

    It rises linearly to 1 over `warmup` steps, then falls to 0, linearly or along half a cosine
    (Loshchilov and Hutter, ICLR 2017, without restarts), or to a tenth at each of the steps `milestones`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "step":
        return float(0.1 ** sum(step >= milestone for milestone in milestones))
    passed = (step - warmup) / (steps - warmup)
    return 1 - passed if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * passed))


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale all gradients down so that their norm together is at most `max_norm`, in place.

    The gradient of a generator's weight counts as that of the kernels which it makes, if the learning rates
    make up for how these are made.
    """
    gradients: dict[float, list[Tensor]] = {}
    for group in optimizer.param_groups:
        of_group = (parameter.grad for parameter in group["params"])
        # States of older versions have no scale.
        scale = group.get("gradient_scale", 1.0)
        gradients.setdefault(scale, []).extend(one for one in of_group if one is not None)
    norms = [scale * nn.utils.get_total_norm(ones) for scale, ones in gradients.items() if ones]
    if norms:
        total = torch.linalg.vector_norm(torch.stack(norms))
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grads_with_norm_(parameters, max_norm, total)


def parameter_groups(model: nn.Module, recipe: Recipe, *, frozen: bool = False) -> list[dict[str, Any]]:
    """The parameters of `model` for an optimiser: kernels, other matrices, and biases and norms.

    The trainable ones, or the `frozen` ones.

    Kernels and the generators' weights have a peak learning rate `recipe.kernel_lr` times that of the rest;
    biases and norms (one dimension) have no weight decay. With `recipe.lr_parity` the rate of a generator's
    weight is further multiplied by a factor f after which its kernels move as far in a step as ordinary ones
    (see `KernelSum`): f = 1 / (terms·scale²) for SGD, such as 4/lambda for WeightNet with sigmoid, and
    1 / (terms·scale) for AdamW. Its weight decay is divided by f, so that kernels decay alike. A gate's
    convolution that no normalisation follows then counts as a linear layer, as those of a detector's pyramid
    and head always do: the higher rate of kernels is for those whose scale a normalisation takes out.
    """
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    if has_parts(model):
        # No normalisation follows theirs.
        linear |= {id(p) for part in PARTS.values() for p in model.get_submodule(part).parameters()}
    if recipe.lr_parity:
        gates = [module for module in model.modules() if isinstance(module, Gate)]
        linear |= {id(gate.get_parameter(f"{name}.weight")) for gate in gates for name in gate.unnormalised}
    sums = _kernel_sums(model) if recipe.lr_parity else {}
    groups: dict[tuple[str, tuple[int, float]], list[nn.Parameter]] = {
        (kind, _ORDINARY): [] for kind in ("kernels", "matrices", "vectors")
    }
    for parameter in model.parameters():
        # The size of a lazy parameter isn't known before the first forward pass.
        if parameter.requires_grad is not frozen and _can_learn(parameter):
            kind = "matrices" if id(parameter) in linear else "kernels"
            kind = "vectors" if parameter.ndim <= 1 else kind
            groups.setdefault((kind, sums.get(id(parameter), _ORDINARY)), []).append(parameter)
    return [_group(kind, *made, parameters, recipe) for (kind, made), parameters in groups.items()]


_ORDINARY = (1, 1.0)
"""Terms and scale of an ordinary kernel."""


def _group(
    kind: str, terms: int, scale: float, parameters: list[nn.Parameter], recipe: Recipe
) -> dict[str, Any]:
    parity = 1 / (terms * (scale if recipe.optimizer == "adamw" else scale**2))
    return {
        "params": parameters,
        "peak_lr": recipe.lr * (recipe.kernel_lr if kind == "kernels" else 1.0) * parity,
        "weight_decay": 0.0 if kind == "vectors" else recipe.weight_decay / parity,
        # The norm of the kernel's gradient over that of the weight, whose parts have `scale` times it each.
        "gradient_scale": 1 / (math.sqrt(terms) * scale),
    }


def _kernel_sums(model: nn.Module) -> dict[int, tuple[int, float]]:
    """The terms and the scale of each generator's weight in `model`, by its id."""
    layers = (module for module in model.modules() if isinstance(module, MethodConv2d))
    return {id(made.weight): (made.terms, made.scale) for layer in layers for made in layer.kernel_sums()}


def _begin_late_momenta(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Give parameters whose first gradient comes in a later step a momentum of 0.

    torch's fused SGD fails unless the momenta of all parameters begin in one step. A network may skip layers
    at random, or unfreeze some later.
    """
    for group in optimizer.param_groups:
        if not group["momentum"]:
            continue
        updated = [parameter for parameter in group["params"] if parameter.grad is not None]
        late = [one for one in updated if optimizer.state.get(one, {}).get("momentum_buffer") is None]
        if len(late) < len(updated):
            for parameter in late:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _can_learn(parameter: nn.Parameter) -> bool:
    """Whether `parameter` may have a gradient: it has a size, and is no integer."""
    return not is_lazy(parameter) and (parameter.is_floating_point() or parameter.is_complex())
