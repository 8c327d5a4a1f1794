"""How long a training waits for its images: `python -m tests.benchmarks.data [DATA...]`.

ShuffleNetV2 0.5x with the small stem, 32 pixels, batches of 32, on a CPU: seconds spent in getting
batches and in the steps between them, over 20 batches. The first batch, for which all images
are drawn or resized, is told apart. The least of three times.
"""

from __future__ import annotations

import sys
from itertools import islice
from time import perf_counter

import torch
from torch import nn

from wnexplore.design.point import DesignPoint
from wnexplore.measure.data import Pass, Split, load_data
from wnexplore.models import build

RESOLUTION, BATCH_SIZE, BATCHES, PASSES = 32, 32, 20, 3


def main() -> None:
    """Print the share of each data set."""
    for text in sys.argv[1:] or ["digits", "shapes"]:
        data = load_data(text, resolution=RESOLUTION)
        point = DesignPoint.of(
            "shufflenet_v2_x0_5", stem="small", resolution=RESOLUTION, num_classes=data.num_classes
        )
        model = build(point)
        began = perf_counter()
        next(iter(data.train.batches(BATCH_SIZE, "cpu", Pass(0, 0))))
        first = perf_counter() - began
        waiting, training = zip(
            *(pass_times(model, data.train, epoch) for epoch in range(PASSES)), strict=True
        )
        wait, train = min(waiting), min(training)
        print(
            f"{data.name}: waiting {1e3 * wait:.2f} ms, training {1e3 * train:.1f} ms a batch:"
            f" {100 * wait / (wait + train):.2f} % waiting; first batch {first:.2f} s;"
            f" {torch.get_num_threads()} threads",
            flush=True,
        )


def pass_times(model: nn.Module, split: Split, epoch: int) -> tuple[float, float]:
    """Seconds a batch spent waiting for it and training on it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, fused=True)
    waiting = training = 0.0
    steps = 0
    began = perf_counter()
    for images, labels in islice(split.batches(BATCH_SIZE, "cpu", Pass(0, epoch)), BATCHES):
        got = perf_counter()
        waiting += got - began
        loss = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
        began = perf_counter()
        training += began - got
    return waiting / steps, training / steps


if __name__ == "__main__":
    main()
