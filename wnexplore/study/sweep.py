"""A sweep: from its design points to records in the store, skipping what is done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wnexplore.design.axes import TIMING_AXES, TIMING_ORDER
from wnexplore.design.external_names import is_external, source_hash
from wnexplore.design.latency_protocol import LatencyProtocol, latency_axes, latency_protocols
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec, TrainSpec
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.design.where import Condition
from wnexplore.errors import InputError
from wnexplore.measure.environment import environment, resolve_device
from wnexplore.measure.latency import check_latency
from wnexplore.measure.memory_fit import check_fits_somewhere, latency_misfit
from wnexplore.measure.thread_waiting import concurrent_trainings
from wnexplore.results.filters import condition, truth
from wnexplore.results.frame import frame
from wnexplore.results.record import Figure, Record, record_key
from wnexplore.results.seeds import Until, verdicts
from wnexplore.results.sequences import MIN_SEEDS
from wnexplore.results.store import Store
from wnexplore.space.expansion import Expansion, expand
from wnexplore.study.executor import Executor, LendExecutor
from wnexplore.study.halving import check_optuna, train_by_halving, variants_of
from wnexplore.study.hardware import HERE, Hardware
from wnexplore.study.local import locally
from wnexplore.study.tasks import CountTask, OnPart, Task, TimingTask, TrainingTask
from wnexplore.training.setup import check_trainable, load, threads_of, training_misfit
from wnexplore.training.starting_weights import start_hash
from wnexplore.training.training_record import training_protocol


@dataclass(frozen=True)
class Measurement:
    """One measurement, which becomes one record."""

    figure: Figure
    point: DesignPoint
    protocol: Mapping[str, Any]
    """Of a latency a `LatencyProtocol`."""

    @cached_property
    def key(self) -> str:
        """The key of its record."""
        return record_key(self.figure, self.point, self.protocol)

    @property
    def timing(self) -> LatencyProtocol:
        """The protocol of a latency."""
        assert isinstance(self.protocol, LatencyProtocol)
        return self.protocol

    def __str__(self) -> str:
        if self.figure == "latency":
            return f"latency, {', '.join(_spoken(self.timing))}"
        if self.figure == "training":
            return f"training on {self.protocol['dataset']}, seed {self.protocol['seed']}"
        return "counting"


@dataclass(frozen=True)
class Plan:
    """The measurements of a sweep, and the points that it leaves out."""

    expansion: Expansion
    measurements: tuple[Measurement, ...]

    @property
    def points(self) -> tuple[DesignPoint, ...]:
        """The points to measure."""
        return self.expansion.points


@dataclass(frozen=True)
class SweepStep:
    """The progress of a sweep, reported before and during each measurement."""

    measurement: Measurement
    done: int
    """Finished measurements of this run."""
    total: int
    part: float = 0.0
    """How much of the current measurements is done: networks are timed together."""


def plan(
    spec: SweepSpec,
    threads: Mapping[DesignPoint, int] = MappingProxyType({}),
    hardware: Hardware = HERE,
    *,
    check_starts: bool = True,
) -> Plan:
    """All measurements of `spec` on `hardware`; `InputError` if its device or data set is missing.

    So it is, with `check_starts`, if the checkpoint is wrong from which a training starts; without, that
    training will fail.
    `threads` maps plain networks to the CPU threads of trainings compared with them; for other networks the
    number depends on their size and on the free cores (`training_threads`).
    """
    expansion = expand(spec)
    check_can_begin(spec, dict.fromkeys(point.baseline() for point in expansion.points), hardware)
    images: str | None = None
    if spec.train is not None:
        for resolution in {point.resolution for point in expansion.points}:
            images = load(spec.train, resolution).listing
    latencies = _latency_protocols(spec.latency, hardware)
    seeds = 0 if spec.train is None else spec.train.most_seeds
    _check_count(len(expansion.points), 1 + len(latencies) + seeds)
    if spec.train is not None and spec.train.target is not None:
        _check_paired(expansion.points)
    sources = {point: _source(point) for point in expansion.points}
    measurements = (
        *(Measurement("complexity", point, source) for point, source in sources.items()),
        *(
            Measurement("latency", point, replace(protocol, **source))
            for protocol in latencies
            for point, source in sources.items()
        ),
        *_trainings(spec.train, sources, threads, images, hardware, check_starts),
    )
    return Plan(expansion, measurements)


def with_added(spec: SweepSpec, planned: Plan, keys: Collection[str]) -> Plan:
    """`planned` with the seeds that were added to its own, those with a record in `keys`."""
    if spec.train is None or spec.train.target is None:
        return planned
    added = [m for m in _all_seeds(spec.train, planned.measurements) if m.key in keys]
    there = {m.key for m in planned.measurements}
    return replace(planned, measurements=(*planned.measurements, *(m for m in added if m.key not in there)))


def _all_seeds(spec: TrainSpec, measurements: Iterable[Measurement]) -> Iterator[Measurement]:
    """Each of the seeds that the trainings of `measurements` may have at most."""
    for first in measurements:
        if first.figure == "training" and first.protocol["seed"] == 0:
            for seed in range(spec.most_seeds):
                yield Measurement("training", first.point, {**first.protocol, "seed": seed})


def _check_paired(points: Collection[DesignPoint]) -> None:
    """Raise `InputError` if a variant has no plain network to be paired with."""
    there = set(points)
    for point in points:
        if point.baseline() not in there:
            raise InputError(
                f"train.target needs the plain network of {point} in the sweep: add method plain, let where"
                " keep it, or leave target out"
            )


def check_sizes(spec: SweepSpec, plan: Plan, todo: Iterable[Measurement]) -> None:
    """Raise `InputError` if a latency of `plan`, or its trainings, can't fit in memory for any point.

    Where some points fit, those that don't become failed records. Finished measurements, which are not in
    `todo`, are not checked: they may be from a larger machine.
    """
    latencies: dict[tuple[Any, ...], list[Measurement]] = {}
    for measurement in plan.measurements:
        latencies.setdefault(_sized(measurement), []).append(measurement)
    requested = {_sized(measurement) for measurement in todo}
    for sizes, group in latencies.items():
        if sizes in requested and group[0].figure == "latency":
            check_fits_somewhere(latency_misfit(m.point, m.timing) for m in group)
    if spec.train is not None and ("training",) in requested:
        train, device = spec.train, resolve_device(spec.train.device)
        check_fits_somewhere(training_misfit(train, point, device) for point in plan.points)


def _sized(measurement: Measurement) -> tuple[Any, ...]:
    """The sizes of a measurement, without the point."""
    if measurement.figure != "latency":
        return (measurement.figure,)
    return "latency", measurement.timing.batch_size, measurement.timing.dtype


def _check_count(points: int, per_point: int) -> None:
    """Raise `InputError` if there are too many measurements: `per_point` for each of `points`."""
    if points * per_point > _MAX:
        raise InputError(f"{points * per_point:,} measurements: expected at most {_MAX:,}")


_MAX = 1_000_000


def check_can_begin(spec: SweepSpec, plains: Iterable[DesignPoint], hardware: Hardware = HERE) -> None:
    """Raise `InputError` if the measurements of `spec` with the plain networks `plains` can't start.

    Checks its device, data set and libraries, and that the plain networks can be trained.
    """
    _latency_protocols(spec.latency, hardware)
    if spec.train is None:
        return
    hardware.resolve(spec.train.device)
    if spec.train.schedule == "halving":
        check_optuna()
    for plain in plains:
        load(spec.train, plain.resolution)
        check_trainable(spec.train, plain)


def remaining(plan: Plan, keys: Mapping[str, str], retry_failed: bool = False) -> list[Measurement]:
    """The measurements of `plan` without a record in `keys` (key -> status)."""
    done = {key for key, status in keys.items() if status == "ok" or not retry_failed}
    # Computing many thousands of keys takes seconds.
    return [m for m in plan.measurements if m.key not in done] if done else list(plan.measurements)


def run(
    spec: SweepSpec,
    todo: list[Measurement],
    store: Store,
    on_step: Callable[[SweepStep], None] = lambda step: None,
    on_record: Callable[[Record], None] = lambda record: None,
    planned: Plan | None = None,
    lend: LendExecutor | None = None,
    together: int | None = None,
) -> list[Record]:
    """Measure `todo`, commit each record to `store` and pass it to `on_record`; returns the failed ones.

    Given the sweep's plan, seeds are added until differences are known, if it has a target. A point is not
    trained if the sweep's `where` fails once its counts and latencies are known. `lend` lends what runs the
    tasks: by default this process, and for trainings others of this machine. `together`: as `measure`. Raises
    `RunError` if a record can't be written.
    """
    failed = []
    wanted = None if spec.where is None else condition(spec.where)
    may_train = (lambda point: True) if wanted is None else partial(_satisfies, wanted, store)
    paused, rounds = store.path.parent / "paused", store.path.parent / "rounds"
    whole = () if planned is None else planned.measurements
    for record in measure(
        spec, todo, on_step, may_train, store.records, paused, rounds, whole, lend, together
    ):
        store.append(record)
        on_record(record)
        if record.status != "ok":
            failed.append(record)
    return failed


def _satisfies(wanted: Condition, store: Store, point: DesignPoint) -> bool:
    """Whether `wanted` may hold for `point` by its counts and latencies, before it is trained."""
    rows = frame(record for record in store.records_of(point) if record.figure != "training")
    return not truth(rows, wanted).fails.all() or len(rows) == 0


def measure(
    spec: SweepSpec,
    todo: Iterable[Measurement],
    on_step: Callable[[SweepStep], None] = lambda step: None,
    may_train: Callable[[DesignPoint], bool] = lambda point: True,
    known: Callable[[], Iterable[Record]] = list,
    paused: Path | None = None,
    rounds: Path | None = None,
    planned: Iterable[Measurement] = (),
    lend: LendExecutor | None = None,
    together: int | None = None,
) -> Iterator[Record]:
    """Yield the record of each measurement of `spec` when it is made: counts, then latencies, then trainings.

    `may_train` is called for each point before any is trained. Successive halving resumes from the earlier
    records that `known` returns, and saves paused trainings in the folder `paused`, which it requires.
    Unfinished latencies are saved in the folder `rounds`, if given, until all of a group are recorded.

    With a target seeds are added to the trainings of `planned`, all measurements of the sweep. At the end
    there is a record of what ended each variant's seeds, also if that was known before.

    Latencies of one protocol are measured in rounds together, or `together` variants at a time and before
    anything else, and trainings concurrently or by halving, so records may come in another order. A
    measurement that runs out of memory or fails becomes a failed record, and the next one follows.
    """
    if lend is None:
        with locally() as lend_here:
            yield from measure(
                spec, todo, on_step, may_train, known, paused, rounds, planned, lend_here, together
            )
        return
    todo = list(todo)
    done = 0
    by_key = {measurement.key: measurement for measurement in todo}

    def on_part(record: Record, part: float) -> None:
        on_step(SweepStep(by_key[record.key], done, len(todo), part))

    trainings = [measurement for measurement in todo if measurement.figure == "training"]
    with lend() as executor:
        for outcome in executor.run(_tasks(todo, rounds, planned, together), on_part):
            yield outcome.record
            done += 1
    allowed = {point: may_train(point) for point in dict.fromkeys(m.point for m in trainings)}
    done += sum(not allowed[measurement.point] for measurement in trainings)
    until = None if spec.train is None else _until(spec.train)
    for record in _train(spec, [m for m in trainings if allowed[m.point]], on_part, known, paused, lend):
        yield record if until is None else _limited(record, until)
        done += 1
    if spec.train is None or until is None:
        return
    possible = {m.key: m for m in _all_seeds(spec.train, planned) if allowed.get(m.point, True)}
    recorded = {record.key: record for record in known() if record.key in possible}
    added = _added(possible, recorded, until)
    if not added:
        yield from _ends(recorded, known, until)
        return
    by_key.update(possible)
    with _lent(lend, spec.train, added) as executor:
        while added:
            todo += added
            for record in _train_in_full(spec.train, added, executor, on_part):
                recorded[record.key] = _limited(record, until)
                yield recorded[record.key]
                done += 1
            added = _added(possible, recorded, until)
    yield from _ends(recorded, known, until)


def _until(spec: TrainSpec) -> Until | None:
    """When to stop adding seeds; None if none is added."""
    return None if spec.target is None else Until(spec.target, spec.seeds, spec.most_seeds, spec.hours)


def _limited(record: Record, until: Until) -> Record:
    """`record` with the limits that its verdict follows from."""
    return replace(record, value={**record.value, **until.to_value()}) if record.status == "ok" else record


def _added(
    possible: Mapping[str, Measurement], recorded: Mapping[str, Record], until: Until
) -> list[Measurement]:
    """The next seed of each variant that is not decided and of its plain network, without those recorded."""
    wanted: dict[tuple[DesignPoint, int], None] = {}
    for verdict in verdicts(recorded.values(), until):
        if verdict.ended_by is None:
            wanted[verdict.plain.point, verdict.seeds] = None
            wanted[verdict.point, verdict.seeds] = None
    by_seed = {(m.point, m.protocol["seed"]): m for key, m in possible.items() if key not in recorded}
    return [by_seed[key] for key in wanted if key in by_seed]


def _ends(
    recorded: Mapping[str, Record], known: Callable[[], Iterable[Record]], until: Until
) -> Iterator[Record]:
    """The records of what ended each variant's seeds that are not known yet."""
    ends = [end for verdict in verdicts(recorded.values(), until) if (end := verdict.record()) is not None]
    there = {record.key for record in known() if record.figure == "seeds"} if ends else set()
    for end in ends:
        if end.key not in there:
            yield replace(end, environment=environment(end.protocol["device"]))


