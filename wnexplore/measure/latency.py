"""Latency: networks timed in rounds with their plain baseline, until their ratios are precise enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wnexplore.design.latency_protocol import LatencyProtocol, TimingDevice, latency_axes
from wnexplore.design.protocol import LatencySpec
from wnexplore.errors import InputError
from wnexplore.measure.allocator import settle
from wnexplore.measure.conditions import Watch
from wnexplore.measure.environment import free_memory
from wnexplore.measure.failure import NETWORK_ERRORS, ContextLostError, Failure, release_memory
from wnexplore.measure.gpu import energy_per_image
from wnexplore.measure.memory import peak_memory
from wnexplore.measure.rounds import Round, Sampler, StoppedBy, Timing, time_in_rounds, warm_up
from wnexplore.measure.runtimes import RUNTIMES, Step, TimedPass, make_pass
from wnexplore.measure.saved_rounds import KeptRounds
from wnexplore.measure.statistics import bootstrap_interval
from wnexplore.measure.stopwatch import before_sample, flusher, sampler
from wnexplore.measure.thread_waiting import yield_to_others
from wnexplore.measure.timing_warnings import Warning, warnings_of
from wnexplore.measure.torch_settings import DTYPES, MEMORY_FORMATS, place, precision_set, threads_set
from wnexplore.models.deploy import deploy
from wnexplore.results.intervals import MedianInterval

MAX_RESIDENT = 64
"""Networks timed in the same rounds: with more, the first figure would come late."""

Key = TypeVar("Key", bound=Hashable)
Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Latency:
    """Times of single passes over one batch, in milliseconds, in order of measurement."""

    samples_ms: list[float]
    baseline_ms: list[float] | None
    """The plain network's times from the same rounds; None for the plain network itself."""
    stopped_by: StoppedBy
    peak_memory_mb: float | None
    """Peak tensor memory of a pass, weights included, in 10**6 bytes; None if unknown."""
    compile_s: float | None
    energy_j: float | None
    """Joules per image."""
    warnings: list[Warning]
    seconds: list[float] = field(default_factory=list)
    """When each sample's round was over: the same numbers for networks timed in the same rounds."""
    readings: Mapping[str, list[float]] = field(default_factory=dict)
    """Clock, temperature, power and throttle reasons of the GPU during the timing."""

    @property
    def median(self) -> MedianInterval:
        """Median of the samples with its 95 % bootstrap interval."""
        return bootstrap_interval(self.samples_ms)

    @property
    def ratio(self) -> MedianInterval:
        """Median of the ratios to the baseline, round by round, with its 95 % bootstrap interval."""
        if self.baseline_ms is None:
            return MedianInterval(1.0, 1.0, 1.0)
        return bootstrap_interval(Timing(self.samples_ms, self.baseline_ms).deciding)

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
            "compile_s": self.compile_s,
            "energy_j": self.energy_j,
            "rounds": len(self.samples_ms),
            "stopped_by": self.stopped_by,
            "warnings": [asdict(warning) for warning in self.warnings],
        }

    def samples(self) -> dict[str, list[float]]:
        """The raw times as a record's samples."""
        baseline = {} if self.baseline_ms is None else {"baseline_ms": self.baseline_ms}
        rounds = {"round_s": self.seconds} if self.seconds else {}
        return {"latency_ms": self.samples_ms, **baseline, **rounds, **self.readings}


Progress = Callable[[Any, float], None]
"""Called with the current network and the spent share of its group's time budget."""


