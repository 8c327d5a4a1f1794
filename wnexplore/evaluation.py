"""A trained network on images: those of a data set's test, or single files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wnexplore.checkpoint import Preparation, Trained
from wnexplore.errors import InputError
from wnexplore.measure.data import Data, FolderSplit, Split, TensorSplit, load_data
from wnexplore.measure.data.folder import IMAGENET_MEAN, IMAGENET_STD, read_image

Answer = list[tuple[str, float]]
"""Names of classes with their probabilities, the likeliest first."""


def test_data(trained: Trained, source: str | None, resolution: int | None) -> Data:
    """The data set `source` (None: the one it was trained on) in images of the network's size, or another.

    Raises `InputError` if it can't be had or has another number of classes.
    """
    point = trained.origin.point
    data = load_data(source or trained.origin.data, resolution=resolution or point.resolution)
    if data.num_classes != point.num_classes:
        raise InputError(
            f"data set '{data.name}' has {data.num_classes} classes, and this network {point.num_classes}:"
            f" expected one such as '{trained.origin.data}'"
        )
    return data


def predict(trained: Trained, paths: Sequence[Path], device: str) -> dict[Path, Answer | str]:
    """For each image file the five likeliest classes, or why it can't be read."""
    network, origin = trained.network.to(device), trained.origin
    answers: dict[Path, Answer | str] = {}
    for path in paths:
        try:
            image = read_image(str(path))
        except OSError as error:
            answers[path] = error.strerror or str(error)
            continue
        prepared = prepare(image, origin.preparation, origin.point.resolution).to(device)
        with torch.inference_mode():
            shares = network(prepared[None]).float().softmax(1)[0].cpu()
        found = shares.topk(min(5, len(shares)))
        answers[path] = [
            (origin.classes[index], share)
            for index, share in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]
    return answers


def preparation(split: Split) -> Preparation:
    """How an image file becomes what `split`, a test's, shows a network."""
    if isinstance(split, FolderSplit):
        return Preparation(IMAGENET_MEAN, IMAGENET_STD, crop=224 / 256)
    assert isinstance(split, TensorSplit)
    mean, std = ((values.flatten() / split.peak).tolist() for values in (split.mean, split.std))
    return Preparation(tuple(mean), tuple(std), grey=split.images.shape[1] == 1)


def prepare(image: Image.Image, how: Preparation, resolution: int) -> Tensor:
    """`image` as a test shows it to a network: (3, resolution, resolution), float32, normalised."""
    from torchvision.transforms.v2 import functional

    grey = image.convert("L").convert("RGB") if how.grey else image.convert("RGB")
    pixels = functional.to_dtype(functional.to_image(grey), torch.float32, scale=True)
    size = round(resolution / how.crop)
    shape = [size] if how.crop < 1 else [size, size]
    pixels = functional.center_crop(functional.resize(pixels, shape, antialias=True), [resolution] * 2)
    normalised: Tensor = functional.normalize(pixels, list(how.mean), list(how.std))
    return normalised