def trainings_left(
    spec: TrainSpec, planned: Plan, todo: Iterable[Measurement], records: Iterable[Record]
) -> tuple[int, int]:
    """The fewest and the most trainings that a sweep still makes: those of `todo`, and the seeds added to
    them and to those of `records`, unless some fail or `where` leaves points out.
    """
    first = {m.key for m in todo if m.figure == "training"}
    least, most, until = set(first), set(first), _until(spec)
    if until is None:
        return len(least), len(most)
    possible: dict[DesignPoint, list[Measurement]] = {}
    for m in _all_seeds(spec, planned.measurements):
        possible.setdefault(m.point, []).append(m)
    keys = {m.key for all_seeds in possible.values() for m in all_seeds}
    recorded = {record.key: record for record in records if record.key in keys}
    reached = {verdict.point: verdict for verdict in verdicts(recorded.values(), until)}
    for point in possible:
        verdict = reached.get(point)
        if point == point.baseline() or (verdict is not None and verdict.ended_by is not None):
            continue
        looked_at = 0 if verdict is None or verdict.seeds < until.seeds else verdict.seeds + 1
        # No difference is known before so many; the budget of hours may end the seeds earlier.
        sure = max(until.seeds, looked_at, MIN_SEEDS if until.hours is None else 0)
        for m in (*possible[point], *possible[point.baseline()]):
            if m.key not in recorded:
                most.add(m.key)
                if m.protocol["seed"] < min(sure, until.max_seeds):
                    least.add(m.key)
    return len(least), len(most)


