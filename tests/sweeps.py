"""Sweeps small enough for tests."""

import sqlite3
from contextlib import closing
from pathlib import Path

from wnexplore.results.store import FILE_NAME

OWN = """\
from torch import nn

def convolution(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()

def tiny(num_classes=10):
    blocks = (*convolution(3, 8), *convolution(8, 16), *convolution(16, 16), *convolution(16, 32))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
"""
"""A network of four stages that is counted, timed and trained in milliseconds."""

GRID = """\
methods: [plain, weightnet]
M: [1, 2]
G: [1, 2]
resolution: [8]
num_classes: [10]
latency: {device: cpu, batch_sizes: [1, 2], seconds: 0.001}
"""
TRAIN = "train: {data: digits, device: cpu, epochs: 1, seeds: 2, batch_size: 512}\n"

TINY = "backbones: [own.py:tiny]\n" + GRID
TRAINED = TINY + TRAIN
SHUFFLENET = "backbones: [shufflenet_v2_x0_5]\nstem: [small]\n" + GRID + TRAIN


def write_sweep(folder: Path, text: str = TINY, name: str = "tiny.yaml") -> Path:
    """`text` as a sweep file in `folder`, with the network of one's own that it may name beside it."""
    script = folder / "own.py"
    script.write_text(OWN, encoding="utf-8")
    path = folder / name
    path.write_text(text.replace("own.py", str(script)), encoding="utf-8")
    return path


def committed(directory: Path) -> int:
    """How many records another process has committed so far."""
    try:
        with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
            return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
