"""Packs values for files that hold no code: numbers, text, tensors, containers, random generators."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wnexplore.errors import shown


class NotPlainError(TypeError):
    """A value that can't be saved, or restored, without running code of its class."""


def packed(value: Any) -> Any:
    """A copy of `value` in tensors, numbers, text, lists and dictionaries only; the inverse of `unpacked`.

    Objects of user-defined classes are packed by their attributes. Raises `NotPlainError` for anything else:
    a module, a function, a tensor with a grad_fn, an object of a library.
    """
    try:
        return _packed(value)
    except RecursionError:
        raise NotPlainError("a value that contains itself, or is nested too deep") from None


def unpacked(value: Any, like: Any = None) -> Any:
    """The inverse of `packed`.

    A generator or tensor is restored in place into `like` if that has the same kind, so that other references
    see the change. Objects of user-defined classes need such a `like`, which provides the class. Raises
    `NotPlainError` without one, `TypeError` or `ValueError` for anything that `packed` doesn't produce.
    """
    if not isinstance(value, dict):
        return value
    kind, content = value["kind"], value["content"]
    if kind == "tensor":
        return _tensor(content, value["device"], like)
    if kind in _GENERATORS:
        return _generator(kind, content, value.get("device", "cpu"), like)
    if kind == "numpy":
        return content.numpy().reshape(value["shape"]).astype(value["dtype"])
    if kind == "number":
        return np.dtype(value["dtype"]).type(content)
    if kind in ("dict", "ordered"):
        old = like if isinstance(like, Mapping) else {}
        pairs = [(unpacked(key), item) for key, item in content]
        made = {key: unpacked(item, old.get(key)) for key, item in pairs}
        return OrderedDict(made) if kind == "ordered" else made
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind in _OF_A_CLASS:
        return _of_a_class(kind, value["class"], content, like)
    items = _items(content, like)
    return deque(items, value["most"]) if kind == "deque" else _SEQUENCES[kind](items)


def needs_like(value: Any) -> bool:
    """Whether a packed value can only be restored into an existing object."""
    if isinstance(value, dict):
        needed = value.get("kind") in _OF_A_CLASS and "class" in value
        return needed or any(map(needs_like, value.values()))
    return isinstance(value, list | tuple) and any(map(needs_like, value))


