"""What a trained detector's test owes to the statistics of its batch normalisations.

    python -m tests.benchmarks.batch_statistics CHECKPOINT [--data scenes:4x1000] [--batches 4 50]

Tests the checkpoint with its own statistics, which are means over training batches, with those of the test
batches themselves, and with mean and variance over the pixels of all training images together, gathered in
batches of several sizes. Where batches are small and each image has kernels of its own, these differ (Wu and
Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3). Prints AP and AP50 in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.data import Data, load_data
from wnexplore.data.detection import DetectionSplit
from wnexplore.models.detector import Detector
from wnexplore.training.average_precision import evaluate_detector
from wnexplore.training.checkpoint import open_checkpoint

IMAGES = 512
"""Training images from which statistics are gathered, as a training's tests do."""


def main() -> None:
    """Print a line for each choice of statistics."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    options.add_argument("--data", default="scenes:4x1000")
    options.add_argument("--batches", nargs="+", type=int, default=[4, 50], help="images of a batch")
    asked = options.parse_args()
    detector = open_checkpoint(asked.checkpoint).network
    assert isinstance(detector, Detector)
    data = load_data(asked.data, resolution=int(max(detector.transform.min_size)))
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    print(f"its own statistics: {_tested(detector, data, 100)}", flush=True)
    for size in asked.batches:
        with _of_batches(norms):
            print(f"those of each test batch of {size}: {_tested(detector, data, size)}", flush=True)
    for size in asked.batches:
        for norm, (mean, variance) in _gathered(detector, norms, data, size).items():
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
        print(f"over all images, in batches of {size}: {_tested(detector, data, 100)}", flush=True)


def _tested(detector: Detector, data: Data, batch_size: int) -> str:
    assert isinstance(data.test, DetectionSplit)
    found = evaluate_detector(detector, data.test, batch_size, "cpu").figures
    return f"AP {found['ap']:.2f} %, AP50 {found['ap50']:.2f} %"


@contextmanager
def _of_batches(norms: list[nn.BatchNorm2d]) -> Iterator[None]:
    """Inside, `norms` normalise by the statistics of each batch, and their own stay as they are."""
    before = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    yield
    for norm, (mean, variance) in zip(norms, before, strict=True):
        norm.running_mean, norm.running_var = mean, variance


def _gathered(
    detector: Detector, norms: list[nn.BatchNorm2d], data: Data, size: int
) -> dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]:
    """Mean and variance of the inputs of each norm over `IMAGES` images, each batch normalised by itself."""
    sums: dict[nn.BatchNorm2d, list[Any]] = {norm: [0, 0, 0] for norm in norms}

    def note(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        sums[norm][0] += x.sum((0, 2, 3))
        sums[norm][1] += (x * x).sum((0, 2, 3))
        sums[norm][2] += x.numel() // x.shape[1]

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    split = data.train
    assert isinstance(split, DetectionSplit)
    count = min(IMAGES, len(split))
    with _of_batches(norms), torch.no_grad():
        for start in range(0, count, size):
            images = [split.pictures[at].float() / 255 for at in range(start, min(start + size, count))]
            detector(torch.stack([detector.transform.normalize(image) for image in images]))
    for hook in hooks:
        hook.remove()
    return {norm: (s / n, q / n - (s / n) ** 2) for norm, (s, q, n) in sums.items() if n}


if __name__ == "__main__":
    main()
