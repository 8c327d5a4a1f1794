"""What a busy core costs: python -m tests.benchmarks.busy [--rounds 9] [--setting NAME KEY=VALUE ...] ...

Training, evaluation and latency on an idle machine, and while one other program keeps one core busy: as
wnexplore has torch's threads wait for each other ("ours"), and in the ways that OpenMP's settings give. Each
is a process of its own, since torch reads them when it loads, and one for each state of the machine, since a
training chooses its threads when it begins. They take turns in a new order in each round: work of two seconds
in which what is adaptive settles, then one that is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from wnexplore.data import load_data
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.measure.environment import device_name, usable_cores
from wnexplore.measure.thread_waiting import yield_to_others
from wnexplore.measure.torch_settings import threads_set
from wnexplore.models import build
from wnexplore.training.accuracy import evaluate
from wnexplore.training.loop import TrainingLoop
from wnexplore.training.setup import threads_of

SETTINGS: dict[str, dict[str, str]] = {
    "torch's own": {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(usable_cores())},
    "ours": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Name -> environment of the process."""


@dataclass(frozen=True)
class Work:
    """What one process does again and again."""

    kind: str
    """train, evaluate (a folder of images: folder, folder evaluation), infer."""
    method: str
    resolution: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.method}, {self.resolution} px, batch {self.batch_size}"


def main() -> None:
    """Print images a second of each work under each setting, idle and busy."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seconds", type=float, default=1.0, help="of a turn, at least one step")
    options.add_argument("--kinds", nargs="+", default=["train", "evaluate", "infer", "folder"])
    options.add_argument("--methods", nargs="+", default=["plain", "weightnet"])
    options.add_argument("--resolutions", nargs="+", type=int, default=[16, 224])
    options.add_argument("--settings", nargs="+", default=list(SETTINGS))
    options.add_argument("--setting", nargs="+", action="append", default=[], metavar="NAME KEY=VALUE")
    options.add_argument("--looks", type=int, metavar="PAIRS", help="what looking costs an idle machine")
    options.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    requested = options.parse_args()
    if requested.worker:
        kind, method, resolution, batch_size = requested.worker
        _serve(Work(kind, method, int(resolution), int(batch_size)))
        return
    if requested.looks:
        _measure_looks(requested.looks, requested.seconds)
        return
    settings = {name: SETTINGS[name] for name in requested.settings if name in SETTINGS}
    settings |= {name: dict(pair.split("=", 1) for pair in pairs) for name, *pairs in requested.setting}
    print(
        f"{device_name('cpu')}, {usable_cores()} cores, {requested.rounds} rounds of {requested.seconds:g} s",
        flush=True,
    )
    for kind, method, resolution in product(requested.kinds, requested.methods, requested.resolutions):
        _measure(Work(kind, method, resolution, _BATCH[kind, resolution > 64]), settings, requested)


_BATCH = {
    ("train", False): 32,
    ("train", True): 16,
    ("evaluate", False): 64,
    ("evaluate", True): 16,
    ("infer", False): 1,
    ("infer", True): 1,
    ("folder", False): 4,
    ("folder", True): 16,
}


def _measure(work: Work, settings: dict[str, dict[str, str]], requested: argparse.Namespace) -> None:
    rates: dict[tuple[str, bool], list[float]] = defaultdict(list)
    turns = list(product(settings, (False, True)))
    with ExitStack() as stack:
        busy = stack.enter_context(_busy_program())
        run = {turn: stack.enter_context(_process(work, settings[turn[0]])) for turn in turns}
        for number in range(requested.rounds + 1):
            for name, is_busy in random.Random(number).sample(turns, len(turns)):
                os.kill(busy, signal.SIGCONT if is_busy else signal.SIGSTOP)
                rate = run[name, is_busy](requested.seconds)
                if number:  # the first round warms up
                    rates[name, is_busy].append(rate)
    print(work)
    first = next(iter(settings))
    for name in settings:
        idle, under_load = (rates[name, is_busy] for is_busy in (False, True))
        kept = median(loaded / other for loaded, other in zip(under_load, idle, strict=True))
        against = median(rate / other for rate, other in zip(idle, rates[first, False], strict=True))
        print(
            f"  {name:<14} idle {median(idle):8.1f} images/s ({against:.3f} of {first}),"
            f" busy {median(under_load):8.1f} ({kept:.2f} of idle; {min(under_load):.1f} to"
            f" {max(under_load):.1f})",
            flush=True,
        )


def _measure_looks(pairs: int, seconds: float) -> None:
    """Passes a second that look at the load over passes that don't, in turn in one process."""
    network = build("shufflenet_v2_x0_5", "weightnet", M=2, G=2, stem="small", num_classes=10).eval()
    images = torch.randn(1, 3, 16, 16)

    def rate(looks: bool) -> float:
        began, passes = perf_counter(), 0
        with torch.inference_mode():
            while perf_counter() < began + seconds:
                if looks:
                    yield_to_others()
                network(images)
                passes += 1
        return passes / (perf_counter() - began)

    rate(True)
    ratios = sorted(rate(True) / rate(False) for _ in range(pairs))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(f"{device_name('cpu')}: {median(ratios):.3f} of the speed without ({spread})")


