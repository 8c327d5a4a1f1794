"""Timing in rounds: every network once per round, in a newly shuffled order, each beside the baseline."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from wnexplore.measure.failure import NETWORK_ERRORS, ContextLostError, Failure
from wnexplore.measure.statistics import bootstrap_interval, median_interval, ratios

Sampler = Callable[[], float]
"""Runs one pass and returns its milliseconds."""

Clock = Callable[[], float]
"""Seconds from an arbitrary origin."""

StoppedBy = Literal["target", "budget"]

AT_ONCE = 16
"""Networks timed beside one pass of the baseline: with more, the machine's speed may change in between."""

MIN_ROUNDS = 10
"""Of every measurement, whatever its budget."""
MIN_SETTLED = 20
"""Rounds before which a narrow interval isn't trusted."""
MAX_ROUNDS = 2000

WARM_UP_MIN = 3
WARM_UP_MAX = 50
WARM_UP_SETTLED = 0.05

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Timing:
    """The samples of one network, in milliseconds, in the order of their rounds.

    The baseline, which is in every part of a round, has several of a round.
    """

    samples_ms: list[float] = field(default_factory=list)
    baseline_ms: list[float] | None = None
    """The baseline's samples of the same parts of rounds; None if this is the baseline."""
    seconds: list[float] = field(default_factory=list)
    """When each sample's round was over, in seconds of the rounds: one number for all networks of a round."""
    stopped_by: StoppedBy = "budget"

    def add(self, sample_ms: float, baseline_ms: float, seconds: float) -> None:
        """Add one sample."""
        self.samples_ms.append(sample_ms)
        self.seconds.append(seconds)
        if self.baseline_ms is not None:
            self.baseline_ms.append(baseline_ms)

    @property
    def deciding(self) -> list[float]:
        """The samples that the target refers to: ratios within rounds; for the baseline itself, its times."""
        return self.samples_ms if self.baseline_ms is None else ratios(self.samples_ms, self.baseline_ms)


@dataclass(frozen=True)
class Round(Generic[Key]):
    """The progress of the rounds: the spent share of the time budget, and which networks continue."""

    spent: float
    active: tuple[Key, ...]


@dataclass(frozen=True)
class RawRound(Generic[Key]):
    """The raw times of one round: all that is needed to resume after it in another process."""

    seconds: float
    """Seconds of the time budget spent at its end."""
    parts: tuple[Mapping[Key, float | None], ...]
    """Milliseconds by network, the baseline in each part; None for those that failed."""


def warm_up(sampler: Sampler, seconds: float, clock: Clock = time.perf_counter) -> int:
    """Run passes until their running median settles, or for `seconds`; returns how many it took.

    Settled means that the median of the last 5 passes is within 5 % of that of the 5 before. At least 3
    passes, however long they take, and at most 50.
    """
    end = clock() + seconds
    taken: list[float] = []
    while len(taken) < WARM_UP_MAX:
        taken.append(sampler())
        if len(taken) >= 10:
            before, last = _middle(taken[-10:-5]), _middle(taken[-5:])
            if abs(last - before) <= WARM_UP_SETTLED * before:
                break
        if len(taken) >= WARM_UP_MIN and clock() >= end:
            break
    return len(taken)


