"""Sweeps small enough for tests."""

import sqlite3
from contextlib import closing
from pathlib import Path

from wnexplore.store import FILE_NAME

TINY = """\
backbones: [shufflenet_v2_x0_5]
methods: [plain, weightnet]
M: [1, 2]
G: [1, 2]
stem: [small]
resolution: [8]
num_classes: [10]
latency: {device: cpu, batch_sizes: [1, 2], seconds: 0.001}
"""

TRAINED = TINY + "train: {data: digits, device: cpu, epochs: 1, seeds: 2, batch_size: 512}\n"


def write_sweep(folder: Path, text: str = TINY, name: str = "tiny.yaml") -> Path:
    """`text` as a sweep file in `folder`."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def committed(directory: Path) -> int:
    """How many records another process has committed so far."""
    try:
        with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
            return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