def same(one: Any, other: Any) -> bool:
    """Whether two packed values are equal, treating NaN as equal to NaN."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return (
            isinstance(one, Tensor)
            and isinstance(other, Tensor)
            and (one.dtype, one.device, one.shape) == (other.dtype, other.device, other.shape)
            and torch.equal(one, other)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


_MAX_BYTES = 16 * 2**20
"""Largest tensor, in bytes: a larger one is a cached activation, not state."""
_PLAIN = (type(None), bool, int, float, complex, str)
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_OF_A_CLASS = ("enum", "named", "mapping", "object")
_GENERATORS = ("torch.Generator", "random.Random", "numpy.Generator", "numpy.RandomState")


def _packed(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is torch.Size:
        return _packed(tuple(value))
    if kind is Tensor:
        if value.requires_grad or value.is_sparse or value.is_quantized:
            raise NotPlainError("a tensor with a history")
        if value.nbytes > _MAX_BYTES:
            raise NotPlainError("a tensor that is large")
        # Packed for the CPU, whatever its device.
        return {"kind": "tensor", "content": value.detach().clone(), "device": value.device.type}
    if kind in (dict, OrderedDict):
        pairs = [(_packed(key), _packed(item)) for key, item in value.items()]
        return {"kind": "ordered" if kind is OrderedDict else "dict", "content": pairs}
    if kind is deque:
        return {"kind": "deque", "content": [_packed(item) for item in value], "most": value.maxlen}
    for name, sequence in _SEQUENCES.items():
        if kind is sequence:
            return {"kind": name, "content": [_packed(item) for item in value]}
    if kind is bytes:
        return {"kind": "bytes", "content": value.hex()}
    if isinstance(value, np.ndarray | np.generic):
        return _packed_numpy(value)
    if kind in _GENERATOR_CLASSES:
        return _packed_generator(value)
    return _packed_of_a_class(value)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _packed_numpy(value: Any) -> dict[str, Any]:
    if value.dtype.kind not in "biufc":
        raise NotPlainError(f"numpy's {value.dtype}")
    dtype = value.dtype.str
    if isinstance(value, np.generic):
        return {"kind": "number", "content": value.item(), "dtype": dtype}
    try:
        # A writable copy.
        content = torch.from_numpy(np.array(value, order="C").astype(value.dtype.newbyteorder("=")))
    except TypeError:
        raise NotPlainError(f"numpy's {value.dtype}") from None
    # Torch can't send unsigned tensors to another process; signed ones have the same bits.
    content = content.view(_SIGNED.get(content.dtype, content.dtype))
    return {"kind": "numpy", "content": content, "shape": list(value.shape), "dtype": dtype}


def _packed_generator(value: Any) -> dict[str, Any]:
    if type(value) is torch.Generator:
        return {"kind": "torch.Generator", "content": value.get_state(), "device": str(value.device)}
    if type(value) is random.Random:
        return {"kind": "random.Random", "content": _packed(value.getstate())}
    if type(value) is np.random.Generator:
        return {"kind": "numpy.Generator", "content": _packed(value.bit_generator.state)}
    return {"kind": "numpy.RandomState", "content": _packed(value.get_state(legacy=False))}


_GENERATOR_CLASSES = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_under_way: list[int] = []
"""Objects whose attributes are being packed, to detect cycles."""


def _packed_of_a_class(value: Any) -> dict[str, Any]:
    """The state of `value`, an object that is not created on restoring but found in the network."""
    kind = type(value)
    name = _class_name(value)
    if _IS_OF["enum"](value):
        if kind.__members__.get(value.name) is not value:
            raise NotPlainError("several flags at once")
        return {"kind": "enum", "class": name, "content": value.name}
    if _IS_OF["named"](value):
        return {"kind": "named", "class": name, "content": [_packed(item) for item in value]}
    if _IS_OF["mapping"](value):
        pairs = [(_packed(key), _packed(item)) for key, item in value.items()]
        return {"kind": "mapping", "class": name, "content": pairs}
    if not _IS_OF["object"](value):
        raise NotPlainError(f"an object of {name}")
    if id(value) in _under_way:
        raise NotPlainError("an object that contains itself")
    content = {}
    _under_way.append(id(value))
    try:
        for key, item in vars(value).items():
            with suppress(NotPlainError):
                content[key] = _packed(item)
    finally:
        _under_way.pop()
    return {"kind": "object", "class": name, "content": content}


def _of_a_class(kind: str, name: str, content: Any, like: Any) -> Any:
    if _class_name(like) != name or not _IS_OF[kind](like):
        raise NotPlainError(f"no object of the class {shown(name)} to restore it into")
    if kind == "enum":
        return type(like)[content]
    if kind == "named":
        return type(like)(*_items(content, like))
    if kind == "mapping":
        made = {unpacked(key): unpacked(item, like.get(unpacked(key))) for key, item in content}
        like.clear()
        like.update(made)
        return like
    for key, item in content.items():
        with suppress(NotPlainError):
            like.__dict__[key] = unpacked(item, vars(like).get(key))
    return like


def _class_name(value: Any) -> str:
    # Without its module, which for an external backbone's file has another name in each process.
    return type(value).__qualname__


def _is_object(value: Any) -> bool:
    # A library's objects may refer to anything: files, threads, all loggers of the process.
    if isinstance(value, Tensor | nn.Module) or not hasattr(value, "__dict__"):
        return False
    kind: type = type(value)
    return _is_persons(kind)


_IS_OF: dict[str, Callable[[Any], bool]] = {
    "enum": lambda value: isinstance(value, Enum),
    "named": lambda value: isinstance(value, tuple) and hasattr(type(value), "_fields"),
    "mapping": lambda value: isinstance(value, dict),
    "object": _is_object,
}
"""Kinds of user-defined classes -> their tests; the first match counts."""


def _is_persons(kind: type) -> bool:
    """Whether a class belongs neither to Python, nor to an installed package, nor to wnexplore."""
    if kind is SimpleNamespace:
        return True
    top = kind.__module__.partition(".")[0]
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts) if file else top == "builtins"
    return not installed and top != "wnexplore" and top not in sys.stdlib_module_names


def _items(content: Any, like: Any) -> list[Any]:
    """The items of a sequence; objects of user-defined classes are taken from the same index of `like`."""
    old = list(like) if isinstance(like, list | tuple | deque) and len(like) == len(content) else None
    return [
        unpacked(item, old[at] if old and isinstance(item, dict) and item["kind"] in _OF_A_CLASS else None)
        for at, item in enumerate(content)
    ]


def _generator(kind: str, content: Any, device: str, like: Any) -> Any:
    if kind == "torch.Generator":
        made = like if isinstance(like, torch.Generator) else torch.Generator(device)
        return made.set_state(content.cpu())
    state = unpacked(content)
    if kind == "random.Random":
        generator = like if isinstance(like, random.Random) else random.Random()
        generator.setstate(state)
        return generator
    if kind == "numpy.RandomState":
        old = like if isinstance(like, np.random.RandomState) else np.random.RandomState()
        old.set_state(state)
        return old
    # A generator of another algorithm can't take the state.
    name = state["bit_generator"]
    if not isinstance(like, np.random.Generator) or like.bit_generator.state["bit_generator"] != name:
        if name not in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"):
            raise ValueError(f"no generator {shown(name)}")
        like = np.random.Generator(getattr(np.random, name)())
    like.bit_generator.state = state
    return like


def _tensor(value: Tensor, device: str, like: Any) -> Tensor:
    if type(like) is not Tensor or like.requires_grad:
        return value.to(device if device != "cuda" or torch.cuda.is_available() else "cpu", copy=True)
    if (like.dtype, like.shape) != (value.dtype, value.shape) or overlaps(like):
        return value.to(like.device, copy=True)
    return like.copy_(value)


def overlaps(tensor: Tensor) -> bool:
    """Whether elements overlap in memory, so that it can't be written to."""
    return any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))
