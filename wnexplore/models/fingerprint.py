"""A fingerprint that two networks share if they run the same code on the same shapes."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Hashable, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> Hashable | None:
    """Classes, code, settings and shapes of a network, without the values of tensors.

    None if some state can't be inspected. Classes and code are those of one import of their file and change
    with it. State outside the network, such as a global variable, is not part of it.
    """
    try:
        return _of(model, {})
    except (_OpaqueError, RecursionError):
        return None


class _OpaqueError(Exception):
    """Some state can't be inspected."""


_AS_THEY_ARE = (
    *(bool, int, float, complex, str, bytes, range, slice, type(None), type(Ellipsis), type, enum.Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, types.BuiltinFunctionType),
    *(types.ModuleType, types.CodeType, np.generic),
)


def _of(value: Any, known: dict[int, int]) -> Hashable:
    """`known` numbers the objects met before: there may be cycles, and shared differs from equal."""
    if isinstance(value, _AS_THEY_ARE):
        # 1, 1.0 and True compare equal, and NaN is unequal to itself.
        return type(value), repr(value) if isinstance(value, float | complex | slice) else value
    if id(value) in known:
        return "again", known[id(value)]
    known[id(value)] = len(known)
    parts = functools.partial(_parts, known=known)
    if isinstance(value, Tensor):
        has_hooks = bool(value._backward_hooks)
        numbers = tuple(value.shape) if not torch.nn.parameter.is_lazy(value) else None
        return type(value), numbers, value.dtype, value.device, value.requires_grad, value.is_leaf, has_hooks
    if isinstance(value, np.ndarray):
        return type(value), value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__code__, parts(value.__defaults__ or ()), parts(cells), _of(value.__dict__, known)
    if isinstance(value, types.MethodType):
        return _of(value.__func__, known), _of(value.__self__, known)
    if isinstance(value, functools.partial):
        return type(value), _of(value.func, known), parts(value.args), _of(value.keywords, known)
    if isinstance(value, Mapping):
        return type(value), parts(value.keys()), parts(value.values())
    if isinstance(value, list | tuple):
        return type(value), parts(value)
    if isinstance(value, Set):
        return type(value), frozenset(parts(value))
    if isinstance(value, nn.Module):
        # Hooks are keyed by numbers that differ each time.
        held = (
            (name, parts(attribute.values()) if "_hooks" in name and attribute else _of(attribute, known))
            for name, attribute in vars(value).items()
        )
        return type(value), tuple(held)
    if type(value).__module__ != "builtins" and hasattr(value, "__dict__"):
        return type(value), _of(vars(value), known)
    raise _OpaqueError


def _parts(values: Any, known: dict[int, int]) -> tuple[Hashable, ...]:
    return tuple(_of(item, known) for item in values)
