"""How far one driver goes: python -m tests.benchmarks.scale [--tasks 10000] [--workers 1 2 4 64 512] [--ray]

Three parts, each a line or a table:

- What a task costs beyond the work itself: small networks counted in this process, and by one other process.
- A sweep of so many trainings of a known length over simulated workers. The driver is the real one, with its
  store: what it does takes its time, and waiting for workers is skipped, on a clock that adds up both. The
  time over the ideal, tasks a second that the driver can hand out and store, and its memory.
- With --ray: empty tasks a second on a Ray cluster of this machine, without any driver of ours.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from wnexplore.design.latency_protocol import TimingDevice
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.measure.processor import processor_name
from wnexplore.results.record import Record
from wnexplore.results.store import Store
from wnexplore.study.dispatch import Dispatcher, Fault, Handle, Node, Returned
from wnexplore.study.processes import Processes
from wnexplore.study.tasks import CountTask, Outcome, Task, TrainingTask, perform
from wnexplore.training.training_record import TrainingFigure, trained_record, training_protocol

CPU = TimingDevice("cpu", "simulated", 1)


def main() -> None:
    """Measure what was asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--tasks", type=int, default=10_000)
    options.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 64, 512])
    options.add_argument("--seconds", nargs="+", type=float, default=[2.0, 30.0], help="of a task")
    options.add_argument("--counted", type=int, default=40, help="networks, for the cost of a task")
    options.add_argument("--ray", action="store_true")
    wanted = options.parse_args()
    print(f"{processor_name()}, {os.cpu_count()} cores")
    overhead(wanted.counted)
    print("seconds of a task, workers: time over the ideal; driver busy, tasks a second; memory it took")
    for seconds, workers in itertools.product(wanted.seconds, wanted.workers):
        simulate(wanted.tasks, workers, seconds)
    if wanted.ray:
        empty_ray_tasks(wanted.tasks)


def overhead(count: int) -> None:
    """The cost of a task in another process beside the bare function, in turns."""
    tasks = [
        CountTask(Record("complexity", DesignPoint.of("shufflenet_v2_x0_5", "weightnet", M, G), {}))
        for M, G in itertools.product((1, 2, 4, 8), (1, 2))
    ][:count]
    there = Dispatcher(Processes(1))
    try:
        list(there.run(tasks))
        for task in tasks:
            list(perform(task))
        spent = {"here": 0.0, "there": 0.0}
        for _ in range(max(1, count // len(tasks))):
            begun = time.perf_counter()
            for task in tasks:
                list(perform(task))
            between = time.perf_counter()
            list(there.run(tasks))
            spent["here"] += between - begun
            spent["there"] += time.perf_counter() - between
    finally:
        there.end(kill=True)
    made = max(1, count // len(tasks)) * len(tasks)
    here, away = (1e3 * spent[name] / made for name in ("here", "there"))
    print(
        f"a network is counted in {here:.1f} ms here and {away:.1f} ms in another process: {away / here:.3f}"
    )


class SimulatedWorkers:
    """Nodes of one worker each, on a clock that skips what the driver would wait."""

    def __init__(self, workers: int, seconds: float) -> None:
        self._nodes = [Node(f"worker {n}", f"machine {n}", 1, {"cpu": CPU}) for n in range(workers)]
        self._seconds, self._skipped, self._began = seconds, 0.0, time.perf_counter()
        self._due: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        """Seconds since the start: those that the driver was busy, and those skipped."""
        return time.perf_counter() - self._began + self._skipped

    def nodes(self) -> Sequence[Node]:
        """All workers."""
        return self._nodes

    def share(self, task: Task, node: Node) -> float:
        """All of the worker."""
        return 1.0

    def start(self, task: Task, node: Node) -> Handle:
        """It will be done after the known time."""
        number = next(self._numbers)
        heapq.heappush(self._due, (self.clock() + self._seconds, number, task))
        return number

    def wait(self, seconds: float) -> Iterable[tuple[Handle, Returned | Fault]]:
        """Skip to what ends next."""
        if self._due:
            self._skipped += max(0.0, self._due[0][0] - self.clock())
        while self._due and self._due[0][0] <= self.clock():
            _, number, task = heapq.heappop(self._due)
            yield number, Returned((Outcome(_trained(task.records[0])),))

    def cancel(self, handle: Handle) -> None:
        """Nothing runs."""

    def end(self, *, kill: bool) -> None:
        """Nothing runs."""


def simulate(count: int, workers: int, seconds: float) -> None:
    """Run and store `count` trainings of `seconds` each on simulated workers."""
    spec = TrainSpec(data="digits", device="cpu", epochs=30)
    protocol = training_protocol(spec, "cpu", 1, 0)
    point = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, 2)
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder, Store.create(Path(folder) / "run") as store:
        simulated = SimulatedWorkers(workers, seconds)
        tasks = (
            TrainingTask(spec, Record("training", point, protocol | {"seed": seed})) for seed in range(count)
        )
        begun = time.perf_counter()
        stored = 0
        for outcome in Dispatcher(simulated, clock=simulated.clock).run(tasks):
            store.append(outcome.record)
            stored += 1
        busy, took = time.perf_counter() - begun, simulated.clock()
    assert stored == count
    ideal = math.ceil(count / workers) * seconds
    memory = (psutil.Process().memory_info().rss - before) / 2**20
    rate = f"{busy:.1f} s, {count / busy:.0f} a second; {memory:.0f} MiB"
    print(f"  {seconds:g} s, {workers:3d} workers: {took / ideal:.3f}; {rate}", flush=True)


def _trained(record: Record) -> Record:
    figure = TrainingFigure([1.0] * 30, list(range(1, 31)), [50.0] * 30, [1.0] * 30, 360, 10.0)
    return replace(trained_record(record, figure, {"node": "a"}), environment={"torch": "2"})


def empty_ray_tasks(count: int) -> None:
    """Empty tasks on a cluster of this machine."""
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        empty = ray.remote(num_cpus=1, max_retries=0)(_nothing)
        ray.get([empty.remote() for _ in range(100)])
        begun = time.perf_counter()
        ray.get([empty.remote() for _ in range(count)])
        spent = time.perf_counter() - begun
    finally:
        ray.shutdown()
    print(f"Ray: {count} empty tasks in {spent:.1f} s, {count / spent:.0f} a second")


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
