"""A network built within bounds: one that would hold more numbers than it may is not made."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class TooManyNumbersError(Exception):
    """More tensors were asked for than may be."""


class NumbersAtMost(TorchFunctionMode):
    """Inside it, torch makes new tensors of at most `most` numbers in all, and refuses before it allocates.

    Layers make all that they hold by these functions. Only tensors that are asked for by their sizes count,
    not what is computed from others. Unlike torch's "meta" device it needs no further libraries, which take
    longer to load than a small network to build.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    @property
    def exceeded(self) -> bool:
        """Whether more was asked for, which others may have caught."""
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
    """How many numbers a tensor has that is asked for so."""
    size = given.get("size", args[0] if args and not isinstance(args[0], int) else args)
    try:
        return math.prod(int(length) for length in size)
    except (TypeError, ValueError):  # torch will say what is wrong with them
        return 0