def check_latency(spec: LatencySpec, on: TimingDevice) -> None:
    """Raise `InputError` if `spec` has dtypes or runtimes that this device, or one another, rule out."""
    for axis, value, requested in (("dtype", "tf32", spec.dtypes), ("runtime", "cudagraph", spec.runtimes)):
        if on.device != "cuda" and value in requested:
            raise InputError(
                f"{axis} '{value}' is for a CUDA GPU, and this is measured on a CPU: leave it out"
            )
    axes = latency_axes(spec, on)
    for runtime in spec.runtimes:
        for axis, value in RUNTIMES[runtime].only.items():
            others = [other for other in axes[axis] if other != value]
            if others:
                raise InputError(
                    f"runtime '{runtime}' is for {axis} '{value}', not '{others[0]}': leave one of them out"
                )
        RUNTIMES[runtime].require(on.device)


def measure_latencies(
    networks: Mapping[Key, Build],
    baseline: Key,
    baseline_build: Build,
    protocol: LatencyProtocol,
    resolution: int,
    on_progress: Progress = lambda key, spent: None,
    free: Callable[[str], int | None] = free_memory,
    keep: KeptRounds[Key] | None = None,
) -> Iterator[tuple[Key, Latency | Failure]]:
    """Time `networks` together with the plain network `baseline`, which may be one of them, under `protocol`.

    Each is yielded as soon as it is precise enough; one that can't be built, runs out of memory or fails is
    yielded as a `Failure`, and the others continue. At most 64 networks are on the device together, with the
    baseline throughout, as long as they leave half of the initially free memory; the rest follow in further
    rounds. Images (batch_size, 3, resolution, resolution) are made on the device beforehand.

    Rounds are saved in `keep` as they are measured, and resume from those that it holds: its networks come
    first, as a separate group.

    If the protocol's baseline is deployed, batch normalisations are folded in every network
    (`wnexplore.models.deploy`); if its allocator is settled, this process's stays so.

    A network that loses the GPU's context is yielded as a `Failure`; the others are not yielded, and
    `ContextLostError` is raised: they can be timed in another process.
    """
    begun = () if keep is None else tuple(key for key in keep.keys if key in networks)
    waiting = deque(dict.fromkeys((*begun, *networks)))
    with threads_set(protocol.threads), precision_set(protocol.dtype):
        bench = _Bench(protocol, resolution)
        at_start = free(protocol.device)
        if waiting:
            on_progress(waiting[0], 0.0)
        plain = bench.ready(baseline_build)
        if isinstance(plain, Failure) and plain.context_lost:
            # If the plain network isn't requested, its failure is that of all networks compared with it.
            yield from [(baseline, plain)] if baseline in networks else [(key, plain) for key in networks]
            raise ContextLostError(baseline, plain)
        while waiting:
            residents: dict[Key, _Ready] = {}
            while waiting and len(residents) < MAX_RESIDENT:
                if begun and waiting[0] not in begun:
                    break
                left = free(protocol.device)
                if residents and at_start is not None and left is not None and left < at_start / 2:
                    break
                key = waiting.popleft()
                on_progress(key, 0.0)
                ready = plain if key == baseline else _uncompared(plain) or bench.ready(networks[key])
                if isinstance(ready, _Ready):
                    residents[key] = ready
                elif ready.status == "out_of_memory" and residents:
                    # It may fit once the others are freed.
                    waiting.appendleft(key)
                    break
                else:
                    yield key, ready
                    if ready.context_lost:
                        raise ContextLostError(key, ready)
            if isinstance(plain, _Ready):
                wanted = tuple(residents)
                resume = bool(begun)
                if keep is not None and wanted:
                    keep.begin(wanted, resume=resume)
                yield from bench.time(
                    {baseline: plain, **residents}, baseline, wanted, on_progress, keep, resume=resume
                )
            begun = ()
            residents.clear()
            bench.release()
        del plain
        bench.release()
        if protocol.runtime == "compile":
            torch.compiler.reset()


@dataclass
class _Ready:
    """A network on the device after warm-up."""

    work: TimedPass
    sampler: Sampler
    peak_memory: int | None
    energy_j: float | None


def _uncompared(plain: _Ready | Failure) -> Failure | None:
    """The failure of all networks if the plain network can't be timed; None if it can."""
    if isinstance(plain, _Ready):
        return None
    return Failure(plain.status, f"the plain baseline failed: {plain.error}")


