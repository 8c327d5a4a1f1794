"""The processes, started by torchrun, that train one network together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from wnexplore.errors import InputError, shown


@dataclass(frozen=True)
class Processes:
    """The number of processes, and the rank of this one; rank 0 writes and prints."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def any(self, flag: bool, device: str) -> bool:
        """Whether `flag` is set in any process; all processes must call this."""
        if self.world == 1:
            return flag
        any_flag = torch.tensor(float(flag), device=device)
        distributed.all_reduce(any_flag)
        return bool(any_flag.item())

    def mean(self, value: torch.Tensor) -> float:
        """The mean of the processes' values (); all processes must call this."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value.item() / self.world

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank; all processes must call this."""
        if self.world == 1:
            return [value]
        found = [None] * self.world
        distributed.all_gather_object(found, value)
        return list(found)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes started by torchrun, each on its own GPU; a single process without torchrun.

    Raises `InputError` if there are fewer GPUs than processes, or if torchrun's variables aren't numbers.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    if device == "cuda":
        gpu = process_gpu()
        torch.cuda.set_device(gpu)
        # With the GPU given, NCCL connects now, where an error still belongs to this process.
        distributed.init_process_group("nccl", device_id=gpu)
    else:
        distributed.init_process_group("gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def process_gpu() -> torch.device:
    """This process's GPU by torchrun's local rank; `InputError` if it doesn't exist."""
    local, count = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    if local >= count:
        raise InputError(
            f"this is process {local + 1} on this machine (LOCAL_RANK {local}), and torch sees {count}"
            f" {'GPU' if count == 1 else 'GPUs'}: start at most {count} (torchrun --nproc-per-node {count})"
        )
    return torch.device("cuda", local)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{variable} is '{shown(text)}': expected a whole number, as torchrun sets it")
    return int(text)
