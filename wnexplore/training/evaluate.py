"""Runs a trained network on a data set's test images, or on single files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wnexplore.data import Data, FolderSplit, Split, TensorSplit, load_data
from wnexplore.data.coco import tested_coco
from wnexplore.data.decoding import (
    USUAL_RANGES,
    Ranges,
    is_of_unknown_range,
    ranges_of,
    read_image,
    reason,
)
from wnexplore.data.detection import DetectionSplit, Relabelled, check_shape
from wnexplore.data.folder import IMAGENET_MEAN, IMAGENET_STD, looked_at, tested_folder
from wnexplore.data.preprocessing import Preprocessing, normalised, tested, to_tensor
from wnexplore.design.data_source import parse_data
from wnexplore.errors import InputError, shown
from wnexplore.measure.torch_settings import PRECISION, precision_set
from wnexplore.training.checkpoint import Trained

Answer = list[tuple[str, float]]
"""Class names with probabilities, in descending order."""


@dataclass(frozen=True)
class DetectedObject:
    """One object that a detector found."""

    name: str
    """Of its class."""
    score: float
    """From 0 to 1."""
    box: tuple[float, ...]
    """x1, y1, x2, y2 in pixels of the image."""


@dataclass(frozen=True)
class Detected:
    """An image, and what was found in it."""

    image: Tensor
    """uint8: (3, H, W)."""
    objects: Sequence[DetectedObject]
    """In descending order of their scores."""

    def drawn(self) -> Image.Image:
        """The image with the boxes, names and scores."""
        from torchvision.transforms.v2.functional import to_pil_image
        from torchvision.utils import draw_bounding_boxes

        image = self.image
        if self.objects:
            names = [f"{one.name} {100 * one.score:.0f} %" for one in self.objects]
            boxes = torch.tensor([one.box for one in self.objects])
            image = draw_bounding_boxes(image, boxes, names, colors="#FFD800", width=2)
        picture: Image.Image = to_pil_image(image)
        return picture


def test_data(
    trained: Trained, source: str | None, resolution: int | None, notify: Callable[[str], None]
) -> Data:
    """The data set `source` from `images_for`, its labels mapped to the network's by class name.

    It may lack some of the network's classes. `notify` gets a line per caveat about the result. Raises
    `InputError` if the data set has classes that the network lacks.
    """
    data = images_for(trained, source, resolution, notify)
    classes = trained.metadata.classes
    labels = _labels(data, classes, notify)
    if labels == list(range(len(classes))):
        return data
    test = _relabelled(data.test, labels)
    return replace(data, num_classes=len(classes), classes=classes, test=test)


def images_for(
    trained: Trained, source: str | None, resolution: int | None, notify: Callable[[str], None]
) -> Data:
    """The data set `source` (None: that of the training) at the network's resolution, or at `resolution`.

    Its test images get the checkpoint's preprocessing: normalisation, greyscale and crop. Of image files only
    path/val is read, also as the training split. `notify` gets a line if there are images of a kind that the
    training lacked. Raises `InputError` if it can't be loaded.
    """
    metadata = trained.metadata
    requested = parse_data(source or metadata.data)
    if requested.task != metadata.point.task:
        raise InputError(
            f"data set '{shown(requested.label)}' is for {requested.task}, and this network for"
            f" {metadata.point.task}: expected another data set"
        )
    size = resolution or metadata.point.resolution
    if requested.name == "coco":
        assert requested.path is not None, "parse_data sees to it"
        return tested_coco(requested.path)
    if requested.name != "folder":
        data = load_data(requested, resolution=size)
        return replace(data, test=_prepared(data.test, metadata.preparation))
    assert requested.path is not None, "parse_data sees to it"
    split = tested_folder(requested.path, size, metadata.preparation)
    _report_depths(split.folder.root, looked_at(split.folder), split.how.ranges, notify)
    return Data("folder", len(split.folder.classes), split.folder.classes, split, split)


def predict(
    trained: Trained, paths: Sequence[Path], device: str, notify: Callable[[str], None]
) -> dict[Path, Answer | str]:
    """The five most probable classes of each image file, or why it can't be read.

    Preprocessing is that of `evaluate` for images of a folder. `notify` gets a line per kind of images that
    the training lacked, with the first such file.
    """
    network, metadata = trained.network.to(device), trained.metadata
    known = dict(metadata.preparation.ranges)
    answers: dict[Path, Answer | str] = {}
    for path in paths:
        try:
            image = read_image(str(path), metadata.preparation.ranges)
            if is_of_unknown_range(str(path), known):
                found = ranges_of([str(path)])
                _report_depths(path, found, known, notify)
                known |= found
            pixels = tested(image, metadata.preparation, metadata.point.resolution)
        except Exception as error:  # a decoder may raise anything on a broken file
            answers[path] = reason(error)
            continue
        images = normalised(pixels[None].to(device).float() / 255, metadata.preparation)
        with torch.inference_mode(), precision_set(PRECISION):
            shares = network(images).float().softmax(1)[0].cpu()
        if not shares.isfinite().all():
            answers[path] = "its outputs are not finite"
            continue
        likeliest = shares.topk(min(5, len(shares)))
        answers[path] = [
            (metadata.classes[index], share)
            for index, share in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        ]
    return answers


def detect(
    trained: Trained, paths: Sequence[Path], device: str, min_score: float
) -> dict[Path, Detected | str]:
    """The objects in each image file with a score above `min_score`, or why it can't be read."""
    # Its import takes seconds.
    from wnexplore.models.detector import Detector

    network, classes = trained.network.to(device), trained.metadata.classes
    assert isinstance(network, Detector)
    network.score_thresh = min_score
    answers: dict[Path, Detected | str] = {}
    for path in paths:
        try:
            image = to_tensor(read_image(str(path), {})).float().round().clamp(0, 255).to(torch.uint8)
            check_shape(image)
        except Exception as error:  # a decoder may raise anything on a broken file
            answers[path] = reason(error)
            continue
        with torch.inference_mode(), precision_set(PRECISION):
            (found,) = network([image.to(device).float() / 255])
        values = (found[name].cpu().tolist() for name in ("labels", "scores", "boxes"))
        objects = [
            DetectedObject(classes[label], score, tuple(box))
            for label, score, box in zip(*values, strict=True)
        ]
        answers[path] = Detected(image, objects)
    return answers