def time_in_rounds(
    samplers: Mapping[Key, Sampler],
    baseline: Key,
    wanted: tuple[Key, ...],
    *,
    target: float,
    seconds: float,
    clock: Clock = time.perf_counter,
    on_round: Callable[[Round[Key]], None] = lambda at: None,
    kept: Sequence[RawRound[Key]] = (),
    on_raw_round: Callable[[RawRound[Key]], None] = lambda taken: None,
) -> Iterator[tuple[Key, Timing | Failure]]:
    """Time the `wanted` of `samplers` round by round; each is yielded as soon as it is done.

    In each round the networks are dealt anew to parts of at most 16, and the baseline is timed in each part,
    wanted or not. So all networks are timed in the same minutes, whatever the machine's speed is in these,
    and each is compared with a baseline that is seconds away at most.

    A network is done, and leaves the rounds, when the 95 % interval of its latency ratio (the baseline: of
    its latency) has a relative half-width under `target` at two checks in a row, or when `seconds` are over
    or 2000 rounds done. At least 10 rounds in any case, 20 to stop early. A sampler that raises is a
    `Failure`; if the baseline fails, all fail. `on_round` is called after every round.

    `on_raw_round` is called first with each round's raw times. Those of an interrupted run are `kept` of the
    next one: these rounds are not run again, and are evaluated as before; neither callback is called for
    them.

    One that loses the GPU's context ends the round, and no other network has failed: raises
    `ContextLostError` once its `Failure` is yielded. If it is a baseline that isn't wanted, all fail, as
    nothing can be compared with it.
    """
    timings = {key: Timing(baseline_ms=None if key == baseline else []) for key in wanted}
    next_check = MIN_SETTLED
    narrow: set[Key] = set()
    rounds = 0
    begun = clock()
    while timings:
        keys = tuple(dict.fromkeys((*timings, baseline)))
        again = _replayed(kept[rounds], keys, baseline) if rounds < len(kept) else None
        parts: list[dict[Key, float | Failure]] = []
        if again is None:
            kept = ()
            # Numbered dice: those of a resumed run fall as they would have fallen.
            for dealt in _deal(keys, baseline, random.Random(rounds)):
                parts.append(_one_part({key: samplers[key] for key in dealt}))
                if _fails(parts[-1], baseline):
                    break
            elapsed = clock() - begun
        else:
            parts, elapsed = again, kept[rounds].seconds
            begun = clock() - elapsed
        failures = {
            key: sample for part in parts for key, sample in part.items() if isinstance(sample, Failure)
        }
        lost = next((key for key, failure in failures.items() if failure.context_lost), None)
        if lost is not None:
            for key in (lost,) if lost in wanted else tuple(timings):
                if key in timings:
                    yield key, failures[lost]
            raise ContextLostError(lost, failures[lost])
        if baseline in failures:
            yield from ((key, failures[baseline]) for key in timings)
            return
        if again is None:
            on_raw_round(RawRound(elapsed, tuple(_raw(part) for part in parts)))
        for part in parts:
            plain = part[baseline]
            for key, sample in part.items():
                if key in timings and not isinstance(sample, Failure) and not isinstance(plain, Failure):
                    timings[key].add(sample, plain, elapsed)
        for key in [key for key in timings if key in failures]:
            del timings[key]
            yield key, failures[key]
        rounds += 1
        spent = elapsed / seconds
        if timings and again is None:
            on_round(Round(min(spent, 1.0), tuple(timings)))
        if rounds >= MAX_ROUNDS or (rounds >= MIN_ROUNDS and spent >= 1):
            break
        if rounds >= next_check:
            # Each check of the interval takes time from the passes.
            next_check = rounds + max(5, rounds // 8)
            # Stopping at the first narrow interval would select intervals that are narrow by chance.
            narrow_before, narrow = narrow, {key for key in timings if _is_narrow(timings[key], target)}
            for key in [key for key in timings if key in narrow & narrow_before]:
                timings[key].stopped_by = "target"
                yield key, timings.pop(key)
    for key, timing in timings.items():
        timing.stopped_by = "target" if rounds >= MIN_SETTLED and _is_narrow(timing, target) else "budget"
        yield key, timing


def _replayed(
    kept: RawRound[Key], keys: tuple[Key, ...], baseline: Key
) -> list[dict[Key, float | Failure]] | None:
    """The parts of a kept round, `keys` alone; None if it lacks one and must be run again."""
    parts: list[dict[Key, float | Failure]] = [
        {key: sample for key, sample in part.items() if key in keys and sample is not None}
        for part in kept.parts
    ]
    found = {key for part in parts for key in part}
    return parts if found >= set(keys) and all(baseline in part for part in parts) else None


def _deal(keys: tuple[Key, ...], baseline: Key, dice: random.Random) -> list[list[Key]]:
    """The networks of each part of a round, in order."""
    others = [key for key in keys if key != baseline]
    dice.shuffle(others)
    number = max(1, math.ceil(len(others) / AT_ONCE))
    parts = [[baseline, *others[at::number]] for at in range(number)]
    for part in parts:
        dice.shuffle(part)
    return parts


def _one_part(samplers: Mapping[Key, Sampler]) -> dict[Key, float | Failure]:
    taken: dict[Key, float | Failure] = {}
    for key, sampler in samplers.items():
        try:
            taken[key] = sampler()
        except NETWORK_ERRORS as error:
            taken[key] = failure = Failure.of(error)
            if failure.context_lost:
                # The next networks would fail too, through no fault of their own.
                break
    return taken


def _fails(part: Mapping[Key, float | Failure], baseline: Key) -> bool:
    """Whether a part leaves nothing to go on for."""
    lost = any(isinstance(sample, Failure) and sample.context_lost for sample in part.values())
    return lost or isinstance(part[baseline], Failure)


def _raw(part: Mapping[Key, float | Failure]) -> dict[Key, float | None]:
    return {key: None if isinstance(sample, Failure) else sample for key, sample in part.items()}


def _is_narrow(timing: Timing, target: float) -> bool:
    deciding = timing.deciding
    # The order statistics are cheap and show when the bootstrap is worth computing.
    return (
        median_interval(deciding).half_width < 1.25 * target
        and bootstrap_interval(deciding).half_width < target
    )


def _middle(five: list[float]) -> float:
    return sorted(five)[2]
