"""Seeded generators and deterministic algorithms during a training."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from wnexplore.measure.torch_settings import PRECISION, precision_set
from wnexplore.training.plain_values import packed, unpacked


def require_cublas_workspace() -> None:
    """Set the workspace with which cuBLAS is deterministic, unless it is already set.

    cuBLAS reads it once, on first use, and torch requires it in deterministic mode: it must be set before
    anything runs on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def reproducible(seed: int, device: str) -> Iterator[None]:
    """Seeded generators and deterministic algorithms inside; restored afterwards.

    The generators are torch's, Python's and numpy's, which some networks use. On a GPU torch warns about
    operations without a deterministic implementation, and TF32 is off: torch's default, TF32 only in
    convolutions, would give plain convolutions another precision than generated ones, which are matrix
    products.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    enabled = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if device == "cuda":
        require_cublas_workspace()
    # All GPUs, even for a training on the CPU: torch.manual_seed seeds all of them.
    others = _other_generators()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), precision_set(PRECISION):
        try:
            seed_generators(seed)
            torch.use_deterministic_algorithms(True, warn_only=True)
            cudnn.deterministic, cudnn.benchmark = True, False
            # Deterministic mode would fill every new tensor; nothing here reads uninitialised memory.
            memory.fill_uninitialized_memory = False
            yield
        finally:
            _set_other_generators(others)
            cudnn.deterministic, cudnn.benchmark = before
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill


def seed_generators(seed: int) -> None:
    """Seed torch's generators, Python's and numpy's."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def generator_states(device: str) -> dict[str, Any]:
    """The states of the generators that a training on `device` uses: torch's, Python's and numpy's."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state(), **_other_generators()}
    if device == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: dict[str, Any]) -> None:
    """Restore the states from `generator_states`."""
    torch.set_rng_state(states["cpu"].cpu())
    _set_other_generators(states)
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def _other_generators() -> dict[str, Any]:
    return {"python": packed(random.getstate()), "numpy": packed(np.random.get_state(legacy=False))}


def _set_other_generators(states: dict[str, Any]) -> None:
    random.setstate(unpacked(states["python"]))
    np.random.set_state(unpacked(states["numpy"]))
