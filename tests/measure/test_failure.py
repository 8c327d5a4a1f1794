import pytest
import torch

from wnexplore.measure.failure import Failure


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 4"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
    ],
)
def test_too_little_memory_is_told_apart(error: Exception) -> None:
    assert Failure.of(error).status == "out_of_memory"


def test_a_real_allocation_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert Failure.of(caught.value).status == "out_of_memory"


def test_the_error_is_told_on_one_line() -> None:
    assert Failure.of(ValueError("one\n  two")) == Failure("failed", "ValueError: one two")
    assert Failure.of(ValueError()) == Failure("failed", "ValueError")
