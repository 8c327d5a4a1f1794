"""Reading splits, and files to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wnexplore.data import Batch, EpochPass, Split, TensorSplit


def everything(split: Split, training: EpochPass | None = None, batch_size: int = 64) -> Batch:
    """All images and labels of a pass or test."""
    images, labels = zip(*split.batches(batch_size, "cpu", training), strict=True)
    return torch.cat(images), torch.cat(labels)


def plain_split(
    images: Tensor, *, resolution: int | None = None, shift: int = 0, flip: bool = False, jitter: float = 0.0
) -> TensorSplit:
    """A split without normalisation whose labels number the images."""
    n, _, _, width = images.shape
    zeros, ones = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    return TensorSplit(
        images, torch.arange(n), resolution or width, zeros, ones, shift, flip, colour_jitter=jitter
    )


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    """`count` smooth random images of 80x60 pixels, 0.png, 1.png, ..."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        coarse = random.integers(256, size=(6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{i}.png")


def write_folder(path: Path, train: int, val: int) -> Path:
    """So many images of each of two classes."""
    for seed, name in enumerate(("cat", "dog")):
        write_images(path / "train" / name, train, seed)
        write_images(path / "val" / name, val, seed + 10)
    return path
