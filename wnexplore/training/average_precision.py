"""Tests a detector: average precision and recall of its boxes, as COCO defines them.

Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, https://arxiv.org/abs/1405.0312, and
its evaluation, of which faster-coco-eval is an implementation.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed, nn

from wnexplore.data.detection import Boxes, DetectionSplit
from wnexplore.design.vision_tasks import TASKS
from wnexplore.errors import InputError, RunError
from wnexplore.measure.failure import network_step
from wnexplore.measure.thread_waiting import yield_to_others
from wnexplore.measure.torch_settings import PRECISION, precision_set
from wnexplore.training.accuracy import StoppedError

Found = Mapping[str, Tensor]
"""The detections in one image: boxes (K, 4) as x1, y1, x2, y2, scores and labels (K,)."""


@dataclass(frozen=True)
class DetectionEvaluation:
    """The result of a detector on a split: percent, None where there is no object of that kind."""

    ap: float
    """Average precision: the mean over classes and over intersections over union from 0.5 to 0.95."""
    ap50: float
    ap75: float
    ap_small: float | None
    """Of objects below 32² pixels."""
    ap_medium: float | None
    ap_large: float | None
    """Of objects above 96² pixels."""
    ar: float
    """Average recall, of at most 100 boxes an image."""
    images: int
    """Number of images, without damaged ones."""
    loss: float | None = None
    """Detectors have no loss in a test; NaN where the network isn't finite, which finds nothing."""

    @property
    def score(self) -> float:
        """The figure by which detectors are ranked."""
        return self.ap

    @property
    def figures(self) -> dict[str, float | None]:
        """By column."""
        return {name: getattr(self, name) for name in TASKS["detection"].figures}

    @property
    def logged(self) -> dict[str, float | None]:
        """The figures of a log's row."""
        return {"ap": self.ap, "ap50": self.ap50}


def require_coco_eval() -> None:
    """Raise `InputError` if average precision can't be computed."""
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise InputError('average precision needs faster-coco-eval: pip install "wnexplore[detection]"')


def evaluate_detector(
    model: nn.Module,
    split: DetectionSplit,
    batch_size: int,
    device: str,
    *,
    rank: int = 0,
    world: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> DetectionEvaluation:
    """Test `model`, put in evaluation mode, on every image of `split` once.

    All products are float32. Each of `world` processes detects in its part, and all get the same result.
    Raises as `wnexplore.training.accuracy.evaluate`, and `InputError` without faster-coco-eval.
    """
    require_coco_eval()
    model.eval()
    found: dict[int, Found] = {}
    yield_to_others(at_once=True)
    with torch.inference_mode(), precision_set(PRECISION):
        for images, targets in split.batches(batch_size, device, rank=rank, world=world):
            if stop():
                break
            yield_to_others()
            with network_step("in the test"):
                outputs = model(images)
            for target, output in zip(targets, outputs, strict=True):
                found[int(target["image"])] = {name: value.cpu() for name, value in output.items()}
    stopped = stop()
    if world > 1:
        everything: list[Any] = [None] * world
        distributed.all_gather_object(everything, (found, stopped))
        stopped = any(ended for _, ended in everything)
        found = {image: one for part, _ in everything for image, one in part.items()}
    if stopped:
        raise StoppedError
    if not found:
        raise RunError("no test image could be read")
    seen = sorted(found)
    classes = range(int(getattr(model, "num_classes", 1)))
    result = average_precision(
        [split.pictures.objects[image] for image in seen],
        [found[image] for image in seen],
        classes,
        [split.pictures.sizes[image] for image in seen],
    )
    finite = all(tensor.isfinite().all() for tensor in (*model.parameters(), *model.buffers()))
    return result if finite else replace(result, loss=math.nan)


def average_precision(
    objects: Sequence[Boxes], found: Sequence[Found], classes: Iterable[int], sizes: Sequence[tuple[int, int]]
) -> DetectionEvaluation:
    """The figures of the boxes `found` in images with `objects`, of heights and widths `sizes`.

    Raises `InputError` without faster-coco-eval.
    """
    require_coco_eval()
    from faster_coco_eval import COCO, COCOeval_faster

    truth = {
        "images": [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(sizes)],
        "annotations": list(_annotations(objects)),
        "categories": [{"id": number, "name": str(number)} for number in classes],
    }
    if not truth["annotations"]:
        raise InputError("the test images have no objects: expected some to be found")
    known = COCO(truth)
    test = COCOeval_faster(known, known.loadRes(list(_detections(found))), "bbox", print_function=_quiet)
    test.run()
    # Where there is no object of a kind, the figure is -1.
    stats = [None if value < 0 else 100 * float(value) for value in test.stats]
    ap, ap50, ap75, small, medium, large = stats[:6]
    # There are objects, but for crowds.
    return DetectionEvaluation(
        ap or 0.0, ap50 or 0.0, ap75 or 0.0, small, medium, large, stats[8] or 0.0, len(sizes)
    )


def _annotations(objects: Sequence[Boxes]) -> Iterable[dict[str, Any]]:
    number = 0
    for image, ones in enumerate(objects):
        values = (ones.boxes.tolist(), ones.labels.tolist(), ones.areas.tolist(), ones.crowd.tolist())
        for (left, top, right, bottom), label, area, crowd in zip(*values, strict=True):
            # From 1: an id of 0 would count as no match.
            number += 1
            yield {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": [left, top, right - left, bottom - top],
                "area": area,
                "iscrowd": int(crowd),
            }


def _detections(found: Sequence[Found]) -> Iterable[dict[str, Any]]:
    for image, one in enumerate(found):
        values = (one["boxes"].tolist(), one["labels"].tolist(), one["scores"].tolist())
        for (left, top, right, bottom), label, score in zip(*values, strict=True):
            yield {
                "image_id": image,
                "category_id": label,
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }


def _quiet(*texts: object) -> None:
    """It prints its figures, which are ours to show."""
