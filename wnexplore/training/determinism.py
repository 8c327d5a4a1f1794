"""Seeded generators and deterministic algorithms for as long as a training runs."""

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
    """Set the workspace with which cuBLAS is deterministic, unless somebody chose one.

    cuBLAS reads it once, when it is first used, and torch asks for it in deterministic mode: it must be
    there before anything runs on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def reproducible(seed: int, device: str) -> Iterator[None]:
    """Seeded generators and deterministic algorithms inside, everything as it was outside.

    The generators are torch's, and Python's and numpy's, which some networks draw from. On a GPU an
    operation that has no deterministic form makes torch warn, and float32 is float32: torch's own default,
    TF32 in convolutions alone, would give plain convolutions another precision than generated ones, whose
    products are matrices.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    enabled = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if device == "cuda":
        require_cublas_workspace()
    # All GPUs, also for a training on the CPU: torch.manual_seed seeds every one of them.
    others = _other_generators()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), precision_set(PRECISION):
        try:
            seed_generators(seed)
            torch.use_deterministic_algorithms(True, warn_only=True)
            cudnn.deterministic, cudnn.benchmark = True, False
            # Deterministic mode would write to every tensor twice; nothing here reads unwritten memory.
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
    """Where the generators stand that a training on `device` draws from: torch's, Python's and numpy's."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state(), **_other_generators()}
    if device == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: dict[str, Any]) -> None:
    """Put the generators where `generator_states` found them."""
    torch.set_rng_state(states["cpu"].cpu())
    _set_other_generators(states)
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def _other_generators() -> dict[str, Any]:
    return {"python": packed(random.getstate()), "numpy": packed(np.random.get_state(legacy=False))}


def _set_other_generators(states: dict[str, Any]) -> None:
    random.setstate(unpacked(states["python"]))
    np.random.set_state(unpacked(states["numpy"]))
