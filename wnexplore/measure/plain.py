"""Values that a file can hold without code: numbers, text, tensors, containers of them, random generators."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wnexplore.errors import shown


class NotPlainError(TypeError):
    """A value that can't be kept without running code when it is read."""


def packed(value: Any) -> Any:
    """A copy of `value` of tensors, numbers, text, lists and dictionaries alone; `unpacked` undoes it.

    Raises `NotPlainError` for anything else: an object of a class of its own, a tensor with a history.
    """
    try:
        return _packed(value)
    except RecursionError:
        raise NotPlainError("a value that contains itself, or is nested too deep") from None


def unpacked(value: Any, like: Any = None) -> Any:
    """What `packed` was given.

    A generator or tensor takes the place of what is in `like`, where that is one of the same kind, so that
    others who hold it too see the change. Raises `TypeError` or `ValueError` for what `packed` doesn't give.
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
        pairs = [(unpacked(key), own) for key, own in content]
        made = {key: unpacked(own, old.get(key)) for key, own in pairs}
        return OrderedDict(made) if kind == "ordered" else made
    items = [unpacked(item) for item in content]
    return deque(items, value["most"]) if kind == "deque" else _SEQUENCES[kind](items)


def same(one: Any, other: Any) -> bool:
    """Whether two values that `packed` gave are equal, numbers that are none included."""
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


_MOST_BYTES = 16 * 2**20
"""Of a tensor: a larger one is what a layer saw last, not what it knows."""
_PLAIN = (type(None), bool, int, float, complex, str)
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
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
        if value.nbytes > _MOST_BYTES:
            raise NotPlainError("a tensor that is large")
        # Read back, it is on the CPU, whatever it was on.
        return {"kind": "tensor", "content": value.detach().clone(), "device": value.device.type}
    if kind in (dict, OrderedDict):
        pairs = [(_packed(key), _packed(own)) for key, own in value.items()]
        return {"kind": "ordered" if kind is OrderedDict else "dict", "content": pairs}
    if kind is deque:
        return {"kind": "deque", "content": [_packed(own) for own in value], "most": value.maxlen}
    for name, sequence in _SEQUENCES.items():
        if kind is sequence:
            return {"kind": name, "content": [_packed(own) for own in value]}
    return _packed_numpy(value) if isinstance(value, np.ndarray | np.generic) else _packed_generator(value)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _packed_numpy(value: Any) -> dict[str, Any]:
    if value.dtype.kind not in "biufc":
        raise NotPlainError(f"numpy's {value.dtype}")
    dtype = value.dtype.str
    if isinstance(value, np.generic):
        return {"kind": "number", "content": value.item(), "dtype": dtype}
    try:
        # Its own copy, which may be written to.
        content = torch.from_numpy(np.array(value, order="C").astype(value.dtype.newbyteorder("=")))
    except TypeError:
        raise NotPlainError(f"numpy's {value.dtype}") from None
    # Torch can't send those without a sign to another process; their bits are the same.
    content = content.view(_SIGNED.get(content.dtype, content.dtype))
    return {"kind": "numpy", "content": content, "shape": list(value.shape), "dtype": dtype}


def _packed_generator(value: Any) -> dict[str, Any]:
    if type(value) is torch.Generator:
        return {"kind": "torch.Generator", "content": value.get_state(), "device": str(value.device)}
    if type(value) is random.Random:
        return {"kind": "random.Random", "content": _packed(value.getstate())}
    if type(value) is np.random.Generator:
        return {"kind": "numpy.Generator", "content": _packed(value.bit_generator.state)}
    if type(value) is np.random.RandomState:
        return {"kind": "numpy.RandomState", "content": _packed(value.get_state(legacy=False))}
    raise NotPlainError(f"an object of {shown(type(value).__module__)}.{shown(type(value).__qualname__)}")


def _generator(kind: str, content: Any, device: str, like: Any) -> Any:
    if kind == "torch.Generator":
        made = like if isinstance(like, torch.Generator) else torch.Generator(device)
        return made.set_state(content.cpu())
    state = unpacked(content)
    if kind == "random.Random":
        own = like if isinstance(like, random.Random) else random.Random()
        own.setstate(state)
        return own
    if kind == "numpy.RandomState":
        old = like if isinstance(like, np.random.RandomState) else np.random.RandomState()
        old.set_state(state)
        return old
    # One of another algorithm can't take the state.
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
    """Whether several of its elements are one number in memory, so that it can't be written to."""
    return any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))
