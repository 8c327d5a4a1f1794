"""The rounds by scripted samples and a clock that only they move."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from wnexplore.measure.failure import ContextLostError, Failure
from wnexplore.measure.rounds import (
    AT_ONCE,
    MAX_ROUNDS,
    MIN_ROUNDS,
    MIN_SETTLED,
    WARM_UP_MAX,
    RawRound,
    Round,
    Timing,
    time_in_rounds,
    warm_up,
)


class Bench:
    """Networks whose passes take what a script says, on a clock that stands still in between."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.order: list[str] = []

    def clock(self) -> float:
        return self.seconds

    def network(self, name: str, script: Callable[[float], float]) -> Callable[[], float]:
        """A sampler; `script` gives the milliseconds of a pass that begins at that second."""

        def sample() -> float:
            self.order.append(name)
            taken = script(self.seconds)
            self.seconds += taken / 1000
            return taken

        return sample

    def run(
        self, scripts: dict[str, Callable[[float], float]], wanted: tuple[str, ...], **options: float
    ) -> dict[str, Timing | Failure]:
        """All that the rounds yield, by name, in the order they yield it."""
        samplers = {name: self.network(name, script) for name, script in scripts.items()}
        requested = {"target": 0.01, "seconds": 10.0} | options
        found = time_in_rounds(samplers, "plain", wanted, clock=self.clock, **requested)  # type: ignore[arg-type]
        return dict(found)


def _noise(mean: float, sigma: float, seed: int) -> Callable[[float], float]:
    dice = np.random.default_rng(seed)
    return lambda now: float(mean * dice.lognormal(sigma=sigma))


def _ok(outcome: Timing | Failure) -> Timing:
    assert isinstance(outcome, Timing)
    return outcome


def test_every_network_is_timed_once_a_round_in_an_order_that_changes() -> None:
    bench = Bench()
    names = ("plain", "a", "b", "c")
    scripts = {name: _noise(10, 0.5, seed) for seed, name in enumerate(names)}
    bench.run(scripts, names, seconds=4.0, target=1e-6)
    rounds = [tuple(bench.order[i : i + 4]) for i in range(0, len(bench.order), 4)]
    assert len(rounds) > 50
    assert all(sorted(one) == sorted(names) for one in rounds)
    for place in range(4):
        seen = [one[place] for one in rounds]
        assert all(seen.count(name) > len(rounds) / 8 for name in names), "each network at each place"
    assert len(set(rounds)) > 12


def test_many_networks_are_timed_a_few_at_a_time_each_beside_the_baseline() -> None:
    names = [f"n{number}" for number in range(40)]
    bench, rounds = Bench(), list[RawRound[str]]()

    # The machine halves its speed now and then, within rounds: a round takes longer than half a second.
    def slowed(mean: float, seed: int) -> Callable[[float], float]:
        noise = _noise(mean, 0.001, seed)
        return lambda now: noise(now) * (1 if int(now / 0.7) % 2 else 2)

    samplers = {name: bench.network(name, slowed(12.0 + at, at)) for at, name in enumerate(names)}
    samplers["plain"] = bench.network("plain", slowed(10.0, 40))
    found = dict(
        time_in_rounds(
            samplers,
            "plain",
            tuple(names),
            target=1e-9,
            seconds=60.0,
            clock=bench.clock,
            on_raw_round=rounds.append,
        )
    )
    for taken in rounds:
        assert [len(part) for part in taken.parts] == [15, 14, 14]
        assert all("plain" in part and len(part) <= AT_ONCE + 1 for part in taken.parts)
        assert sorted(name for part in taken.parts for name in part if name != "plain") == sorted(names)
    beside = {frozenset(part) for taken in rounds for part in taken.parts if "n0" in part}
    assert len(beside) == len(rounds), "always beside others"
    for at, name in enumerate(names):
        timing = _ok(found[name])
        assert np.median(timing.deciding) == pytest.approx(1.2 + at / 10, rel=0.003)
        # What else they share: the same rounds, from the first to the last.
        assert len(timing.samples_ms) == len(rounds)
        own = [part for taken in rounds for part in taken.parts if name in part]
        assert timing.samples_ms == [part[name] for part in own]
        assert timing.baseline_ms == [part["plain"] for part in own]
        assert timing.seconds == [taken.seconds for taken in rounds]


