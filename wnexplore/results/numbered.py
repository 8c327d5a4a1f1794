"""Indices for objects that many records share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Numbered(Generic[T]):
    """Equal objects, those with the same `key`, get the same index, from 0 in order of appearance.

    An object met again, as records share points and protocols, is not hashed again, which is slow for points.
    Objects must not change while in use.
    """

    def __init__(self, key: Callable[[T], Hashable]) -> None:
        self._key = key
        self._numbers: dict[Hashable, int] = {}
        self._met: dict[int, tuple[T, int]] = {}

    def __getitem__(self, thing: T) -> int:
        met = self._met.get(id(thing))
        if met is None:
            # The object is kept alive, so that no other gets its id.
            met = thing, self._numbers.setdefault(self._key(thing), len(self._numbers))
            self._met[id(thing)] = met
        return met[1]