def preparation(split: Split) -> Preprocessing:
    """The preprocessing of image files that is equivalent to that of the test split `split`."""
    if isinstance(split, FolderSplit):
        return split.how
    if isinstance(split, DetectionSplit):
        return Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
    assert isinstance(split, TensorSplit)
    mean, std = ((values.flatten() / split.peak).tolist() for values in (split.mean, split.std))
    return Preprocessing(tuple(mean), tuple(std), grey=split.images.shape[1] == 1)


def _report_depths(where: Path, found: Ranges, known: Ranges, notify: Callable[[str], None]) -> None:
    """Report images of a kind that the training lacked, which may be read too dark."""
    for kind, (low, high) in found.items():
        black, white = USUAL_RANGES[kind]
        if kind not in known and (low, high) != (black, white):
            notify(
                f"{shown(where, 300)} has {kind} values, and the training had none: they are read as"
                f" {black:g} (black) to {white:g} (white), while their range is {low:g} to {high:g}"
            )


def _prepared(split: Split, how: Preprocessing) -> Split:
    """`split`, images in memory, normalised by `how`."""
    if not isinstance(split, TensorSplit) or preparation(split) == how:
        return split
    mean, std = (torch.tensor(values).view(3, 1, 1) * split.peak for values in (how.mean, how.std))
    return replace(split, mean=mean, std=std)


def _labels(data: Data, known: Sequence[str], notify: Callable[[str], None]) -> list[int]:
    """For each class of `data` its index among the network's classes, by name."""
    number = {name: index for index, name in enumerate(known)}
    strange = [name for name in data.classes if name not in number]
    missing = [name for name in known if name not in set(data.classes)]
    if strange:
        lacks = f", and lacks {_some(missing)}" if missing else ""
        raise InputError(
            f"data set '{data.name}' has {len(data.classes)} classes, and this network {len(known)}: it"
            f" doesn't know {_some(strange)}{lacks}: expected the class names of its training"
        )
    if missing:
        notify(
            f"data set '{data.name}' has {len(data.classes)} of the network's {len(known)} classes, without"
            f" {_some(missing)}: each image is tested against all {len(known)}"
        )
    return [number[name] for name in data.classes]


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{shown(name, 60)}'" for name in names[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"


def _relabelled(split: Split, labels: Sequence[int]) -> Split:
    """`split` with each label replaced by `labels[label]`."""
    if isinstance(split, FolderSplit):
        samples = [(path, labels[label]) for path, label in split.folder.samples]
        return replace(split, folder=replace(split.folder, samples=samples))
    if isinstance(split, DetectionSplit):
        return replace(split, pictures=Relabelled(split.pictures, tuple(labels)))
    assert isinstance(split, TensorSplit)
    return replace(split, labels=torch.tensor(labels)[split.labels])
