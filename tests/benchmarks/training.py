"""What a training costs: python -m tests.benchmarks.training [--device cpu] [--quick] [--rounds 12] ...

First, on a CPU, the images a second of trainings with one thread each, one and two at once, and how long the
tests after each epoch of digits take beside it (--quick: only that, of fewer). Then, in one process, round by
round: epochs of our loop and of a bare loop over the same batches with the same
step in it, and the share of our time spent waiting for the next batch; then a whole training step of
WeightNet beside the plain network's in interleaved rounds, with the peak memory of both.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wnexplore.data import EpochPass, Split, load_data
from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import Recipe
from wnexplore.measure.environment import device_name, resolve_device
from wnexplore.measure.failure import Failure
from wnexplore.measure.latency import measure_latencies
from wnexplore.measure.statistics import bootstrap_interval
from wnexplore.models import build
from wnexplore.training.accuracy import evaluate, ready_for_test
from wnexplore.training.loop import TrainingLoop
from wnexplore.training.optimizer import make_optimizer

BACKBONE, RESOLUTION = "shufflenet_v2_x0_5", 32


def main() -> None:
    """Print both parts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="auto")
    options.add_argument("--data", nargs="+", default=["digits", "shapes"])
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--quick", action="store_true", help="only images a second, batches of 64")
    options.add_argument("--rate-seconds", type=float, default=2.0, help="for images a second of each")
    options.add_argument("--resolutions", nargs="+", type=int, default=[16, 24, 32], help="of the same")
    options.add_argument("--steps", type=int, default=20, help="of a round")
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--seconds", type=float, default=20.0, help="for each step timed")
    requested = options.parse_args()
    device = resolve_device(requested.device)
    print(f"{device_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads, {BACKBONE}")
    if device == "cpu":
        _rates(requested)
    if requested.quick:
        return
    for name in requested.data:
        for method in ("plain", "weightnet"):
            _loops(name, method, requested, device)
    _steps(requested, device)


def _rates(requested: argparse.Namespace) -> None:
    """Images a second of each network, resolution and batch size, one and two at once."""
    print("network, px, batch: images/s of 1, of 2 at once, and their ratio; test / epoch (digits)")
    with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        list(pool.map(_rate, [("plain", 16, 64, 0.1)] * 2))
        for resolution, batch in product(requested.resolutions, (64,) if requested.quick else (32, 64, 128)):
            for method in ("plain", "weightnet"):
                asked = method, resolution, batch, requested.rate_seconds
                alone, test = pool.submit(_rate, asked).result()
                both = sum(rate for rate, _ in pool.map(_rate, [asked] * 2))
                name = f"{'plain' if method == 'plain' else '(2, 2)':6} {resolution} {batch:3}"
                print(f"{name}: {alone:6.0f} {both:6.0f}  x{both / alone:.2f}  {test:.2f}", flush=True)


def _rate(asked: tuple[str, int, int, float]) -> tuple[float, float]:
    """Images a second in steps, and the time of a test over that of an epoch's steps."""
    method, resolution, batch, seconds = asked
    data, recipe = load_data("digits", resolution=resolution), Recipe(batch_size=batch, epochs=1000)
    axes: dict[str, Any] = {} if method == "plain" else {"M": 2, "G": 2}
    torch.manual_seed(0)
    network = build(DesignPoint.of(BACKBONE, method, stem="small", num_classes=10, **axes))
    training = TrainingLoop(network, data.train, recipe, seed=0, device="cpu")
    _run_ours(training, 3)
    began, steps = perf_counter(), 0
    while (passed := perf_counter() - began) < seconds:
        _run_ours(training, 5)
        steps += 5
    rate, began = steps * batch / passed, perf_counter()
    with ready_for_test(network, data.train, recipe, seed=0, device="cpu"):
        evaluate(network, data.test, batch, "cpu")
    return rate, (perf_counter() - began) / (len(data.train) / rate)