@contextmanager
def _busy_program() -> Iterator[int]:
    """Its process id, stopped."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.kill(program.pid, signal.SIGSTOP)
    try:
        yield program.pid
    finally:
        program.kill()
        program.wait()


@contextmanager
def _process(work: Work, environment: dict[str, str]) -> Iterator[Callable[[float], float]]:
    """A process that does `work`: a function from seconds to images a second."""
    given = [work.kind, work.method, str(work.resolution), str(work.batch_size)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.busy", "--worker", *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout
    # What others load would count as load when a training chooses its threads.
    assert answers.readline() == _LOADED

    def run(seconds: float) -> float:
        requests.write(f"{seconds}\n")
        requests.flush()
        return float(json.loads(answers.readline()))

    try:
        yield run
    finally:
        process.kill()
        process.wait()


_LOADED = "loaded\n"
_SETTLE_S = 2.2
"""Of work that isn't timed at the beginning of a turn: the load is looked at once a second, twice in it."""


def _serve(work: Work) -> None:
    """Answer each line of standard input, a number of seconds, with images a second."""
    print(_LOADED, end="", flush=True)
    first = sys.stdin.readline()
    with _step(work) as step:
        for line in chain([first], sys.stdin):
            settled = perf_counter() + _SETTLE_S
            while perf_counter() < settled:
                step()
            began, images, end = perf_counter(), 0, perf_counter() + float(line)
            while not images or perf_counter() < end:
                images += step()
            print(json.dumps(images / (perf_counter() - began)), flush=True)


@contextmanager
def _step(work: Work) -> Iterator[Callable[[], int]]:
    """A function that does a step of `work` and gives the number of its images."""
    torch.manual_seed(0)
    axes: dict[str, Any] = {} if work.method == "plain" else {"M": 2, "G": 2}
    stem = "imagenet" if work.resolution > 64 else "small"
    network = build("shufflenet_v2_x0_5", work.method, stem=stem, num_classes=10, **axes)
    if work.kind == "infer":
        images = torch.randn(work.batch_size, 3, work.resolution, work.resolution)
        network.eval()

        def infer() -> int:
            yield_to_others()
            with torch.inference_mode():
                network(images)
            return work.batch_size

        yield infer
        return
    with tempfile.TemporaryDirectory() as path:
        source = "digits"
        if work.kind == "folder":
            _draw(Path(path), work.resolution)
            source = f"folder:{path}"
        data = load_data(source, resolution=work.resolution)
        if work.kind == "evaluate":
            test = data.test

            def tested() -> int:
                evaluate(network, test, work.batch_size, "cpu")
                return len(test)

            yield tested
            return
        spec = TrainSpec(data=source, batch_size=work.batch_size, epochs=10_000)
        training = TrainingLoop(network, data.train, spec.recipe, seed=0, device="cpu")
        steps = training.steps_per_epoch if work.kind == "folder" else 1

        def trained() -> int:
            for _ in training.losses(training.step + steps):
                pass
            return steps * work.batch_size

        plain = DesignPoint.of("shufflenet_v2_x0_5", stem=stem, resolution=work.resolution, num_classes=10)
        with threads_set(threads_of(spec, plain)):
            yield trained


def _draw(path: Path, size: int) -> None:
    """Two classes of noise, 96 images for training and 16 for testing each."""
    numbers = np.random.default_rng(0)
    for part, count in (("train", 96), ("val", 16)):
        for name, number in product(("a", "b"), range(count)):
            folder = path / part / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = numbers.integers(0, 256, (size + 32, size + 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")


if __name__ == "__main__":
    main()
