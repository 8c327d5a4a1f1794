"""Standard data sets: scikit-learn's digits, and those that torchvision reads."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wnexplore.data.in_memory import TensorSplit
from wnexplore.data.splits import Augment, Data
from wnexplore.errors import InputError, RunError

# torchvision is imported where it is used: it takes as long to load as torch, and digits needs none.


def digits(resolution: int, augment: Augment) -> Data:
    """The 1797 handwritten digits that scikit-learn ships, 20 % of them for the test, stratified."""
    from sklearn.datasets import load_digits  # takes a second, so only where digits are used
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    arrays = train_test_split(
        loaded.images.astype(np.uint8)[:, None],
        loaded.target.astype(np.int64),
        test_size=_DIGITS_TEST_SHARE,
        stratify=loaded.target,
        random_state=_SPLIT_SEED,
    )
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, arrays)
    train = _train_split(
        train_images, train_labels, resolution, augment, shift=resolution // 16, flip=False, peak=16
    )
    test = TensorSplit(test_images, test_labels, resolution, train.mean, train.std, peak=train.peak)
    return Data("digits", len(loaded.target_names), tuple(map(str, loaded.target_names)), train, test)


def from_torchvision(name: str, path: Path, download: bool, resolution: int, augment: Augment) -> Data:
    """cifar10, cifar100 or fashion_mnist from `path`; downloaded there if missing and `download` is set.

    Raises `InputError` if files are missing or incomplete, `RunError` if the download fails.
    """
    train, test = (_read(name, path, part, download) for part in (True, False))
    split = _train_split(*_tensors(train), resolution, augment, shift=resolution // 8, flip=True)
    tested = TensorSplit(*_tensors(test), resolution, split.mean, split.std)
    return Data(name, len(train.classes), tuple(train.classes), split, tested)


_DIGITS_TEST_SHARE = 0.2
_SPLIT_SEED = 0


def _read(name: str, path: Path, train: bool, download: bool) -> Any:
    """torchvision's data set."""
    from torchvision import datasets

    kind = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "fashion_mnist": datasets.FashionMNIST,
    }[name]
    try:
        return kind(root=path, train=train)
    except Exception as error:  # a reader of broken files may raise anything
        if not download:
            raise InputError(f"data set '{name}': {_missing(kind, path)}; or have it downloaded") from error
    try:
        with redirect_stdout(sys.stderr):
            return kind(root=path, train=train, download=True)
    except Exception as error:  # a network, a disk and an archive may raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"can't download data set '{name}' into {path}: {why}") from error


def _missing(kind: Any, path: Path) -> str:
    if hasattr(kind, "base_folder"):
        files, expected = path / kind.base_folder, f"{kind.filename}, the Python version, unpacked in {path}"
    else:
        files = path / kind.__name__ / "raw"
        expected = "four files such as train-images-idx3-ubyte there, unpacked"
    return f"{files} is missing or incomplete: expected {expected}"


def _tensors(read: Any) -> tuple[Tensor, Tensor]:
    """Images (N, C, h, w), uint8, and labels (N,) of a torchvision data set."""
    images = torch.as_tensor(read.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(read.targets)


def _train_split(
    images: Tensor,
    labels: Tensor,
    resolution: int,
    augment: Augment,
    *,
    shift: int,
    flip: bool,
    peak: float = 255.0,
) -> TensorSplit:
    """A training split, with its mean and standard deviation; `flip` is the data set's default."""
    # One channel at a time: CIFAR-10 as floats would be 600 MB.
    moments = [torch.std_mean(channel.float()) for channel in images.unbind(1)]
    std, mean = (torch.stack(m).expand(3).view(3, 1, 1) for m in zip(*moments, strict=True))
    flip = flip if augment.flip is None else augment.flip
    return TensorSplit(images, labels, resolution, mean, std, shift, flip, augment.colour_jitter, peak)
