"""Which learning rate suits each method: python -m tests.benchmarks.transfer OUT [--parity factor] ...

Trains the plain network and variants over a grid of learning rates of kernels, factors of 2 apart, several
seeds each, and writes OUT/transfer.csv (a row for each training) and OUT/transfer.png (top-1 and test loss
over the rate). It prints each variant's best rate beside plain's, and its difference from plain at the
default rate. A rate that suits plain should suit all: otherwise their order depends on the rate.

With --parity factor the rates make up for how kernels are made (`lr_parity`), with none they don't, and with
relative each kernel's gradient is scaled to its norm instead (You, Gitman and Ginsburg, Large Batch Training
of Convolutional Networks, 2017, section 4), so that each step changes it by a share set by the rate.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from wnexplore.data import Data, load_data
from wnexplore.design.methods import METHODS
from wnexplore.design.protocol import Recipe
from wnexplore.errors import RunError
from wnexplore.models import build
from wnexplore.nn import MethodConv2d
from wnexplore.results.intervals import t_interval
from wnexplore.training.trainer import Trainer

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "(1, 1)": {"method": "weightnet", "M": 1, "G": 1},
    "(2, 2)": {"method": "weightnet", "M": 2, "G": 2},
    "(2, 1)": {"method": "weightnet", "M": 2, "G": 1},
    "(4, 1)": {"method": "weightnet", "M": 4, "G": 1},
    "(8, 1)": {"method": "weightnet", "M": 8, "G": 1},
    "(16, 1)": {"method": "weightnet", "M": 16, "G": 1},
    "(1/2, 1/4)": {"method": "weightnet", "M": "1/2", "G": "1/4"},
    "(4, 1) tanh": {"method": "weightnet", "M": 4, "G": 1, "activation": "tanh"},
    "(4, 1) softmax": {"method": "weightnet", "M": 4, "G": 1, "activation": "softmax"},
    "(4, 1) identity": {"method": "weightnet", "M": 4, "G": 1, "activation": "identity"},
    "(4, 1) hard sigmoid": {"method": "weightnet", "M": 4, "G": 1, "activation": "hard_sigmoid"},
    "condconv 8": {"method": "condconv", "experts": 8},
    "dynamic 4": {"method": "dynamic", "experts": 4},
    "odconv 4": {"method": "odconv", "experts": 4},
    "sk": {"method": "sk"},
    "se": {"method": "se"},
    "cbam": {"method": "cbam"},
    "gc": {"method": "gc"},
    "eca": {"method": "eca"},
}


@dataclass(frozen=True)
class Setting:
    """What all trainings share."""

    backbone: str
    data: str
    resolution: int
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    parity: str
    weight_decay: float

    def recipe(self, rate: float) -> Recipe:
        """The recipe with kernels at `rate` times the learning rate of the rest."""
        return Recipe.model_validate(
            {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "optimizer": self.optimizer,
                "lr": self.lr,
                "kernel_lr": rate,
                "lr_parity": self.parity == "factor",
                "weight_decay": self.weight_decay,
            }
        )


def main() -> None:
    """Train all, write the table and the figure, print the summary."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path)
    options.add_argument("--parity", choices=("factor", "relative", "none"), default="factor")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options.add_argument("--rates", nargs="+", type=float, default=[3, 6, 12, 24, 48, 96, 192])
    options.add_argument("--default-rate", type=float, default=24, help="at which differences are printed")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--backbone", default="shufflenet_v2_x0_5")
    options.add_argument("--data", default="digits")
    options.add_argument("--resolution", type=int, default=16)
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    options.add_argument("--lr", type=float, default=0.05)
    options.add_argument("--weight-decay", type=float, default=1e-4)
    options.add_argument("--jobs", type=int, default=2)
    asked = options.parse_args()
    fields = Setting.__dataclass_fields__
    setting = Setting(**{name: value for name, value in vars(asked).items() if name in fields})
    asked.out.mkdir(parents=True, exist_ok=True)

    names = dict.fromkeys(["plain", *asked.variants])
    tasks = [(name, rate, seed) for name in names for rate in asked.rates for seed in range(asked.seeds)]
    rows = []
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), _one_thread) as pool:
        for row in pool.map(partial(_train, setting), *zip(*tasks, strict=True), chunksize=1):
            rows.append(row)
            # Kept as they come: all of them take long.
            pd.DataFrame(rows).to_csv(asked.out / "transfer.csv", index=False)
    table = pd.DataFrame(rows)
    _draw(table, setting, asked.out / "transfer.png")
    print(f"torch {torch.__version__}, {asdict(setting)}, {asked.seeds} seeds")
    print(summary(table, asked.default_rate).to_string(index=False))


