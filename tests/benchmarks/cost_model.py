"""The cost model of `choose`, fitted to what formulations take: python -m tests.benchmarks.cost_model ...

`measure FILE.csv` draws layers of the registered backbones, (M, G), batch sizes, inference and training at
random, times the formulations kernel and shared of each in turns, and adds a row for each to the file. `fit
FILE.csv OTHER.csv [...]` fits the costs of inference and of training to the first file, and prints the regret
of the present and of the fitted costs in the others: the chosen formulation's time over the best one's.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from wnexplore.design.point import DesignPoint
from wnexplore.measure.environment import device_name
from wnexplore.nn.formulations import LayerShape, apply_generated, legal_formulations, stored_by_input
from wnexplore.nn.formulations.choose import INFERENCE, TRAINING, Costs, costs_of, without_costs
from wnexplore.space.skeleton_cache import skeleton_of

NETWORKS = (
    *(("shufflenet_v2_x0_5", "small", 32), ("shufflenet_v2_x0_5", "imagenet", 224)),
    *(("shufflenet_v2_x1_0", "small", 32), ("shufflenet_v2_x1_0", "imagenet", 224)),
    *(("resnet18", "small", 32), ("resnet18", "imagenet", 224), ("resnet50", "imagenet", 224)),
    *(("mobilenet_v2", "small", 32), ("mobilenet_v2", "imagenet", 224)),
)
PAIRS = ((1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2), (4, 4))
BATCHES = (1, 2, 4, 8, 16, 32, 64)
MOST = 3e9
"""Multiply-adds, with those of all terms: larger layers take too long."""
ROUNDS = 25
"""Most rounds of a layer."""
STEPS = 3000
"""Random steps of the search for a smaller regret."""


@dataclass(frozen=True)
class Layer:
    """One layer, images and mode."""

    backbone: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    M: int
    G: int
    batch: int
    height: int
    training: bool

    @property
    def shape(self) -> LayerShape:
        """Its sizes, depthwise ones as published."""
        M, G = (self.M // self.G, 1) if self.groups > 1 else (self.M, self.G)
        size, pad = (self.kernel, self.kernel), (self.kernel // 2, self.kernel // 2)
        steps, channels = (self.stride, self.stride), (self.in_channels, self.out_channels)
        return LayerShape(*channels, size, steps, pad, (1, 1), self.groups, G * self.out_channels, M // G)

    @property
    def pixels(self) -> int:
        """Of an output image."""
        rows, columns = self.shape.output_size(self.height, self.height)
        return rows * columns

    def known(self) -> str | None:
        """The formulation that no cost decides."""
        return without_costs(self.shape, self.batch, self.height, self.height, self.training)

    def chosen(self, costs: Costs | None) -> str:
        """The formulation by `costs`, or by those that `choose` has."""
        found = costs_of(self.shape, self.batch, self.pixels, self.training, costs)
        return self.known() or min(found, key=lambda name: found[name])


def layers(seed: int) -> Iterator[Layer]:
    """Distinct layers, in a random order that `seed` determines, with two formulations to choose from."""
    dice = random.Random(seed)
    seen = set()
    while True:
        backbone, stem, size = dice.choice(NETWORKS)
        plain = DesignPoint.of(backbone, stem=stem, resolution=size)
        site = dice.choice([site for block in skeleton_of(plain).blocks for site in block.sites])
        M, G = dice.choice(PAIRS)
        side = round(math.sqrt(site.pixels))
        stride = dice.choice((1, 1, 2)) if site.kernel_size[0] > 1 else 1
        sizes = (site.in_channels, site.out_channels, site.kernel_size[0], stride, site.groups)
        fan_in = site.in_channels // site.groups * site.kernel_size[0] ** 2
        if site.groups == 1 and fan_in % G:
            continue
        found = Layer(backbone, *sizes, M, G, dice.choice(BATCHES), side * stride, dice.random() < 1 / 3)
        shape = found.shape
        work = found.batch * shape.weights * found.pixels * shape.inputs_per_group
        legal = {"kernel", "shared"} <= set(legal_formulations(shape))
        if legal and work <= MOST and found not in seen:
            seen.add(found)
            yield found


def timed(layer: Layer, seconds: float) -> dict[str, float]:
    """Median milliseconds of each formulation, which take turns."""
    shape = layer.shape
    x = torch.randn(layer.batch, layer.in_channels, layer.height, layer.height)
    alpha = torch.rand(layer.batch, shape.generator_groups * shape.inputs_per_group)
    weight = torch.randn(shape.weights, shape.inputs_per_group)
    if layer.training:
        for tensor in (x, alpha, weight):
            tensor.requires_grad_()
    elif shape.inputs_per_group > 1:
        weight = stored_by_input(weight, shape.generator_groups)  # as a deployed network has it
    steps = {name: _step(name, shape, (x, alpha, weight), layer.training) for name in ("kernel", "shared")}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    end = time.perf_counter() + seconds
    while len(times["kernel"]) < 3 or (time.perf_counter() < end and len(times["kernel"]) < ROUNDS):
        for name in random.sample(list(steps), len(steps)):
            begun = time.perf_counter()
            steps[name]()
            times[name].append((time.perf_counter() - begun) * 1e3)
    return {name: median(taken) for name, taken in times.items()}


def _step(
    name: str, shape: LayerShape, inputs: tuple[Tensor, Tensor, Tensor], training: bool
) -> Callable[[], object]:
    if not training:
        return torch.inference_mode()(lambda: apply_generated(*inputs, shape, name))
    with torch.no_grad():
        gradient = torch.randn_like(apply_generated(*inputs, shape, name))
    return lambda: torch.autograd.grad(apply_generated(*inputs, shape, name), inputs, gradient)


def measure(path: Path, count: int, seed: int, seconds: float) -> None:
    """Add `count` layers to the file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        columns = [*(field.name for field in fields(Layer)), "kernel_ms", "shared_ms", "device", "torch"]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        where = {"device": device_name("cpu"), "torch": torch.__version__}
        for _, layer in zip(range(count), layers(seed), strict=False):
            taken = {f"{name}_ms": ms for name, ms in timed(layer, seconds).items()}
            writer.writerow(asdict(layer) | taken | where)
            file.flush()


