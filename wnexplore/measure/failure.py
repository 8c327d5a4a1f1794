"""Failures of measurements, as records store them."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from wnexplore.errors import RunError, WnexploreError, shown
from wnexplore.measure.memory_bound import bound_memory
from wnexplore.results.record import Status

NETWORK_ERRORS = (Exception, SystemExit)
"""The errors that a network may raise while it runs: arbitrary code, which may even call sys.exit."""


@dataclass(frozen=True)
class Failure:
    """How a measurement failed, without the exception, whose frames would keep tensors alive."""

    status: Status
    error: str
    """The error's type and text, on one line."""
    context_lost: bool = field(default=False, compare=False)
    """Whether the GPU's context was lost, so that nothing else can run on the GPU in this process."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that `error` describes; of a `NetworkError` that of the network."""
        if isinstance(error, NetworkError):
            return error.failure
        message = " ".join(str(error).split())
        name = type(error).__name__
        lost = is_context_lost(error)
        short = not lost and any(_is_out_of_memory(cause) for cause in _chain(error))
        return cls("out_of_memory" if short else "failed", f"{name}: {message}" if message else name, lost)


class ContextLostError(RunError):
    """The process can't use the GPU any more: which network caused it, and how."""

    def __init__(self, culprit: object, failure: Failure, resumes: bool = True) -> None:
        self.culprit, self.failure = culprit, failure
        resume_hint = "; all earlier measurements are kept, and the same command resumes with the rest"
        super().__init__(
            f"the GPU's context was lost in {culprit}, and nothing more can run on it in this process"
            f" ({failure.error[:_MAX_SHOWN]}){resume_hint if resumes else ''}"
        )


class NetworkError(RunError):
    """What a network did wrong in a training or a test, without its name, which who knows it adds."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        self.failure = failure or Failure("failed", message)
        super().__init__(message)


def run_error(error: BaseException, culprit: object = "this command") -> RunError | None:
    """The `RunError` for `error` if that is a lost context or a lack of memory; None otherwise.

    A lost context is attributed to `culprit`; the message doesn't promise that the command resumes.
    """
    failure = Failure.of(error)
    if failure.context_lost:
        return ContextLostError(culprit, failure, resumes=False)
    if failure.status == "out_of_memory":
        return RunError(f"out of memory: {shown(failure.error, _MAX_SHOWN)}")
    return None


@contextmanager
def context_watched(culprit: object) -> Iterator[None]:
    """Raise `ContextLostError`, attributed to `culprit`, for an error inside that loses the GPU's context.

    A network that calls sys.exit inside becomes a `RunError`; a `NetworkError` gets the culprit's name.
    """
    try:
        yield
    except NetworkError as error:
        raise RunError(f"{culprit}: {error}") from error
    except WnexploreError:
        raise
    except NETWORK_ERRORS as error:
        failure = Failure.of(error)
        if failure.context_lost:
            raise ContextLostError(culprit, failure) from error
        if isinstance(error, SystemExit):
            raise RunError(
                f"{culprit}: its network ended the process: {shown(failure.error, _MAX_SHOWN)}"
            ) from error
        raise


@contextmanager
def network_step(when: str) -> Iterator[None]:
    """What a network raises inside, in one step or test, as a `NetworkError` that says when.

    A lack of memory, a lost context and leaving the process are reported by the caller.
    """
    try:
        yield
    except WnexploreError:
        raise
    except Exception as error:
        failure = Failure.of(error)
        if failure.context_lost or failure.status == "out_of_memory":
            raise
        message = f"the network failed {when}: {shown(failure.error, _MAX_SHOWN)}"
        raise NetworkError(message, failure) from error


@contextmanager
def translate_network_errors(backbone: str) -> Iterator[None]:
    """Translate errors of the network of `backbone` that runs inside into a `RunError` of one line."""
    bound_memory()
    name = f"backbone '{shown(backbone)}'"
    try:
        yield
    except NetworkError as error:
        raise RunError(f"{name}: {error}") from error
    except WnexploreError:
        raise
    except NETWORK_ERRORS as error:
        failed = RunError(f"{name}: the network failed: {shown(Failure.of(error).error, _MAX_SHOWN)}")
        raise run_error(error, name) or failed from error


def is_context_lost(error: BaseException) -> bool:
    """Whether after `error` every CUDA call fails until the process ends.

    Recognised by its text; since cuDNN, cuBLAS and Triton only report that something failed, other errors are
    followed by a test of the GPU, if this process uses one.
    """
    return any(_LOST.search(str(cause)) for cause in _chain(error)) or not _answers()


def release_memory(device: str) -> None:
    """Free the memory of unreferenced tensors; nothing to do after a lost context."""
    gc.collect()
    if device == "cuda" and torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            if not is_context_lost(error):
                raise


_MAX_SHOWN = 300
"""Largest number of characters of the error in the last line; the record has all of it."""

# The errors after which, by the documentation of cudaError_t, the process must end. Only the start of the
# text is matched: each CUDA error comes with advice about device-side assertions.
_LOST = re.compile(
    r"(?:CUDA error|CUDA driver error|Triton Error \[CUDA\]|CUDA failure \d+): (?:an? )?(?:"
    "device-side assert|illegal memory access|unspecified launch failure|misaligned address"
    "|illegal instruction|invalid program counter|invalid device program counter"
    "|operation not supported on global/shared address space|invalid access of peer GPU memory"
    "|hardware stack error|uncorrectable|the launch timed out|unknown error)",
    re.IGNORECASE,
)

_NO_MEMORY = (
    # The CPU's allocator, the CUDA libraries and onnxruntime raise their own errors.
    *("DefaultCPUAllocator", "CUDA error: out of memory", "CUDA driver error: out of memory"),
    *("_STATUS_ALLOC_FAILED", "Triton Error [CUDA]: out of memory"),
    *("Failed to allocate memory for requested buffer", "std::bad_alloc"),
)

# cuDNN tries one algorithm after another and gives up where none gets its workspace; cuBLAS and cuDNN get no
# handle where its memory can't be allocated. The same errors are raised for unsupported operations.
_PERHAPS_NO_MEMORY = (
    *("unable to find an engine to execute this computation", "CUDNN_STATUS_NOT_SUPPORTED"),
    *("CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_NOT_INITIALIZED"),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and the errors that it hides: a failure inside a graph makes its recording fail too."""
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
    """Whether the GPU still works, if this process uses one."""
    if not torch.cuda.is_initialized():
        return True
    # The error of a single launch is reported once, by the next call; that of a lost context every time.
    return any(_waits() for _ in range(2))


def _waits() -> bool:
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _has_plenty() -> bool:
    """Whether most of the GPU's memory is free: then the failure was no lack of memory."""
    if not torch.cuda.is_initialized():
        return False
    free, total = torch.cuda.mem_get_info()
    return bool(free > total / 2)