def summary(table: pd.DataFrame, default_rate: float) -> pd.DataFrame:
    """Each variant's best rates, by mean top-1 and test loss, and its paired differences from plain's."""
    plain = table[table["variant"] == "plain"]
    rows = []
    for variant, part in table.groupby("variant", sort=False):
        row: dict[str, Any] = {"variant": variant}
        for figure, best in (("top1", "idxmax"), ("test_loss", "idxmin")):
            row[f"best rate, {figure}"] = getattr(part.groupby("kernel_lr")[figure].mean(), best)()
            at = part[part["kernel_lr"] == default_rate].set_index("seed")[figure]
            other = plain[plain["kernel_lr"] == default_rate].set_index("seed")[figure]
            row[f"{figure} at {default_rate:g}"] = round(at.mean(), 3)
            if variant != "plain" and len(at) > 1:
                low, high = t_interval(list(at - other))
                row[f"{figure} - plain's"] = f"{(at - other).mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def _one_thread() -> None:
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _data(name: str, resolution: int) -> Data:
    return load_data(name, resolution=resolution)


def _train(setting: Setting, variant: str, rate: float, seed: int) -> dict[str, Any]:
    """The figures of one training; NaN if it diverged."""
    data = _data(setting.data, setting.resolution)
    axes: dict[str, Any] = {
        "stem": "small",
        "resolution": setting.resolution,
        "num_classes": data.num_classes,
    }

    def make() -> nn.Module:
        network: nn.Module = build(setting.backbone, **VARIANTS[variant], **axes)
        if setting.parity == "relative":
            _scale_gradients(network)
        return network

    trainer = Trainer(make, data, setting.recipe(rate), seed=seed, device="cpu", test_every=setting.epochs)
    figure = trainer.figure
    try:
        trainer.advance(setting.epochs)
        figures = {"loss": figure.losses[-1], "test_loss": figure.test_loss, "top1": figure.score}
    except RunError:
        figures = dict.fromkeys(("loss", "test_loss", "top1"), math.nan)
    return {"variant": variant, "kernel_lr": rate, "seed": seed, **figures}


def _scale_gradients(network: nn.Module) -> None:
    """Give the gradient of each kernel and generator's weight the norm of that weight."""
    for module in network.modules():
        if isinstance(module, MethodConv2d):
            weights: list[Tensor] = [made.weight for made in module.kernel_sums()]
        elif isinstance(module, nn.Conv2d):
            weights = [module.weight]
        else:
            continue
        for weight in weights:
            weight.register_post_accumulate_grad_hook(_to_norm_of)


@torch.no_grad()
def _to_norm_of(weight: Tensor) -> None:
    assert weight.grad is not None
    weight.grad.mul_(weight.norm() / weight.grad.norm().clamp(min=1e-12))


def _draw(table: pd.DataFrame, setting: Setting, file: Path) -> None:
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    variants = list(dict.fromkeys(table["variant"]))
    for ax, column, label in zip(
        panels, ("top1", "test_loss"), ("top-1 (%)", "test loss (nats)"), strict=True
    ):
        for number, variant in enumerate(variants):
            means = table[table["variant"] == variant].groupby("kernel_lr")[column].mean()
            look = METHODS["plain"].look if variant == "plain" else None
            colour = look[0] if look else f"C{number % 10}"
            style = ("-", "--", ":")[number // 10]
            width = 2.5 if variant == "plain" else 1.2
            ax.plot(means.index, means, style, color=colour, linewidth=width, marker="o", ms=3, label=variant)
        ax.set_xscale("log", base=2)
        ax.set_xticks(
            sorted(table["kernel_lr"].unique()), [f"{r:g}" for r in sorted(table["kernel_lr"].unique())]
        )
        ax.set_xlabel("learning rate of kernels over that of the rest")
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
    panels[1].legend(fontsize=8, ncols=2)
    length = f"{setting.epochs} epoch{'s' if setting.epochs > 1 else ''} of {setting.data}"
    figure.suptitle(f"{setting.backbone}, {length}, {setting.optimizer}, parity: {setting.parity}")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