Row = tuple[Layer, dict[str, float]]
"""A layer, and the milliseconds of its formulations."""


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    with path.open(newline="") as file:
        return [
            (_layer(row), {n: float(row[f"{n}_ms"]) for n in ("kernel", "shared")})
            for row in csv.DictReader(file)
        ]


def _layer(row: dict[str, str]) -> Layer:
    given: dict[str, Any] = {}
    for field in fields(Layer):
        text = row[field.name]
        given[field.name] = (
            text if field.name == "backbone" else text == "True" if field.name == "training" else int(text)
        )
    return Layer(**given)


def fitted(rows: list[Row], start: Costs) -> Costs:
    """The costs with the smallest regret that are found near those with the smallest robust errors of the
    logarithms of both formulations' times, and of theirs relative to each other.
    """

    def errors(logs: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
        costs = Costs(*np.exp(logs).tolist())
        found = []
        for layer, taken in rows:
            guess = costs_of(layer.shape, layer.batch, layer.pixels, layer.training, costs)
            off = {name: math.log(guess[name] / taken[name]) for name in taken}
            found += [0.3 * off["kernel"], 0.3 * off["shared"], off["kernel"] - off["shared"]]
        return found

    # Costs that were none begin where they could be noticed.
    began = np.log(np.maximum(np.array(astuple(start)), 1e-9))
    best = least_squares(errors, began, loss="soft_l1", f_scale=0.2).x
    dice = np.random.default_rng(0)

    def badness(logs: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        found = regrets(rows, Costs(*np.exp(logs).tolist()))
        return float(np.mean(found) + 0.02 * np.quantile(found, 0.99))

    least = badness(best)
    for step in range(STEPS):
        tried = best + dice.normal(0, 1.0 if step < STEPS / 2 else 0.2, len(best)) * (
            dice.random(len(best)) < 0.3
        )
        if (now := badness(tried)) < least:
            best, least = tried, now
    return Costs(*np.exp(best).tolist())


def regrets(rows: list[Row], costs: Costs | None) -> list[float]:
    """Each chosen formulation's time over the best one's."""
    return [taken[layer.chosen(costs)] / min(taken.values()) for layer, taken in rows]


def main() -> None:
    """Measure or fit."""
    options = argparse.ArgumentParser(description=__doc__)
    actions = options.add_subparsers(dest="action", required=True)
    measuring = actions.add_parser("measure")
    measuring.add_argument("file", type=Path)
    measuring.add_argument("--layers", type=int, default=600)
    measuring.add_argument("--seed", type=int, default=0)
    measuring.add_argument("--seconds", type=float, default=0.2, help="for each layer, beyond three rounds")
    fitting = actions.add_parser("fit")
    fitting.add_argument("files", type=Path, nargs="+")
    requested = options.parse_args()
    if requested.action == "measure":
        measure(requested.file, requested.layers, requested.seed, requested.seconds)
        return
    first, *others = (read(path) for path in requested.files)
    for training, start in ((False, INFERENCE), (True, TRAINING)):
        part = [row for row in first if row[0].training == training and row[0].known() is None]
        if not part:
            continue
        costs = fitted(part, start)
        name = "training" if training else "inference"
        values = ", ".join(f"{name}={value:.3g}" for name, value in asdict(costs).items())
        print(f"{name}, fitted to {len(part)} layers: {values}")
        for path, rows in zip(requested.files[1:], others, strict=True):
            tested = [row for row in rows if row[0].training == training]
            for label, one in (("present", None), ("fitted", costs)) if tested else ():
                print(f"  {path}, {label} costs: {_line(regrets(tested, one))}")


def _line(found: list[float]) -> str:
    return (
        f"{len(found)} layers, regret {np.mean(found) - 1:.1%} in the mean, 99 % up to"
        f" {np.quantile(found, 0.99) - 1:.0%}, {max(found) - 1:.0%} at worst"
    )


if __name__ == "__main__":
    main()
