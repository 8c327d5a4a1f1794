"""Copies of a network to run trials on: with its values, or on the meta device."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def without_numbers(model: nn.Module) -> nn.Module:
    """A copy on the meta device; the weights are never copied."""
    known = _computed(model, lambda tensor: torch.empty_like(tensor, device="meta"))
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        known[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    made: nn.Module = copy.deepcopy(model, known)
    return made


def with_numbers(model: nn.Module) -> nn.Module:
    """A deep copy, also of a network that holds tensors computed from others."""
    made: nn.Module = copy.deepcopy(model, _computed(model, torch.clone))
    return made


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode inside, and in its previous mode afterwards."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def uncompiled() -> AbstractContextManager[object]:
    """Disable a network's own use of torch.compile: compiled, its operators can't be observed."""
    # Imported by anyone who has compiled something; the import takes a second.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def as_written(model: nn.Module) -> nn.Module:
    """The network without `torch.compile` around it or parts of it, in place.

    The runtime of a measurement decides whether the network is compiled. A compiled part has other names, and
    its operators can't be observed.
    """
    for module in list(model.modules()):
        if module._compiled_call_impl is not None:
            module._compiled_call_impl = None
        for name, child in module._modules.items():
            if child is not None and _is_compiled(child):
                setattr(module, name, as_written(child))
    return as_written(model.get_submodule("_orig_mod")) if _is_compiled(model) else model


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__module__ == "torch._dynamo.eval_frame" and "_orig_mod" in module._modules


def _computed(model: nn.Module, change: Callable[[Tensor], Tensor]) -> dict[int, object]:
    """Tensors that `copy.deepcopy` refuses, such as the weights of the old `weight_norm` -> their copies."""
    return {
        id(tensor): change(tensor.detach())
        for module in model.modules()
        for tensor in tree_leaves(list(vars(module).values()))
        if isinstance(tensor, Tensor) and not tensor.is_leaf
    }
