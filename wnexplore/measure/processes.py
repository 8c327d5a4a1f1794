"""The processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """How many there are, and which of them this is; the first one writes and speaks."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def any(self, flag: bool, device: str) -> bool:
        """Whether `flag` is set in one of them: all of them must ask."""
        if self.world == 1:
            return flag
        told = torch.tensor(float(flag), device=device)
        distributed.all_reduce(told)
        return bool(told.item())

    def mean(self, value: torch.Tensor) -> float:
        """The mean of their values (): all of them must ask."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value.item() / self.world

    def gather(self, value: Any) -> list[Any]:
        """What each of them has: all of them must ask."""
        if self.world == 1:
            return [value]
        found = [None] * self.world
        distributed.all_gather_object(found, value)
        return list(found)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process as one of those that torchrun started, each on a GPU of its own; alone without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