LOST = "CUDA error: device-side assert triggered"


@pytest.mark.parametrize(
    ("culprit", "wanted", "message"),
    [
        ("a", ("plain", "a", "b", "c"), ["a"]),
        ("b", ("a", "b", "c"), ["b"]),
        ("plain", ("plain", "a", "b", "c"), ["plain"]),
        ("plain", ("a", "b", "c"), ["a", "b", "c"]),
    ],
)
def test_who_loses_the_context_is_the_only_one_that_failed(
    culprit: str, wanted: tuple[str, ...], message: list[str]
) -> None:
    bench = Bench()

    def lose(now: float) -> float:
        if now > 0.2:
            raise RuntimeError(LOST)
        return 10.0

    scripts = {name: lose if name == culprit else _noise(10, 0.01, 1) for name in ("plain", "a", "b", "c")}
    samplers = {name: bench.network(name, script) for name, script in scripts.items()}
    rounds = time_in_rounds(samplers, "plain", wanted, target=1e-9, seconds=10.0, clock=bench.clock)
    found = list(islice(rounds, len(message)))
    assert [name for name, _ in found] == message
    assert all(isinstance(outcome, Failure) and outcome.context_lost for _, outcome in found)
    with pytest.raises(ContextLostError, match=rf"\b{culprit}\b.*device-side assert"):
        next(rounds)
    assert bench.order[-1] == culprit, "nobody comes after it"


def test_samples_of_the_same_round_stand_at_the_same_place() -> None:
    bench = Bench()
    # The machine becomes slower and slower; each network takes its multiple of that.
    outcomes = bench.run(
        {"plain": lambda now: 10 * 1.02**now, "a": lambda now: 20 * 1.02**now},
        ("plain", "a"),
        seconds=50.0,
        target=1e-9,
    )
    a, plain = _ok(outcomes["a"]), _ok(outcomes["plain"])
    assert a.baseline_ms == plain.samples_ms
    assert max(plain.samples_ms) > 2 * min(plain.samples_ms)
    assert np.median(a.deciding) == pytest.approx(2.0, rel=1e-3)
    assert plain.baseline_ms is None
    assert plain.deciding == plain.samples_ms


def test_a_quiet_network_is_done_early_and_leaves_the_rounds_to_the_noisy_one() -> None:
    bench = Bench()
    scripts = {"plain": _noise(10, 0.001, 1), "quiet": _noise(10, 0.001, 2), "noisy": _noise(10, 0.1, 3)}
    outcomes = bench.run(scripts, ("quiet", "noisy"), seconds=60.0)
    assert list(outcomes) == ["quiet", "noisy"]
    quiet, noisy = _ok(outcomes["quiet"]), _ok(outcomes["noisy"])
    assert MIN_SETTLED < len(quiet.samples_ms) <= MIN_SETTLED + 5, "the first two looks"
    assert quiet.stopped_by == noisy.stopped_by == "target"
    assert len(noisy.samples_ms) > 10 * MIN_SETTLED
    assert bench.order.count("quiet") == len(quiet.samples_ms)
    assert bench.order.count("plain") == len(noisy.samples_ms), "the baseline is in every round"


