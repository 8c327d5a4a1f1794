"""Timing in rounds: every network and the baseline once per round, in a newly shuffled order."""

from __future__ import annotations

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
    """The samples of one network, in milliseconds, in the order of their rounds."""

    samples_ms: list[float] = field(default_factory=list)
    baseline_ms: list[float] | None = None
    """The baseline's samples of the same rounds; None if this is the baseline."""
    stopped_by: StoppedBy = "budget"

    def add(self, sample_ms: float, baseline_ms: float) -> None:
        """Add one round."""
        self.samples_ms.append(sample_ms)
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
    samples_ms: Mapping[Key, float | None]
    """Milliseconds by network; None for those that failed."""
    size: int
    """How many networks took part, including those no longer requested."""


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
    dice: random.Random | None = None,
    on_round: Callable[[Round[Key]], None] = lambda at: None,
    kept: Sequence[RawRound[Key]] = (),
    on_raw_round: Callable[[RawRound[Key]], None] = lambda taken: None,
) -> Iterator[tuple[Key, Timing | Failure]]:
    """Time the `wanted` of `samplers` round by round; each is yielded as soon as it is done.

    A network is done, and leaves the rounds, when the 95 % interval of its latency ratio (the baseline: of
    its latency) has a relative half-width under `target` at two checks in a row, or when `seconds` are over
    or 2000 rounds done. At least 10 rounds in any case, 20 to stop early. The baseline takes part in every
    round, wanted or not. A sampler that raises is a `Failure`; if the baseline fails, all fail. `on_round` is
    called after every round.

    `on_raw_round` is called first with each round's raw times. Those of an interrupted run are `kept` of the
    next one: these rounds are not run again, and are evaluated as before; neither callback is called for
    them.

    One that loses the GPU's context ends the round, and no other network has failed: raises
    `ContextLostError` once its `Failure` is yielded. If it is a baseline that isn't wanted, all fail, as
    nothing can be compared with it.
    """
    dice = dice or random.Random(0)
    timings = {key: Timing(baseline_ms=None if key == baseline else []) for key in wanted}
    next_check = MIN_SETTLED
    narrow: set[Key] = set()
    rounds = 0
    begun = clock()
    while timings:
        keys = tuple(dict.fromkeys((*timings, baseline)))
        again = _replayed(kept[rounds], keys) if rounds < len(kept) else None
        taken: Mapping[Key, float | Failure]
        if again is None:
            kept = ()
            taken = _one_round({key: samplers[key] for key in keys}, dice)
            elapsed = clock() - begun
        else:
            taken, elapsed = again, kept[rounds].seconds
            begun = clock() - elapsed
            # Restores the state of the shuffling.
            dice.shuffle(list(range(kept[rounds].size)))
        lost = next((key for key, sample in taken.items() if _is_lost(sample)), None)
        if lost is not None:
            failure = taken[lost]
            assert isinstance(failure, Failure)
            for key in (lost,) if lost in wanted else tuple(timings):
                if key in timings:
                    yield key, failure
            raise ContextLostError(lost, failure)
        if again is None and not isinstance(taken[baseline], Failure):
            samples = {key: None if isinstance(sample, Failure) else sample for key, sample in taken.items()}
            on_raw_round(RawRound(elapsed, samples, len(samples)))
        for key in list(timings):
            sample, plain = taken[key], taken[baseline]
            if isinstance(plain, Failure) or isinstance(sample, Failure):
                del timings[key]
                yield key, plain if isinstance(plain, Failure) else sample  # type: ignore[misc]
            else:
                timings[key].add(sample, plain)
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


def _replayed(kept: RawRound[Key], keys: tuple[Key, ...]) -> dict[Key, float | Failure] | None:
    """The samples of `keys` in a kept round; None if it lacks one and must be run again."""
    found = {key: sample for key in keys if (sample := kept.samples_ms.get(key)) is not None}
    return {**found} if len(found) == len(keys) else None


def _one_round(samplers: Mapping[Key, Sampler], dice: random.Random) -> dict[Key, float | Failure]:
    order = list(samplers)
    dice.shuffle(order)
    taken: dict[Key, float | Failure] = {}
    for key in order:
        try:
            taken[key] = samplers[key]()
        except NETWORK_ERRORS as error:
            taken[key] = failure = Failure.of(error)
            if failure.context_lost:
                # The next networks would fail too, through no fault of their own.
                break
    return taken


def _is_lost(outcome: float | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.context_lost


def _is_narrow(timing: Timing, target: float) -> bool:
    deciding = timing.deciding
    # The order statistics are cheap and show when the bootstrap is worth computing.
    return (
        median_interval(deciding).half_width < 1.25 * target
        and bootstrap_interval(deciding).half_width < target
    )


def _middle(five: list[float]) -> float:
    return sorted(five)[2]
