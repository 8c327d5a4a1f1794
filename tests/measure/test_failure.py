import pytest
import torch

from tests.measure.cuda_errors import ADVICE
from wnexplore.errors import RunError
from wnexplore.measure.failure import ContextLostError, Failure, release_memory

LOST = [
    "CUDA error: device-side assert triggered" + ADVICE,
    "CUDA error: an illegal memory access was encountered" + ADVICE,
    "CUDA error: unspecified launch failure" + ADVICE,
    "CUDA error: misaligned address" + ADVICE,
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA driver error: an illegal memory access was encountered",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h",
]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: out of memory" + ADVICE),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 4"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
    ],
)
def test_too_little_memory_is_reported_apart(error: Exception) -> None:
    assert Failure.of(error).status == "out_of_memory"


@pytest.mark.parametrize("text", LOST)
def test_an_error_that_loses_the_context_is_no_lack_of_memory(text: str) -> None:
    failure = Failure.of(RuntimeError(text))
    assert (failure.status, failure.context_lost) == ("failed", True)
    assert "\n" not in failure.error


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: invalid argument" + ADVICE,
        "CUDA error: no kernel image is available for execution on the device" + ADVICE,
        "CUDA error: too many resources requested for launch" + ADVICE,
        "CUDA error: out of memory" + ADVICE,
        "CUDA error: operation not permitted when stream is capturing" + ADVICE,
        "the misaligned address of a letter",
    ],
)
def test_other_errors_leave_the_context_as_it_is(text: str) -> None:
    assert not Failure.of(RuntimeError(text)).context_lost


def test_what_a_recording_that_ends_hides_is_reported_too() -> None:
    def record() -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        record()
    assert Failure.of(caught.value).status == "out_of_memory"


class _LostGpu:
    """A GPU whose every call fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int = 10**9) -> None:
        self.left = failures
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60, 100))
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, self.call)

    def call(self) -> None:
        if self.left:
            self.left -= 1
            raise RuntimeError("CUDA error: an error of whatever name")


def test_a_gpu_that_does_not_answer_any_more_is_lost_whatever_the_error_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _LostGpu(monkeypatch)
    assert Failure.of(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")).context_lost
    release_memory("cuda")


def test_an_error_that_is_reported_once_is_no_lost_context(monkeypatch: pytest.MonkeyPatch) -> None:
    _LostGpu(monkeypatch, failures=1)
    assert not Failure.of(RuntimeError("CUDA error: invalid configuration argument")).context_lost


def test_with_plenty_of_memory_an_engine_is_missing_for_another_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _LostGpu(monkeypatch, failures=0)
    error = RuntimeError("GET was unable to find an engine to execute this computation")
    assert Failure.of(error).status == "failed"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5, 100))
    assert Failure.of(error).status == "out_of_memory"


def test_the_end_of_a_run_is_one_line_of_bounded_length() -> None:
    error = ContextLostError("resnet18", Failure.of(RuntimeError(LOST[0] + "x" * 10_000)))
    assert isinstance(error, RunError)
    assert "resnet18" in str(error)
    assert "same command" in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def test_a_real_allocation_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert Failure.of(caught.value).status == "out_of_memory"


def test_the_error_is_reported_on_one_line() -> None:
    assert Failure.of(ValueError("one\n  two")) == Failure("failed", "ValueError: one two")
    assert Failure.of(ValueError()) == Failure("failed", "ValueError")