def _tasks(
    todo: Iterable[Measurement], rounds: Path | None, planned: Iterable[Measurement], together: int | None
) -> list[Task]:
    """Countings, and latencies by what is timed together: of one plain network and protocol, or of each these
    `together` at a time, then first and by turns."""
    groups: dict[Hashable, list[Record]] = {}
    number = _numbered(planned, together) if together is not None else {}
    counts: list[Task] = []
    for measurement in todo:
        record = Record(measurement.figure, measurement.point, measurement.protocol)
        if measurement.figure == "latency":
            of = measurement.point.baseline(), measurement.timing
            groups.setdefault((number.get(measurement.key, 0), *of), []).append(record)
        elif measurement.figure == "complexity":
            counts.append(CountTask(record))
    timings = [TimingTask(tuple(groups[key]), rounds) for key in groups]
    if together is None:
        return [*counts, *timings]
    # How well they predict is known soonest.
    return [*sorted(timings, key=lambda task: number[task.records[0].key]), *counts]


def _numbered(planned: Iterable[Measurement], together: int) -> dict[str, int]:
    """The number of each latency's group: the same whether or not some of it is done."""
    before: Counter[Hashable] = Counter()
    numbers = {}
    for measurement in planned:
        if measurement.figure == "latency":
            of = measurement.point.baseline(), measurement.timing
            numbers[measurement.key] = before[of] // together
            before[of] += measurement.point != measurement.point.baseline()
    return numbers


