"""Torch's settings for a measurement: threads, precision, names of dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wnexplore.nn.precision import tf32_set

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
PRECISION = "float32"
"""The precision of trainings, tests and predictions, without TF32: torch's defaults would use it in plain
convolutions only, not in generated ones."""
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def place(network: nn.Module, device: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Move `network` to `device` and `dtype` in place, its 4-dimensional tensors in `memory_format`.

    `nn.Module.to` would apply it to 5-dimensional tensors too, experts' and 3d kernels, and fail. It would
    also drop the imaginary part of complex tensors, which get the complex `dtype` here, where there is one.
    """
    complex_dtype = _COMPLEX.get(dtype)

    def placed(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device=device, dtype=complex_dtype)
        return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

    network._apply(placed)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4 and tensor.layout == torch.strided:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


_COMPLEX = {torch.float32: torch.complex64, torch.float16: torch.complex32}


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Run inside with `count` threads on the CPU (None: unchanged), then restore."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def precision_set(dtype: str) -> Iterator[None]:
    """Let CUDA's convolutions and matrix products use TF32 if and only if `dtype` is "tf32".

    Torch's default is mixed: TF32 in convolutions, float32 in matrix products.
    """
    with tf32_set(dtype == "tf32"):
        yield
