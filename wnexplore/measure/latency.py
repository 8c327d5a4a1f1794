"""Latency: one forward pass of a network, timed in turn with its plain baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wnexplore.measure.statistics import Interval, median_interval, ratio_interval

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

WARM_UP_PASSES = 3
MIN_PAIRS = 10
MAX_PAIRS = 300


@dataclass(frozen=True)
class Latency:
    """Times of single forward passes of one batch, in milliseconds, in the order they were taken."""

    samples_ms: list[float]
    baseline_ms: list[float] | None
    """The plain network's, each taken right beside the sample of the same place; None for itself."""
    peak_memory_mb: float | None
    """Most memory allocated during a pass, weights included, in 10**6 bytes; None on a CPU."""

    @property
    def median(self) -> Interval:
        """Median of the samples with its 95 % interval."""
        return median_interval(self.samples_ms)

    @property
    def ratio(self) -> Interval:
        """Median of the ratios to the baseline, pair by pair, with its 95 % interval."""
        if self.baseline_ms is None:
            return Interval(1.0, 1.0, 1.0)
        return ratio_interval(self.samples_ms, self.baseline_ms)

    def to_dict(self) -> dict[str, Any]:
        """The summary as a record's value."""
        median, ratio = self.median, self.ratio
        return {
            "latency_ms": median.median,
            "latency_ms_low": median.low,
            "latency_ms_high": median.high,
            "latency_ratio": ratio.median,
            "latency_ratio_low": ratio.low,
            "latency_ratio_high": ratio.high,
            "peak_memory_mb": self.peak_memory_mb,
        }

    def samples(self) -> dict[str, list[float]]:
        """The raw times as a record's samples."""
        baseline = {} if self.baseline_ms is None else {"baseline_ms": self.baseline_ms}
        return {"latency_ms": self.samples_ms, **baseline}


def measure_latency(
    model: nn.Module,
    baseline: nn.Module | None,
    *,
    resolution: int,
    batch_size: int,
    dtype: str,
    device: str,
    threads: int | None = None,
    seconds: float = 2.0,
) -> Latency:
    """Time forward passes of `model` and `baseline` in turn for about `seconds` seconds.

    Inference mode, images (batch_size, 3, resolution, resolution) made on the device beforehand. On
    a GPU the time is that between two CUDA events, the device idle before the first; on a CPU that
    of a monotonic clock. At least 10 and at most 300 pairs, after 3 passes of warm-up. Both modules
    are put in evaluation mode and moved to the device and dtype, and left so. Out of memory is
    raised as torch raises it.
    """
    networks = [network for network in (model, baseline) if network is not None]
    occupied = _occupied(networks, device)
    images = torch.randn(batch_size, 3, resolution, resolution, device=device, dtype=DTYPES[dtype])
    timers: list[Callable[[], float]] = []
    with threads_set(threads):
        for network in networks:
            timer = _timer(network.eval().to(device=device, dtype=DTYPES[dtype]), images)
            for _ in range(WARM_UP_PASSES):
                timer()
            if not timers:
                # Before the baseline's weights are on the device too.
                peak = _peak_memory_mb(timer, device, occupied)
            timers.append(timer)
        rounds = _rounds(timers, seconds)
    return Latency(
        samples_ms=[times[0] for times in rounds],
        baseline_ms=None if baseline is None else [times[1] for times in rounds],
        peak_memory_mb=peak,
    )


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


def _timer(network: nn.Module, images: torch.Tensor) -> Callable[[], float]:
    """A function that runs one forward pass in inference mode and returns its milliseconds."""

    @torch.inference_mode()
    def on_cpu() -> float:
        start = time.perf_counter_ns()
        network(images)
        return (time.perf_counter_ns() - start) / 1e6

    @torch.inference_mode()
    def on_cuda() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(images.device)
        start.record()
        network(images)
        end.record()
        torch.cuda.synchronize(images.device)
        return float(start.elapsed_time(end))

    return on_cuda if images.is_cuda else on_cpu


def _rounds(timers: list[Callable[[], float]], seconds: float) -> list[list[float]]:
    """One time of each timer a round; who goes first alternates, so that neither gains by it."""
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < MIN_PAIRS or (time.perf_counter() < end and len(rounds) < MAX_PAIRS):
        order = list(enumerate(timers))
        if len(rounds) % 2:
            order.reverse()
        times = {index: timer() for index, timer in order}
        rounds.append([times[index] for index in range(len(timers))])
    return rounds


def _occupied(networks: list[nn.Module], device: str) -> int:
    """Bytes of the device that others than these networks hold; the networks leave it for that."""
    if device != "cuda":
        return 0
    for network in networks:
        network.cpu()
    return torch.cuda.memory_allocated()


def _peak_memory_mb(run: Callable[[], float], device: str, occupied: int) -> float | None:
    if device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - occupied) / 1e6
