"""Full trainings of small networks, and how a test breaks one off."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from tests.commands import Running
from tests.training import odd_networks
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.training.full_training import TrainRun
from wnexplore.training.log import Row, read_log

NETWORK = """\
from torch import nn


def make(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )


def without_memory(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""


def a_run(network: Path, out: Path, *, log_every: int = 1, save_every: int = 3, **recipe: Any) -> TrainRun:
    """A run of weightnet in the network `make` of the file `network`."""
    point = DesignPoint.of(f"{network}:make", "weightnet", M=2, G=1, resolution=16)
    spec = TrainSpec(**{"data": "digits", "device": "cpu", "epochs": 2, "batch_size": 256, **recipe})
    return TrainRun(point, spec, out, log_every=log_every, save_every=save_every)


def odd_run(name: str, out: Path, **recipe: Any) -> TrainRun:
    """A run of the network `name` of odd_networks."""
    point = DesignPoint.of(f"{odd_networks.__file__}:{name}", "plain", resolution=8)
    spec = TrainSpec(**{"data": "digits", "device": "cpu", "epochs": 2, "batch_size": 256, **recipe})
    return TrainRun(point, spec, out, log_every=1, save_every=2)


def curve(directory: Path) -> list[tuple[Any, ...]]:
    """What a log says of everything but time."""
    return [(r.step, r.epoch, r.lr, r.loss, r.test_loss, r.top1, r.top5) for r in read_log(directory)]


class CrashError(Exception):
    pass


def crash_at(step: int) -> Any:
    def on_row(row: Row, steps: int) -> None:
        if row.step == step:
            raise CrashError

    return on_row


def wait_for_rows(directory: Path, count: int, process: subprocess.Popen[bytes] | Running) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (directory / "log.csv").exists() and len(read_log(directory)) >= count:
            return
        time.sleep(0.01)
    raise AssertionError("the training wrote too few rows")
