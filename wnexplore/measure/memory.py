"""Peak memory of a pass: the largest number of bytes allocated by torch at once."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd.profiler import profile, record_function


def peak_memory(run: Callable[[], object], device: str, held: Iterable[Tensor]) -> int | None:
    """The peak number of bytes in use during `run()`, those of `held` included, on "cpu" or "cuda".

    `held` are the tensors of this pass that are alive between two runs: weights, buffers, images, gradients,
    the optimiser's state. Views of one storage count once, and bytes as requested: rounding by the allocator,
    its cache and other programs' memory aren't counted.

    `run` is called twice and the second call counts: gradients that a step frees and allocates again are then
    known from their allocation on, and permanent workspaces of libraries (cuBLAS) exist already. A training
    step must have been run before `held` is gathered: gradients and momenta, which only the first step
    allocates, would be missing.

    All allocations by torch's allocator count (on the CPU: in this thread), in any runtime, including
    torch.compile: tensors, and temporary buffers of operators, such as an unfolded image, a kernel reordered
    for oneDNN or cuDNN's workspace, which depend on the processor or GPU. Memory that a library allocates
    from the system isn't seen.

    None for the replay of a `torch.cuda.CUDAGraph`, which allocates nothing, and where CUDA's allocator keeps
    no count (a backend other than torch's native one).
    """
    before = list(held)
    if device == "cpu":
        growth: int | None = _growth_on_cpu(run)
    else:
        growth = None if _replays_a_graph(run) else _growth_on_cuda(run, _bytes_of(before))
    return None if growth is None else _bytes_of(before) + growth


def _growth_on_cpu(run: Callable[[], object]) -> int:
    """The peak of the second run above the memory in use at its start, in bytes."""
    # torch counts CPU memory only while it profiles, and only new allocations: the first run must be profiled
    # for what the second one frees of it. A TorchDispatchMode would send compiled code back to eager mode, or
    # make it fail. The tracing library below the profiler announces itself on standard error otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(profile_memory=True) as profiler:
        run()
        gc.collect()
        with record_function(_SECOND_RUN):
            pass
        run()
    assert profiler.kineto_results is not None
    events = sorted(profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begin = next(place for place, event in enumerate(events) if event.name() == _SECOND_RUN)
    changes = (event.nbytes() for event in events[begin:] if event.name() == _MEMORY)
    growth: int = max(accumulate(changes, initial=0))
    return growth


def _growth_on_cuda(run: Callable[[], object], held: int) -> int | None:
    """As `_growth_on_cpu`; None if the allocator counts fewer than `held` bytes."""
    run()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    begin = _requested("current")
    if begin < held:
        return None
    run()
    return _requested("peak") - begin


def _requested(figure: str) -> int:
    # Requested bytes: max_memory_allocated() counts blocks, up to 1 MiB larger.
    requested: int = torch.cuda.memory_stats().get(f"requested_bytes.all.{figure}", 0)
    return requested


def _replays_a_graph(run: Callable[[], object]) -> bool:
    return isinstance(getattr(run, "__self__", None), torch.cuda.CUDAGraph)


def dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors of which `tensor` consists: itself, or the numbers of a sparse one and where they stand."""
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        # Not `indices`, which wants one entry a place.
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return ()


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    storages = [part.untyped_storage() for tensor in tensors for part in dense_parts(tensor)]
    sizes: dict[int, int] = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(sizes.values())


_SECOND_RUN = "wnexplore: second run"
_MEMORY = "[memory]"
"""The profiler's name of an allocation or, with negative bytes, a release."""
