"""What a measurement asks of torch for as long as it runs: threads, precision, names of dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from wnexplore.nn.precision import tf32_set

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
PRECISION = "float32"
"""Of products in trainings, tests and answers, without TF32: with it, torch's own choice of where it is used
would have plain and generated convolutions computed differently."""
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def place(network: nn.Module, device: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Move `network` there, in place; of its tensors those of four dimensions have a `memory_format`.

    `nn.Module.to` would ask it of those of five too, experts' kernels and 3d ones, which can't have it.
    """
    network.to(device=device, dtype=dtype)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Run with `count` threads on the CPU (None: as many as before), then as before."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def precision_set(dtype: str) -> Iterator[None]:
    """Let CUDA's convolutions and matrix products use TF32 if `dtype` is "tf32" and not otherwise.

    Torch's own default is mixed: TF32 in convolutions, float32 in matrix products.
    """
    with tf32_set(dtype == "tf32"):
        yield
