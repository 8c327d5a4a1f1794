"""What two networks of one function have in common that run the same code on the same shapes."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Hashable, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def likeness(model: nn.Module) -> Hashable | None:
    """What equal networks have equal: classes, code, settings and shapes, without the numbers of tensors.

    None if something of it can't be told from outside. Classes and code are those of one run of their file:
    they are others when it has changed. Code that reads what lies elsewhere, such as a global variable that
    changes, is not seen.
    """
    try:
        return _of(model, {})
    except (_OpaqueError, RecursionError):
        return None


class _OpaqueError(Exception):
    """Something has a state that can't be told."""


_AS_THEY_ARE = (
    *(bool, int, float, complex, str, bytes, range, slice, type(None), type(Ellipsis), type, enum.Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, types.BuiltinFunctionType),
    *(types.ModuleType, types.CodeType, np.generic),
)


def _of(value: Any, known: dict[int, int]) -> Hashable:
    """`known` numbers what was met before: it may hold itself, and shared is not the same as equal."""
    if isinstance(value, _AS_THEY_ARE):
        # 1, 1.0 and True are equal, and numbers that are not a number aren't.
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
        # Hooks are kept by numbers that are new each time.
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