def _loops(name: str, method: str, requested: argparse.Namespace, device: str) -> None:
    """Our loop over a bare one, and what it waits for its data."""
    data = load_data(name, resolution=RESOLUTION)
    watched = _Watched(data.train)
    recipe = Recipe(batch_size=requested.batch_size, epochs=1000)
    torch.manual_seed(0)
    network = build(BACKBONE, method, stem="small", num_classes=data.num_classes)
    ours = TrainingLoop(copy.deepcopy(network), watched, recipe, seed=0, device=device)
    bare = _bare(copy.deepcopy(network).to(device).train(), data.train, recipe, device)
    ratios, share = [], []
    for number in range(requested.rounds + 1):
        loops = [partial(_run_ours, ours, requested.steps), partial(_run_bare, bare, requested.steps)]
        watched.waited = 0.0
        taken: dict[int, float] = {}
        # Who is first changes, so that what comes after the other is nobody's advantage.
        for which in (0, 1) if number % 2 else (1, 0):
            began = perf_counter()
            loops[which]()
            if device == "cuda":
                torch.cuda.synchronize()
            taken[which] = perf_counter() - began
        if number:  # the first round warms up
            ratios.append(taken[0] / taken[1])
            share.append(watched.waited / taken[0])
    ratio, waited = bootstrap_interval(ratios), bootstrap_interval(share)
    print(
        f"{name}, {method}: our loop over a bare one {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}],"
        f" waiting for data {100 * waited.median:.2f} % of it, batch {requested.batch_size}"
    )


class _Watched:
    """A split that notes how long its next batch was waited for."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self._split)

    @property
    def damaged(self) -> tuple[str, ...]:
        return self._split.damaged

    @property
    def why_damaged(self) -> Mapping[str, str]:
        return self._split.why_damaged

    def batches_per_pass(self, batch_size: int) -> int:
        return self._split.batches_per_pass(batch_size)

    def batches(self, *given: Any, **named: Any) -> Iterator[Any]:
        batches = self._split.batches(*given, **named)
        while True:
            began = perf_counter()
            batch = next(batches, None)
            self.waited += perf_counter() - began
            if batch is None:
                return
            yield batch


def _run_ours(training: TrainingLoop, steps: int) -> None:
    for _ in training.losses(training.step + steps):
        pass


def _bare(network: nn.Module, split: Split, recipe: Recipe, device: str) -> Iterator[None]:
    """One step of the same training each time it is asked, and nothing else."""
    optimizer = make_optimizer(network, recipe)
    epoch = 0
    while True:
        for images, labels in split.batches(recipe.batch_size, device, EpochPass(0, epoch)):
            loss = functional.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield
        epoch += 1


def _run_bare(bare: Iterator[None], steps: int) -> None:
    for _ in range(steps):
        next(bare)


def _steps(requested: argparse.Namespace, device: str) -> None:
    """Whole training steps of WeightNet and of the plain network, and their peak memory."""
    points = [DesignPoint.of(BACKBONE, method, stem="small", **axes) for method, axes in _VARIANTS]
    plain = points[0]
    protocol = LatencyProtocol(
        device=device,
        device_name=device_name(device),
        dtype="float32",
        batch_size=requested.batch_size,
        mode="train",
        seconds=requested.seconds,
    )
    found = measure_latencies(
        {point: partial(build, point) for point in points}, plain, partial(build, plain), protocol, RESOLUTION
    )
    for point, latency in found:
        if isinstance(latency, Failure):
            print(f"{point}: {latency.error}")
            continue
        message = latency.to_dict()
        print(
            f"{point}: step {message['latency_ms']:.1f} ms, x{message['latency_ratio']:.3f}"
            f" [{message['latency_ratio_low']:.3f}, {message['latency_ratio_high']:.3f}],"
            f" peak memory {message['peak_memory_mb']:.1f} MB"
        )


_VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("weightnet", {"M": 1, "G": 1}),
    ("weightnet", {"M": 2, "G": 2}),
    ("weightnet", {"M": 4, "G": 1}),
    ("weightnet", {"M": 8, "G": 2}),
)


if __name__ == "__main__":
    main()
