from pathlib import Path

import pytest
import torch

from wnexplore.measure.stopwatch import before_sample, cpu_cache_bytes, flusher, sampler


def test_what_comes_before_a_sample_is_not_timed() -> None:
    calls: list[str] = []
    sample = sampler(lambda: calls.append("step"), "cpu", lambda: calls.append("before"))
    assert [sample() > 0, sample() > 0] == [True, True]
    assert calls == ["before", "step"] * 2


def test_a_cold_cache_is_flushed_and_a_warm_one_left_alone() -> None:
    def step() -> None:
        return None

    assert before_sample(step, "cpu", "warm") is None
    flush = before_sample(step, "cpu", "cold")
    assert flush is not None
    assert flush is not step


def test_networks_can_share_what_flushes_the_cache() -> None:
    flush = flusher("cpu")
    assert before_sample(lambda: None, "cpu", "cold", flush) is flush
    assert before_sample(lambda: None, "cpu", "warm", flush) is None


def test_more_than_the_cache_is_written() -> None:
    written = flusher("cpu")()
    assert isinstance(written, torch.Tensor)
    assert written.numel() >= 2 * (cpu_cache_bytes() or 1)
    assert int(written.max()) == 0


def test_the_largest_cache_counts(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert cpu_cache_bytes(tmp_path) == 32 * 2**20
    (tmp_path / "index2" / "size").write_text("no size\n")
    assert cpu_cache_bytes(tmp_path) == 2**20
    assert cpu_cache_bytes(tmp_path / "none") is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_timed_by_its_own_clock_after_an_untimed_pass() -> None:
    calls: list[int] = []
    matrix = torch.randn(2048, 2048, device="cuda")

    def step() -> None:
        calls.append(1)
        matrix @ matrix

    sample = sampler(step, "cuda", before_sample(step, "cuda", "warm"))
    assert sample() > 0
    assert len(calls) == 2
