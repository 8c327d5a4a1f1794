"""What went wrong in a measurement, as a record can hold it."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from wnexplore.errors import RunError, WnexploreError, shown
from wnexplore.results.record import Status

NETWORK_ERRORS = (Exception, SystemExit)
"""What a network may raise while it runs, anybody's code: it may even want to leave."""


@dataclass(frozen=True)
class Failure:
    """How a measurement failed, without the error itself, whose frames would keep its tensors alive."""

    status: Status
    error: str
    """The error's type and text, on one line."""
    context_lost: bool = field(default=False, compare=False)
    """Whether it took the GPU's context with it, so that nothing else can run on the GPU in this process."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What `error` says."""
        told = " ".join(str(error).split())
        name = type(error).__name__
        lost = is_context_lost(error)
        short = not lost and any(_is_out_of_memory(cause) for cause in _chain(error))
        return cls("out_of_memory" if short else "failed", f"{name}: {told}" if told else name, lost)


class ContextLostError(RunError):
    """What ends a run whose process can't use the GPU any more: who took the context with it, and how."""

    def __init__(self, culprit: object, failure: Failure, resumes: bool = True) -> None:
        self.culprit, self.failure = culprit, failure
        goes_on = "; what was measured before is kept, and the same command goes on with the rest"
        super().__init__(
            f"the GPU's context was lost with {culprit}, and nothing more can run on it in this process"
            f" ({failure.error[:_TOLD]}){goes_on if resumes else ''}"
        )


def run_error(error: BaseException, culprit: object = "this command") -> RunError | None:
    """What ends a command that met `error`, if that is a lost context or a lack of memory.

    The lost context is told as that of `culprit`, and that the command goes on where it was stopped is not.
    """
    failure = Failure.of(error)
    if failure.context_lost:
        return ContextLostError(culprit, failure, resumes=False)
    if failure.status == "out_of_memory":
        return RunError(f"out of memory: {shown(failure.error, _TOLD)}")
    return None


@contextmanager
def context_watched(culprit: object) -> Iterator[None]:
    """Raise `ContextLostError`, as of `culprit`, for an error inside that takes the GPU's context with it.

    A network that leaves the process inside is a `RunError`.
    """
    try:
        yield
    except WnexploreError:
        raise
    except NETWORK_ERRORS as error:
        failure = Failure.of(error)
        if failure.context_lost:
            raise ContextLostError(culprit, failure) from error
        if isinstance(error, SystemExit):
            raise RunError(f"{culprit} was left by its network: {shown(failure.error, _TOLD)}") from error
        raise


@contextmanager
def network_told() -> Iterator[None]:
    """What a network raises while it runs inside, as a `RunError` of one line."""
    try:
        yield
    except WnexploreError:
        raise
    except NETWORK_ERRORS as error:
        failed = RunError(f"the network failed: {shown(Failure.of(error).error, _TOLD)}")
        raise run_error(error, "this network") or failed from error


def is_context_lost(error: BaseException) -> bool:
    """Whether `error` is of those after which every call of CUDA fails until the process ends.

    Told by its text; cuDNN, cuBLAS and Triton say only that something failed, so that otherwise the GPU
    itself is asked, if this process uses one.
    """
    return any(_LOST.search(str(cause)) for cause in _chain(error)) or not _answers()


def release_memory(device: str) -> None:
    """Give back the memory of what is no longer referred to; a lost context has none to give."""
    gc.collect()
    if device == "cuda" and torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            if not is_context_lost(error):
                raise


_TOLD = 300
"""Characters of the error in the line that ends the run; the record has all of it."""

# The errors of which the documentation of cudaError_t says that the process must end. The whole text would
# not do: each CUDA error comes with advice about device-side assertions.
_LOST = re.compile(
    r"(?:CUDA error|CUDA driver error|Triton Error \[CUDA\]|CUDA failure \d+): (?:an? )?(?:"
    "device-side assert|illegal memory access|unspecified launch failure|misaligned address"
    "|illegal instruction|invalid program counter|invalid device program counter"
    "|operation not supported on global/shared address space|invalid access of peer GPU memory"
    "|hardware stack error|uncorrectable|the launch timed out|unknown error)",
    re.IGNORECASE,
)

_NO_MEMORY = (
    # The CPU's allocator, the CUDA libraries and onnxruntime report it as errors of their own.
    *("DefaultCPUAllocator", "CUDA error: out of memory", "CUDA driver error: out of memory"),
    *("_STATUS_ALLOC_FAILED", "Triton Error [CUDA]: out of memory"),
    *("Failed to allocate memory for requested buffer", "std::bad_alloc"),
)

# cuDNN tries one algorithm after the other and gives up where none gets its workspace; cuBLAS and cuDNN
# have no handle where its own memory can't be had. All say the same of what they can't do at all.
_PERHAPS_NO_MEMORY = (
    *("unable to find an engine to execute this computation", "CUDNN_STATUS_NOT_SUPPORTED"),
    *("CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_NOT_INITIALIZED"),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and those that it hides: what fails first ends a graph's recording, which then fails too."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in text for sign in _NO_MEMORY):
        return True
    return any(sign in text for sign in _PERHAPS_NO_MEMORY) and not _has_plenty()


def _answers() -> bool:
    """Whether the GPU still works, where this process uses one."""
    if not torch.cuda.is_initialized():
        return True
    # An error of a single launch is told once, by whoever asks next; that of a lost context every time.
    return any(_waits() for _ in range(2))


def _waits() -> bool:
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _has_plenty() -> bool:
    """Whether most of the GPU's memory is free: then it is not what was missing."""
    if not torch.cuda.is_initialized():
        return False
    free, total = torch.cuda.mem_get_info()
    return bool(free > total / 2)
