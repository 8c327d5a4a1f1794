"""A sweep: from its design points to records in the store, skipping what is done."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec, TrainSpec
from wnexplore.design.record import Figure, Record, Status, record_key
from wnexplore.design.space import expand
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.measure.complexity import measure_complexity
from wnexplore.measure.data import Data, load_data
from wnexplore.measure.environment import device_name, environment, resolve_device
from wnexplore.measure.latency import measure_latency, threads_set
from wnexplore.measure.training import train
from wnexplore.models import build
from wnexplore.store import Store


@dataclass(frozen=True)
class Measurement:
    """One thing to measure: it becomes one record."""

    figure: Figure
    point: DesignPoint
    protocol: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of the record that it becomes."""
        return record_key(self.figure, self.point, self.protocol)

    def __str__(self) -> str:
        if self.figure == "latency":
            return f"latency, {self.protocol['dtype']}, batch {self.protocol['batch_size']}"
        if self.figure == "training":
            return f"training on {self.protocol['dataset']}, seed {self.protocol['seed']}"
        return "counting"


@dataclass(frozen=True)
class Plan:
    """What a sweep is to measure, variant by variant, and the points that it skips as illegal."""

    points: tuple[DesignPoint, ...]
    measurements: tuple[Measurement, ...]
    skipped: tuple[tuple[DesignPoint, str], ...]


@dataclass(frozen=True)
class Step:
    """Where a running sweep stands, told before each measurement."""

    measurement: Measurement
    done: int
    """Measurements of this run behind this one."""
    total: int
    part: float = 0.0
    """How much of this one is done, where that is known."""


def plan(spec: SweepSpec) -> Plan:
    """Everything that `spec` asks for; `InputError` if its device or data set is not there."""
    space = expand(spec)
    if spec.train is not None:
        for resolution in {point.resolution for point in space.points}:
            _data(spec.train, resolution)
    figures: dict[Figure, list[dict[str, Any]]] = {
        "complexity": [{}],
        "latency": list(_latency_protocols(spec.latency)),
        "training": list(_training_protocols(spec.train)),
    }
    measurements = [
        Measurement(figure, point, protocol)
        for point in space.points
        for figure, protocols in figures.items()
        for protocol in protocols
    ]
    # A batch size written twice is measured once.
    once = {measurement.key: measurement for measurement in measurements}
    return Plan(space.points, tuple(once.values()), space.skipped)


def remaining(plan: Plan, keys: Mapping[str, str], retry_failed: bool = False) -> list[Measurement]:
    """The measurements of `plan` that no record in `keys` (key -> status) stands for yet."""
    done = {key for key, status in keys.items() if status == "ok" or not retry_failed}
    return [m for m in plan.measurements if m.key not in done]


def run(
    spec: SweepSpec,
    todo: list[Measurement],
    store: Store,
    on_step: Callable[[Step], None] = lambda step: None,
) -> list[Record]:
    """Measure `todo` one by one, each record committed to `store` as it is made; the failed ones.

    Raises `RunError` if a record can't be written.
    """
    failed = []
    for record in measure(spec, todo, on_step):
        store.append(record)
        if record.status != "ok":
            failed.append(record)
    return failed


