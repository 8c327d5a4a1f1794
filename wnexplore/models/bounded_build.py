"""Building a network within bounds: one with too many elements is refused."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class TooManyNumbersError(Exception):
    """More elements were requested than the limit allows."""


class NumbersAtMost(TorchFunctionMode):
    """Inside it, torch makes new tensors of at most `limit` elements in all, and refuses before allocating.

    Layers allocate their parameters and buffers by these functions. Only tensors requested by size count, not
    those computed from others. Unlike torch's "meta" device it imports no further libraries, which would take
    longer than building a small network.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    @property
    def exceeded(self) -> bool:
        """Whether more was requested, even if the error was caught elsewhere."""
        return self._left < 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in _MAKERS:
            self._left -= _numbers(args, given)
            if self.exceeded:
                raise TooManyNumbersError
        return func(*args, **given)


_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.empty_strided}


def _numbers(args: tuple[Any, ...], given: dict[str, Any]) -> int:
    """The number of elements of the tensor that a call requests."""
    size = given.get("size", args[0] if args and not isinstance(args[0], int) else args)
    try:
        return math.prod(int(length) for length in size)
    except (TypeError, ValueError):  # torch reports what is wrong with them
        return 0