def _train(
    spec: SweepSpec,
    todo: list[Measurement],
    on_part: OnPart,
    known: Callable[[], Iterable[Record]],
    paused: Path | None,
    lend: LendExecutor,
) -> Iterator[Record]:
    """The records of trainings, each baseline before the points compared with it."""
    if spec.train is None or not todo:
        return
    with _lent(lend, spec.train, todo) as executor:
        if spec.train.schedule == "full":
            yield from _train_in_full(spec.train, todo, executor, on_part)
            return
        keys = {measurement.key for measurement in todo}
        before = {record.key: record for record in known() if record.figure == "training"}
        done = {key: record for key, record in before.items() if key not in keys and record.status == "ok"}
        assert paused is not None
        variants = variants_of([Record("training", m.point, m.protocol) for m in todo], done)
        yield from train_by_halving(spec.train, variants, done, executor, paused, on_part)


def _train_in_full(
    spec: TrainSpec, todo: Iterable[Measurement], executor: Executor, on_part: OnPart
) -> Iterator[Record]:
    """Train by the complete recipe."""
    tasks = [TrainingTask(spec, Record("training", m.point, m.protocol)) for m in todo]
    for outcome in executor.run(tasks, on_part):
        yield outcome.record


def _lent(
    lend: LendExecutor, spec: TrainSpec, todo: Sequence[Measurement]
) -> AbstractContextManager[Executor]:
    """What runs the trainings of `todo`, here as many at once as the cores have room for."""
    device = todo[0].protocol["device"]
    threads = max(measurement.protocol["threads"] or 1 for measurement in todo)
    return lend(_jobs(spec, device, len(todo), threads), device, wait_and_see=spec.jobs == "auto")


