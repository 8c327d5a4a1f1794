"""Whether Triton can compile and launch here: it needs a C compiler and Python's headers."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch

from wnexplore.errors import Notice

try:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
    from triton.language import constexpr, tensor
except ImportError:
    triton = tl = None


MIN_CAPABILITY = (8, 0)
"""Lowest compute capability: older GPUs have neither bfloat16 nor TF32 products."""


@cache
def works() -> bool:
    """Whether Triton's kernels run on this process's GPU, tried once; if not, a warning says why."""
    if triton is None or not torch.cuda.is_available():
        return False
    if torch.cuda.get_device_capability() < MIN_CAPABILITY:
        return False
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("the first pass must come before a CUDA graph is captured")
    try:
        _launch()
    except Exception as error:  # compilers, linkers and drivers may raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(
            "Triton can't compile here, so other formulations replace 'fused': it needs a C"
            f" compiler and Python's headers ({why[:200]})",
            Notice,
            stacklevel=1,
        )
        return False
    return True


def _launch() -> None:
    found = torch.zeros(1, device="cuda")
    _one[(1,)](found, 1)
    if found.item() != 1:
        raise RuntimeError("a kernel that writes 1 wrote something else")


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _one(to: tensor, value: constexpr) -> None:
    tl.store(to, value)
