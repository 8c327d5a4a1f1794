"""What went wrong in a measurement, as a record can hold it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wnexplore.design.record import Status


@dataclass(frozen=True)
class Failure:
    """How a measurement failed, without the error itself, whose frames would keep its tensors alive."""

    status: Status
    error: str
    """The error's type and text, on one line."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What `error` says."""
        told = " ".join(str(error).split())
        name = type(error).__name__
        return cls(
            "out_of_memory" if _is_out_of_memory(error) else "failed", f"{name}: {told}" if told else name
        )


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator, the CUDA libraries and onnxruntime report it as errors of their own.
    signs = (
        *("DefaultCPUAllocator", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED"),
        *("Failed to allocate memory for requested buffer", "std::bad_alloc"),
    )
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(s in str(error) for s in signs)
