"""Peak memory of a pass: the most bytes that torch's allocator had handed out for it at once."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd.profiler import profile, record_function


def peak_memory(run: Callable[[], object], device: str, held: Iterable[Tensor]) -> int | None:
    """The most bytes in use at one moment of `run()`, those of `held` included, on "cpu" or "cuda".

    `held` are the tensors of this pass that are alive between two runs: weights, buffers, images,
    gradients, the optimiser's state. Views of one storage count once, and bytes as they were asked for:
    what an allocator rounds up, keeps in reserve or holds for others isn't counted.

    `run` is run twice and the second time counts. What the first one leaves behind stands for `held`
    then: gradients that a step drops and makes anew are known from their making on, and workspaces that
    a library keeps for good (cuBLAS) are there already. So a training step must have been run before
    `held` is gathered: what only the first step ever makes, gradients and momenta, would be left out.

    What counts is what torch's allocator hands out (on the CPU: to this thread), in any runtime,
    torch.compile too: tensors, and also what an operator takes for itself while it works, such as an
    unfolded image, a kernel reordered for oneDNN or cuDNN's workspace, which depend on the processor or
    GPU. What a library takes from the system by itself isn't seen.

    None for the replay of a `torch.cuda.CUDAGraph`, which works in memory set apart when it was recorded
    and allocates nothing, and where CUDA's allocator keeps no count (another backend than torch's own).
    """
    before = list(held)
    if device == "cpu":
        growth: int | None = _growth_on_cpu(run)
    else:
        growth = None if _replays_a_graph(run) else _growth_on_cuda(run, _bytes_of(before))
    return None if growth is None else _bytes_of(before) + growth


def _growth_on_cpu(run: Callable[[], object]) -> int:
    """How far the second run goes beyond what is in use when it begins, in bytes."""
    # torch counts the memory of a CPU only while it profiles, and then only what was allocated since:
    # the first run has to be seen for what the second one frees of it. A mode that sees every operator
    # (TorchDispatchMode) would send compiled code back to eager mode, or make it fail.
    # The tracing library below the profiler announces itself on standard error otherwise.
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
    """As `_growth_on_cpu`, of which the allocator can tell if it knows of `held` bytes at least."""
    run()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    begin = _requested("current")
    if begin < held:
        return None
    run()
    return _requested("peak") - begin


def _requested(figure: str) -> int:
    # Bytes as the tensors asked for: max_memory_allocated() counts blocks, up to 1 MiB larger.
    requested: int = torch.cuda.memory_stats().get(f"requested_bytes.all.{figure}", 0)
    return requested


def _replays_a_graph(run: Callable[[], object]) -> bool:
    return isinstance(getattr(run, "__self__", None), torch.cuda.CUDAGraph)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes: dict[int, int] = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(sizes.values())


_SECOND_RUN = "wnexplore: second run"
_MEMORY = "[memory]"
"""The profiler's name of an allocation, or with negative bytes of a release."""