class _Bench:
    """Prepares networks and times them, all by one protocol and on images of one size."""

    def __init__(self, protocol: LatencyProtocol, resolution: int) -> None:
        self._protocol, self._resolution = protocol, resolution
        if protocol.allocator == "settled":
            settle()
        yield_to_others(at_once=True)
        self._images: Tensor | None = None
        self._flush: Step | None = None

    def ready(self, build: Build) -> _Ready | Failure:
        """The network from `build`, on the device and warmed up; or why it can't be timed."""
        protocol = self._protocol
        try:
            work = self._work(build())
            if protocol.cache == "cold" and self._flush is None:
                self._flush = flusher(protocol.device)
            before = before_sample(work.run, protocol.device, protocol.cache, self._flush)
            sample = sampler(work.run, protocol.device, before)
            warm_up(sample, protocol.seconds / 4)
            return _Ready(
                work,
                sample,
                work.recorded_peak
                if work.step is None
                else peak_memory(work.step, protocol.device, work.held()),
                energy_per_image(work.run, protocol.batch_size) if protocol.device == "cuda" else None,
            )
        except NETWORK_ERRORS as error:
            failure = Failure.of(error)
        # Only here, outside the handler, are its tensors freed.
        self.release()
        return failure

    def time(
        self,
        residents: Mapping[Key, _Ready],
        baseline: Key,
        wanted: tuple[Key, ...],
        on_progress: Progress,
        keep: KeptRounds[Key] | None,
        *,
        resume: bool,
    ) -> Iterator[tuple[Key, Latency | Failure]]:
        """Time those `wanted` of `residents` in rounds; with `resume` resume from the rounds in `keep`."""
        protocol = self._protocol
        watch = Watch(protocol.device, protocol.threads)

        def after_round(at: Round[Key]) -> None:
            watch.look()
            yield_to_others()
            on_progress(at.active[0], at.spent)

        rounds = time_in_rounds(
            {key: ready.sampler for key, ready in residents.items()},
            baseline,
            wanted,
            target=protocol.target,
            # The budget covers all networks that started together.
            seconds=protocol.seconds * (keep.together if keep is not None and resume else len(wanted)),
            on_round=after_round,
            kept=keep.rounds if keep is not None and resume else (),
            on_raw_round=(lambda taken: None) if keep is None else keep.add,
        )
        for key, timing in rounds:
            yield key, timing if isinstance(timing, Failure) else self._latency(timing, residents[key], watch)

    def release(self) -> None:
        """Free the memory of unreferenced tensors."""
        release_memory(self._protocol.device)

    def _work(self, network: nn.Module) -> TimedPass:
        protocol = self._protocol
        dtype, layout = DTYPES[protocol.dtype], MEMORY_FORMATS[protocol.memory_format]
        if self._images is None:
            size = (protocol.batch_size, 3, self._resolution, self._resolution)
            images = torch.randn(size, device=protocol.device, dtype=dtype)
            self._images = images.contiguous(memory_format=layout)
        place(network, protocol.device, dtype, layout)
        if protocol.baseline == "deployed" and protocol.mode == "inference":
            deploy(network, self._images[:1])
        return make_pass(network, self._images, protocol.mode, protocol.runtime)

    def _latency(self, timing: Timing, ready: _Ready, watch: Watch) -> Latency:
        protocol = self._protocol
        return Latency(
            samples_ms=timing.samples_ms,
            baseline_ms=timing.baseline_ms,
            stopped_by=timing.stopped_by,
            peak_memory_mb=None if ready.peak_memory is None else ready.peak_memory / 1e6,
            compile_s=ready.work.prepared_s,
            energy_j=ready.energy_j,
            warnings=warnings_of(timing, protocol.target, watch.conditions()),
            seconds=timing.seconds,
            readings=watch.readings(),
        )
