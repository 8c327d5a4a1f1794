"""Which drawn images let a short training tell designs apart: python -m tests.benchmarks.proxy [--data ...]

Trains the plain network and variants of one width under every given setting (data set, resolution, epochs,
learning rate of kernels), several seeds each. After each setting it prints top-1 and test loss, their paired
differences from plain with 95 % intervals, the CPU seconds of a training with its test, the median of the
test images' losses, and the cosine of the kernels that two images get, mean over pairs and layers. By default
these are 0.5x plain and 8x, 5.7 points apart on ImageNet: the setting is chosen by this pair alone, and all
other designs are measured once, at the setting chosen (the sweep published_ranking, and `wnexplore
published`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from wnexplore.data import Data, load_data
from wnexplore.design.protocol import Recipe
from wnexplore.models import build
from wnexplore.nn.generated import GeneratedConv2d, generated_layers
from wnexplore.results.intervals import paired_interval
from wnexplore.training.accuracy import evaluate
from wnexplore.training.kernel_statistics import activation_vectors, measure_kernels
from wnexplore.training.trainer import Callbacks, Trainer

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "se": {"method": "se"},
    "sk": {"method": "sk"},
    "condconv 2x": {"method": "condconv", "experts": 2},
    "condconv 4x": {"method": "condconv", "experts": 4},
    "1x": {"method": "weightnet", "M": 2, "G": 2},
    "4x": {"method": "weightnet", "M": 8, "G": 2},
    "8x": {"method": "weightnet", "M": 8, "G": 1},
}
FIGURES = ("top1", "test_loss")


def main() -> None:
    """Train all, setting by setting, and print what each tells."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", nargs="+", default=["shapes:20x4000"])
    options.add_argument("--resolutions", nargs="+", type=int, default=[24])
    options.add_argument("--epochs", nargs="+", type=int, default=[4])
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--kernel-lr", nargs="+", type=float, default=[Recipe().kernel_lr])
    options.add_argument("--backbone", default="shufflenet_v2_x0_5")
    options.add_argument("--variants", nargs="+", default=["8x"], choices=list(VARIANTS))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--jobs", type=int, default=1, help="trainings at once, of one thread each")
    options.add_argument("--out", type=Path, help="CSV of all trainings")
    asked = options.parse_args()
    names = tuple(dict.fromkeys(["plain", *asked.variants]))
    seeds = _count(asked.seeds, "seed")
    print(f"torch {torch.__version__}, {asked.backbone}, batch {asked.batch_size}, {seeds}")
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), partial(torch.set_num_threads, 1)) as pool:
        settings = product(asked.data, asked.resolutions, asked.epochs, asked.kernel_lr)
        for data, resolution, epochs, kernel_lr in settings:
            recipe = Recipe(epochs=epochs, batch_size=asked.batch_size, kernel_lr=kernel_lr)
            setting = {"data": data, "resolution": resolution, "epochs": epochs, "kernel_lr": kernel_lr}
            train = partial(_train, asked.backbone, data, resolution, recipe)
            # A seed of all variants before the next: what is there when it is stopped can be compared.
            tasks = [(name, seed) for seed in range(asked.seeds) for name in names]
            found = []
            for row in pool.map(train, *zip(*tasks, strict=True)):
                found.append(row)
                rows.append(setting | row)
                if asked.out is not None:
                    pd.DataFrame(rows).to_csv(asked.out, index=False)
            print(f"{data}, {resolution} px, {_count(epochs, 'epoch')}, kernel_lr {kernel_lr:g}")
            for line in lines(found, names):
                print(f"  {line}", flush=True)


def lines(trained: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """A line per variant: its means, its paired differences from plain, and a training's CPU seconds."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in trained:
        by_name.setdefault(row["variant"], []).append(row)
    plain = by_name["plain"]
    found = []
    for name in names:
        means = {
            figure: fmean(row[figure] for row in by_name[name])
            for figure in (*FIGURES, "loss", "cpu_seconds")
        }
        line = f"{name}: top-1 {means['top1']:.1f} %, test loss {means['test_loss']:.3f}"
        median = fmean(row["test_loss_median"] for row in by_name[name])
        line += f" (median {median:.3f}, training {means['loss']:.3f}), {means['cpu_seconds']:.0f} s"
        cosines = [row["cosine"] for row in by_name[name] if row["cosine"] is not None]
        line += f"; kernels' cosine {fmean(cosines):.4f}" if cosines else ""
        for figure in () if name == "plain" else FIGURES:
            differences = [a[figure] - b[figure] for a, b in zip(by_name[name], plain, strict=True)]
            line += f"; {figure} - plain's {fmean(differences):+.3f}{_bounds(differences)}"
        found.append(line)
    return found


def _bounds(differences: list[float]) -> str:
    interval = paired_interval(differences)
    return "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@lru_cache(maxsize=1)
def _data(name: str, resolution: int) -> Data:
    return load_data(name, resolution=resolution)


def _train(
    backbone: str, source: str, resolution: int, recipe: Recipe, variant: str, seed: int
) -> dict[str, Any]:
    """The figures of one training."""
    data = _data(source, resolution)
    began = process_time()
    axes: dict[str, Any] = {"stem": "small", "resolution": resolution, "num_classes": data.num_classes}

    def make() -> nn.Module:
        network: nn.Module = build(backbone, **VARIANTS[variant], **axes)
        return network

    trainer = Trainer(make, data, recipe, seed=seed, device="cpu", test_every=recipe.epochs or 1)
    tested = _Tested(trainer, data)
    trainer.advance(trainer.epochs, tested)
    return {
        "variant": variant,
        "seed": seed,
        "top1": trainer.figure.score,
        "test_loss": tested.loss,
        "test_loss_median": tested.median,
        "cosine": tested.cosine,
        "loss": trainer.figure.losses[-1],
        "seconds": trainer.figure.seconds,
        "cpu_seconds": process_time() - began,
    }


class _Tested(Callbacks):
    """The test's losses, and how alike the kernels of its images are."""

    def __init__(self, trainer: Trainer, data: Data) -> None:
        self._trainer, self._data = trainer, data
        self.loss = self.median = float("nan")
        self.cosine: float | None = None

    def on_test(self) -> None:
        """Test once more, for what the trainer doesn't keep."""
        network = self._trainer.training.network
        self.loss = evaluate(network, self._data.test, 256, "cpu").loss
        network.eval()
        with torch.inference_mode():
            losses = [
                functional.cross_entropy(network(images), labels, reduction="none")
                for images, labels in self._data.test.batches(256, "cpu")
            ]
        self.median = float(torch.cat(losses).median())
        if any(isinstance(module, GeneratedConv2d) for module in network.modules()):
            layers = generated_layers(network)
            seen = activation_vectors(network, self._data.test.batches(256, "cpu"))
            found = [
                float(measure_kernels(name, layers[name], alpha, seen.labels).cosines.mean())
                for name, alpha in seen.alphas.items()
            ]
            self.cosine = fmean(found)


if __name__ == "__main__":
    main()