@pytest.mark.parametrize(
    ("target", "sigma"),
    # The nearer the target and the larger the noise, the more rounds.
    [(0.03, 0.04), (0.03, 0.08), (0.01, 0.04), pytest.param(0.01, 0.08, marks=pytest.mark.slow)],
)
def test_what_stopped_at_the_target_is_as_near_the_truth_as_it_says(target: float, sigma: float) -> None:
    within = 0
    for seed in range(20):
        scripts = {"plain": _noise(10, sigma, 2 * seed), "a": _noise(15, sigma, 2 * seed + 1)}
        timing = _ok(Bench().run(scripts, ("a",), target=target, seconds=1e3)["a"])
        assert timing.stopped_by == "target"
        within += bool(abs(np.median(timing.deciding) / 1.5 - 1) <= target)
    # 95 of 100 by the interval's own word; stopping when it looks narrow costs a little.
    assert within >= 0.8 * 20


def test_the_budget_ends_what_does_not_settle() -> None:
    bench = Bench()
    outcome = _ok(bench.run({"plain": _noise(10, 1, 0), "a": _noise(10, 1, 1)}, ("a",), seconds=2.0)["a"])
    assert outcome.stopped_by == "budget"
    assert 2.0 <= bench.seconds < 2.5


def test_rounds_are_bounded_from_below_and_above() -> None:
    slow = {"plain": _noise(1e4, 0.1, 0), "a": _noise(1e4, 0.1, 1)}
    assert len(_ok(Bench().run(slow, ("a",), seconds=0.001)["a"]).samples_ms) == MIN_ROUNDS
    endless = {"plain": _noise(1e-3, 2, 0), "a": _noise(1e-3, 2, 1)}
    assert len(_ok(Bench().run(endless, ("a",), seconds=1e6)["a"]).samples_ms) == MAX_ROUNDS


def test_the_last_look_says_what_is_true_at_the_end() -> None:
    # Settled when the budget ends, though no look in between came to tell.
    outcome = Bench().run({"plain": lambda now: 10.0, "a": lambda now: 20.0}, ("a",), seconds=0.7)["a"]
    assert len(_ok(outcome).samples_ms) >= MIN_SETTLED
    assert _ok(outcome).stopped_by == "target"


def _fails_at(second: float) -> Callable[[float], float]:
    def script(now: float) -> float:
        if now >= second:
            raise torch.OutOfMemoryError("no room")
        return 10.0

    return script


def test_a_network_that_fails_leaves_the_others_to_continue() -> None:
    scripts = {"plain": _noise(10, 0.5, 0), "bad": _fails_at(0.2), "good": _noise(10, 0.5, 1)}
    outcomes = Bench().run(scripts, ("bad", "good"), seconds=2.0)
    assert outcomes["bad"] == Failure("out_of_memory", "OutOfMemoryError: no room")
    assert len(_ok(outcomes["good"]).samples_ms) > 50


def test_a_network_that_leaves_the_process_is_a_failure_like_others() -> None:
    def leaves(now: float) -> float:
        if now >= 0.2:
            raise SystemExit(0)
        return 10.0

    outcomes = Bench().run({"plain": _noise(10, 0.5, 0), "bad": leaves}, ("bad",), seconds=1.0)
    assert outcomes["bad"] == Failure("failed", "SystemExit: 0")


def test_without_its_baseline_no_network_has_a_figure() -> None:
    scripts = {"plain": _fails_at(0.2), "a": _noise(10, 0.5, 0), "b": _noise(10, 0.5, 1)}
    outcomes = Bench().run(scripts, ("a", "b"), seconds=2.0)
    assert set(outcomes.values()) == {Failure("out_of_memory", "OutOfMemoryError: no room")}


def test_each_round_is_reported_with_the_budget_spent() -> None:
    message: list[Round[str]] = []
    bench = Bench()
    samplers = {name: bench.network(name, lambda now: 10 + now) for name in ("plain", "a")}
    list(
        time_in_rounds(
            samplers, "plain", ("a",), target=1e-9, seconds=0.5, clock=bench.clock, on_round=message.append
        )
    )
    assert [at.spent for at in message] == sorted(at.spent for at in message)
    assert message[0].spent == pytest.approx(0.04, rel=0.01)
    assert message[-1].spent == 1.0
    assert {at.active for at in message} == {("a",)}
    assert 2 * len(message) == len(bench.order)