def _source(point: DesignPoint) -> dict[str, Any]:
    """The hash of a network's file, which distinguishes its versions; {} without a file."""
    source = source_hash(point.backbone) if is_external(point.backbone) else None
    return {} if source is None else {"source": source}


def _spoken(protocol: LatencyProtocol) -> Iterator[str]:
    """A latency protocol for a progress line, without defaults."""
    for name in TIMING_ORDER:
        axis, value = TIMING_AXES[name], protocol[name]
        if axis.part == "timing" and (axis.always or value != axis.default) and axis.default is not None:
            yield axis.phrase.format(value) if axis.kind == "whole" else str(value)


def _latency_protocols(spec: LatencySpec | None, hardware: Hardware) -> list[LatencyProtocol]:
    """The protocols of `spec` on `hardware`; `InputError` if some can't be measured there."""
    if spec is None:
        return []
    on = hardware.timing(hardware.resolve(spec.device))
    check_latency(spec, on)
    _check_count(1, math.prod(map(len, latency_axes(spec, on).values())))
    return list(latency_protocols(spec, on))


def _trainings(
    spec: TrainSpec | None,
    sources: Mapping[DesignPoint, dict[str, Any]],
    threads: Mapping[DesignPoint, int],
    images: str | None,
    hardware: Hardware,
    check_starts: bool,
) -> Iterator[Measurement]:
    if spec is None:
        return
    device = hardware.resolve(spec.device)
    chosen = dict(threads)
    jobs = _jobs(spec, device, len(sources) * spec.seeds)
    for point, source in sources.items():
        plain = point.baseline()
        if device == "cpu" and plain not in chosen:
            chosen[plain] = min(threads_of(spec, plain, jobs), hardware.most_threads or _MAX)
        shared = training_protocol(spec, device, chosen.get(plain, 1), 0, images) | source
        with nullcontext() if check_starts else suppress(InputError):
            shared |= start_hash(spec.start_from, point)
        for seed in range(spec.seeds):
            yield Measurement("training", point, shared | {"seed": seed})


def _jobs(spec: TrainSpec, device: str, trainings: int, threads: int = 1) -> int:
    """How many of `trainings` with `threads` threads each run at once."""
    if spec.jobs != "auto":
        return spec.jobs
    return concurrent_trainings(trainings, threads) if device == "cpu" else 1
