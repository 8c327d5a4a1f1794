"""Copies of a network to run trials on: with its values, or on the meta device."""

from __future__ import annotations

import copy
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves


class CopyError(RuntimeError):
    """A network can't be copied: why, in one line."""


def without_numbers(model: nn.Module) -> nn.Module:
    """A copy on the meta device; the weights are never copied. Raises `CopyError`."""
    known = _computed(model, lambda tensor: torch.empty_like(tensor, device="meta"))
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        known[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return _copied(model, known)


def with_numbers(model: nn.Module) -> nn.Module:
    """A copy with the tensor values of `model`. Raises `CopyError`.

    Unlike `copy.deepcopy` it accepts a network that holds tensors computed from others, and functions on a
    layer (hooks, a forward of its own) that refer to the network refer to the copy. What can't be copied,
    such as a lock or an open file, is shared.
    """
    return _copied(model, _computed(model, torch.clone))


def images_like(model: nn.Module) -> Tensor:
    """A tensor with the device and dtype of images for `model`: those of most of its parameters' elements."""
    known = [tensor for tensor in model.parameters() if tensor.is_floating_point() and not is_lazy(tensor)]
    elements = Counter[torch.dtype]()
    for tensor in known:
        elements[tensor.dtype] += tensor.numel()
    return max(known, key=lambda tensor: elements[tensor.dtype], default=torch.empty(0))


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


def _copied(model: nn.Module, known: dict[int, object]) -> nn.Module:
    try:
        memo = dict(known)
        made: nn.Module = copy.deepcopy(model, memo)
    except Exception:  # anybody's objects: they may raise anything
        memo = known | _uncopyable([list(vars(module).values()) for module in model.modules()], known)
        try:
            made = copy.deepcopy(model, memo)
        except Exception as error:
            text = " ".join(str(error).split())
            raise CopyError(f"{type(error).__name__}: {text}" if text else type(error).__name__) from error
    rebind = _Rebinding(memo)
    for module in made.modules():
        for name, value in vars(module).items():
            module.__dict__[name] = rebind(value)
    return made


def _uncopyable(value: Any, known: Mapping[int, object]) -> dict[int, object]:
    """The parts of `value` that can't be copied, as a memo for `copy.deepcopy` by which they are shared."""
    if isinstance(value, nn.Module | Tensor) or _can_be_copied(value, known):
        return {}
    parts: Iterable[Any] = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple | Set):
        parts = value
    elif hasattr(value, "__dict__"):
        parts = vars(value).values()
    found: dict[int, object] = {}
    for part in parts:
        found |= _uncopyable(part, known)
    # Share only the part at fault, if there is one.
    return found if found and _can_be_copied(value, {**known, **found}) else {id(value): value}


def _can_be_copied(value: object, known: Mapping[int, object]) -> bool:
    try:
        copy.deepcopy(value, dict(known))
    except Exception:
        return False
    return True


class _Rebinding:
    """Rebinds functions that hold parts of a network to those of its copy; `copy.deepcopy` doesn't.

    `memo` is that of the deep copy: id of a part -> its copy. Lists and dictionaries of the copy are changed
    in place.
    """

    def __init__(self, memo: Mapping[int, object]) -> None:
        self._memo = memo
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if id(value) in self._done:
            return self._done[id(value)]
        if isinstance(value, FunctionType):
            return self._function(value) if self._holds_parts(value, set()) else value
        if isinstance(value, MethodType):
            instance = self._part(value.__self__)
            return value if instance is value.__self__ else MethodType(value.__func__, instance)
        if isinstance(value, partial) and self._holds_parts(value, set()):
            named = {name: self._part(argument) for name, argument in value.keywords.items()}
            return partial(self(value.func), *map(self._part, value.args), **named)
        if type(value) is tuple:
            parts = tuple(map(self, value))
            return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
        if isinstance(value, dict | list) and value:
            self._done[id(value)] = value
            for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                new = self(item)
                if new is not item:
                    value[key] = new
        return value

    def _part(self, value: Any) -> Any:
        return self._memo[id(value)] if id(value) in self._memo else self(value)

    def _holds_parts(self, value: Any, seen: set[int]) -> bool:
        if id(value) in self._memo or id(value) in seen:
            return id(value) in self._memo
        seen.add(id(value))
        held: list[Any] = []
        if isinstance(value, FunctionType):
            held = [*_cells(value), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        elif isinstance(value, MethodType):
            held = [value.__self__]
        elif isinstance(value, partial):
            held = [value.func, *value.args, *value.keywords.values()]
        return any(self._holds_parts(item, seen) for item in held)

    def _function(self, function: FunctionType) -> FunctionType:
        closure = function.__closure__ or ()
        cells = tuple(CellType() for _ in closure)
        made = FunctionType(function.__code__, function.__globals__, function.__name__, closure=cells or None)
        # A recursive function holds itself.
        self._done[id(function)] = made
        made.__dict__.update(function.__dict__)
        made.__qualname__, made.__module__ = function.__qualname__, function.__module__
        made.__defaults__ = tuple(map(self._part, function.__defaults__ or ())) or None
        defaults = function.__kwdefaults__ or {}
        made.__kwdefaults__ = {key: self._part(default) for key, default in defaults.items()}
        for cell, before in zip(cells, closure, strict=True):
            # A cell is empty while its name has no value.
            with suppress(ValueError):
                cell.cell_contents = self._part(before.cell_contents)
        return made


def _cells(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            yield cell.cell_contents