def measure(
    spec: SweepSpec,
    todo: Iterable[Measurement],
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[Record]:
    """The record of each measurement of `spec`, one by one.

    A measurement that runs out of memory or fails becomes a record that says so, and the next follows.
    """
    bench = _Bench(spec)
    todo = list(todo)
    for done, measurement in enumerate(todo):
        step = Step(measurement, done, len(todo))
        on_step(step)
        yield bench.measure(measurement, lambda part, step=step: on_step(replace(step, part=part)))  # type: ignore[misc]


class _Bench:
    """Takes measurements, keeping the networks of the point at hand from one to the next."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._networks: dict[tuple[DesignPoint, str], torch.nn.Module] = {}

    def measure(self, measurement: Measurement, on_part: Callable[[float], None]) -> Record:
        """The record of one measurement; `on_part` is told how much of a training is done."""
        record = Record(measurement.figure, measurement.point, measurement.protocol)
        self._keep_only(record)
        try:
            if record.figure == "complexity":
                return self._count(record)
            if record.figure == "latency":
                return self._time(record)
            return self._train(record, on_part)
        except Exception as error:
            told = " ".join(str(error).split())
            failed = replace(
                record,
                status=_failure(error),
                error=f"{type(error).__name__}: {told}" if told else type(error).__name__,
                environment=environment(record.protocol.get("device", "cpu")),
            )
        # Only here, out of the error's reach, do its tensors go.
        self._networks.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return failed

    def _keep_only(self, record: Record) -> None:
        """Forget the networks that this measurement doesn't read, so that they take no memory from it."""
        points = () if record.figure == "training" else (record.point, record.point.baseline())
        dtype = record.protocol.get("dtype", "float32")
        wanted = {(point, dtype) for point in points}
        self._networks = {key: network for key, network in self._networks.items() if key in wanted}

    def _count(self, record: Record) -> Record:
        complexity = measure_complexity(self._network(record.point, "float32"), record.point.resolution)
        return replace(record, value=complexity.to_dict(), environment=environment("cpu"))

    def _time(self, record: Record) -> Record:
        protocol, point = record.protocol, record.point
        plain = point.baseline()
        latency = measure_latency(
            self._network(point, protocol["dtype"]),
            None if point == plain else self._network(plain, protocol["dtype"]),
            resolution=point.resolution,
            batch_size=protocol["batch_size"],
            dtype=protocol["dtype"],
            device=protocol["device"],
            threads=protocol["threads"],
            seconds=protocol["seconds"],
        )
        with threads_set(protocol["threads"]):
            surroundings = environment(protocol["device"])
        value, samples = latency.to_dict(), latency.samples()
        return replace(record, value=value, samples=samples, environment=surroundings)

    def _train(self, record: Record, on_part: Callable[[float], None]) -> Record:
        spec, point = self._spec.train, record.point
        assert spec is not None
        data = _data(spec, point.resolution)
        network = replace(point, num_classes=data.num_classes)
        surroundings: dict[str, Any] = {}

        def make() -> torch.nn.Module:
            # Called with the switches set as the training has them.
            surroundings.update(environment(record.protocol["device"]))
            return build(network)

        figure = train(
            make,
            data,
            spec.recipe,
            seed=record.protocol["seed"],
            device=record.protocol["device"],
            progress=lambda step, steps: on_part(step / steps),
        )
        value = {"top1": figure.top1, "seconds": figure.seconds}
        return replace(record, value=value, samples={"loss": figure.losses}, environment=surroundings)

    def _network(self, point: DesignPoint, dtype: str) -> torch.nn.Module:
        if (point, dtype) not in self._networks:
            self._networks[point, dtype] = build(point)
        return self._networks[point, dtype]


def _latency_protocols(spec: LatencySpec | None) -> Iterator[dict[str, Any]]:
    if spec is None:
        return
    device = resolve_device(spec.device)
    for dtype in spec.dtypes:
        for batch_size in spec.batch_sizes:
            yield {
                "device": device,
                "device_name": device_name(device),
                "dtype": dtype,
                "batch_size": batch_size,
                "runtime": "eager",
                "threads": (spec.threads or torch.get_num_threads()) if device == "cpu" else None,
                "seconds": spec.seconds,
            }


def _training_protocols(spec: TrainSpec | None) -> Iterator[dict[str, Any]]:
    if spec is None:
        return
    device = resolve_device(spec.device)
    common = {
        "dataset": spec.data,
        "path": None if spec.path is None else str(spec.path.resolve()),
        "device": device,
        # The order of additions, and with it the last bits, follow the number of threads.
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "batch_norm": "refreshed",
        **spec.recipe.model_dump(),
    }
    for seed in range(spec.seeds):
        yield {**common, "seed": seed}


_DATA: dict[tuple[str, int, Path | None], Data] = {}


def _data(spec: TrainSpec, resolution: int) -> Data:
    key = (spec.data, resolution, spec.path)
    if key not in _DATA:
        _DATA[key] = load_data(spec.data, resolution=resolution, path=spec.path)
    return _DATA[key]


def _failure(error: Exception) -> Status:
    told = str(error)
    # The CPU's allocator and the CUDA libraries report it as a RuntimeError of their own.
    signs = ("DefaultCPUAllocator", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
    out = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in told for sign in signs)
    return "out_of_memory" if out else "failed"