@given(kept=st.integers(0, 120), target=st.sampled_from([0.02, 1e-9]), recorded=st.booleans())
@examples(12)
def test_rounds_kept_and_resumed_from_are_those_of_an_unbroken_run(
    kept: int, target: float, recorded: bool
) -> None:
    sigmas = {"plain": 0.02, "a": 0.02, "b": 0.1, "c": 0.3}

    def timed(
        before: list[RawRound[str]], wanted: tuple[str, ...]
    ) -> tuple[dict[str, tuple[int, Timing | Failure]], list[RawRound[str]], list[str]]:
        """What is found, after how many rounds of all; the rounds that were run; all passes."""
        bench, message = Bench(), list[RawRound[str]]()

        def network(name: str, sigma: float) -> Callable[[], float]:
            # Each network takes the same in the same round, whoever is beside it.
            passes = iter(range(len(before), 10000))
            return bench.network(
                name, lambda now: 10 * random.Random(f"{name} {next(passes)}").lognormvariate(0, sigma)
            )

        rounds = time_in_rounds(
            {name: network(name, sigma) for name, sigma in sigmas.items()},
            "plain",
            wanted,
            target=target,
            seconds=4.0,
            clock=bench.clock,
            kept=before,
            on_raw_round=message.append,
        )
        found = {name: (len(before) + len(message), outcome) for name, outcome in rounds}
        return found, message, bench.order

    full, rounds, passes = timed([], tuple(sigmas))
    kept = min(kept, len(rounds))
    wanted = tuple(name for name in sigmas if not (recorded and full[name][0] <= kept))
    resumed, rest, passes_after = timed(rounds[:kept], wanted)
    assert resumed.keys() == set(wanted)
    for name, (_, outcome) in resumed.items():
        again, before = _ok(outcome), _ok(full[name][1])
        assert again.seconds == pytest.approx(before.seconds), "to the clock's rounding"
        assert replace(again, seconds=[]) == replace(before, seconds=[])
    if wanted:
        assert len(rest) == len(rounds) - kept, "what is kept is not measured again"
    if not recorded:
        assert passes_after == passes[len(passes) - len(passes_after) :], "the same dice"
        assert [raw.parts for raw in rest] == [raw.parts for raw in rounds[kept:]]


def test_a_kept_round_that_lacks_a_network_is_measured() -> None:
    bench = Bench()
    samplers = {name: bench.network(name, lambda now: 10.0) for name in ("plain", "a")}
    full = RawRound[str](0.02, ({"plain": 11.0, "a": 12.0},))
    lacking = RawRound[str](0.04, ({"plain": 11.0, "a": None},))
    rounds = time_in_rounds(
        samplers, "plain", ("a",), target=1e-9, seconds=0.1, clock=bench.clock, kept=[full, lacking, full]
    )
    ((_, timing),) = rounds
    assert _ok(timing).samples_ms == [12.0] + [10.0] * 9


def _scripted(samples: Iterator[float], bench: Bench) -> Callable[[], float]:
    return bench.network("a", lambda now: next(samples))


def test_warm_up_ends_when_the_median_settles() -> None:
    bench = Bench()
    slow_start = iter([100.0] * 7 + [10.0] * 100)
    passes = warm_up(_scripted(slow_start, bench), 60.0, bench.clock)
    # The first five of the last ten passes are steady from the seventeenth on but for two slow ones.
    assert 13 <= passes <= 17


def test_warm_up_of_what_never_settles_is_bounded() -> None:
    bench = Bench()
    dice = random.Random(0)
    growing = iter(range(1, 1000))
    passes = warm_up(_scripted((1.2**n + dice.random() for n in growing), bench), 1e9, bench.clock)
    assert passes == WARM_UP_MAX
    bench = Bench()
    assert warm_up(_scripted(iter([1e4] * 100), bench), 1.0, bench.clock) == 3
