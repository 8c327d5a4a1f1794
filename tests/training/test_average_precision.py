"""Average precision is that of COCO's own evaluation, pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.examples import examples
from wnexplore.data.detection import Boxes
from wnexplore.errors import InputError
from wnexplore.training.average_precision import DetectionEvaluation, Found, average_precision

FIGURES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "ar": 8}
"""Their places in what pycocotools says."""
HEIGHT, WIDTH = 300, 400


def boxes_of(boxes: Any, labels: Any, areas: Any = None, crowd: Any = None) -> Boxes:
    made = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
    sides = made[:, 2:] - made[:, :2]
    return Boxes(
        made,
        torch.tensor(np.array(labels), dtype=torch.int64),
        sides.prod(1) if areas is None else torch.tensor(np.array(areas), dtype=torch.float32),
        torch.zeros(len(made), dtype=torch.bool) if crowd is None else torch.tensor(np.array(crowd)).bool(),
    )


def found_at(boxes: Any, labels: Any, scores: Any) -> Found:
    return {
        "boxes": torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(np.array(labels), dtype=torch.int64),
        "scores": torch.tensor(np.array(scores), dtype=torch.float32),
    }


def by_pycocotools(objects: list[Boxes], found: list[Found], classes: int) -> list[float | None]:
    """The twelve figures of pycocotools in percent, None for its -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = [
        {
            "image_id": image,
            "category_id": int(ones.labels[i]),
            "bbox": _with_sides(ones.boxes[i].tolist()),
            "area": float(ones.areas[i]),
            "iscrowd": int(ones.crowd[i]),
        }
        for image, ones in enumerate(objects)
        for i in range(len(ones.labels))
    ]
    detections = [
        {
            "image_id": image,
            "category_id": int(one["labels"][i]),
            "bbox": _with_sides(one["boxes"][i].tolist()),
            "score": float(one["scores"][i]),
        }
        for image, one in enumerate(found)
        for i in range(len(one["labels"]))
    ]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(len(objects))],
        "annotations": [{"id": 1 + number, **one} for number, one in enumerate(annotations)],
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        test = COCOeval(truth, truth.loadRes(detections), "bbox")
        test.evaluate()
        test.accumulate()
        test.summarize()
    return [None if value == -1 else 100 * value for value in test.stats.tolist()]


def _with_sides(box: list[float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def ours(objects: list[Boxes], found: list[Found], classes: int) -> DetectionEvaluation:
    return average_precision(objects, found, range(classes), [(HEIGHT, WIDTH)] * len(objects))


def random_boxes(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Of sides from 4 to 200 pixels: small, medium and large ones."""
    corners = random.uniform((0, 0), (WIDTH - 200, HEIGHT - 200), (count, 2))
    sides = np.exp(random.uniform(1.5, 5.1, (count, 1)) + random.uniform(-0.2, 0.2, (count, 2)))
    return np.concatenate([corners, corners + sides], axis=1)


def random_case(seed: int, images: int, classes: int, ties: bool) -> tuple[list[Boxes], list[Found]]:
    random = np.random.default_rng(seed)
    objects, found = [], []
    for _ in range(images):
        count = int(random.integers(0, 7))
        boxes, labels = random_boxes(random, count), random.integers(0, classes, count)
        # An object fills a part of its box.
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) * random.uniform(0.5, 1, count)
        objects.append(boxes_of(boxes, labels, areas, random.random(count) < 0.2))
        near = random.integers(0, max(1, count), random.integers(0, 10) if count else 0)
        sides = np.tile(boxes[near, 2:] - boxes[near, :2], (1, 2))
        moved = boxes[near] + sides * random.normal(0, 0.06, (len(near), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        strays = random_boxes(random, int(random.integers(0, 4)))
        right = np.where(random.random(len(near)) < 0.8, labels[near], random.integers(0, classes, len(near)))
        scores = random.random(len(near) + len(strays)) * np.repeat((1, 0.7), (len(near), len(strays)))
        found.append(
            found_at(
                np.concatenate([moved, strays]),
                np.concatenate([right, random.integers(0, classes, len(strays))]),
                scores.round(1) if ties else scores,
            )
        )
    return objects, found


def check(objects: list[Boxes], found: list[Found], classes: int) -> DetectionEvaluation:
    """What is found, which is what pycocotools finds."""
    result = ours(objects, found, classes)
    expected = by_pycocotools(objects, found, classes)
    for name, place in FIGURES.items():
        value = expected[place]
        if value is None and name in ("ap", "ap50", "ap75", "ar"):
            value = 0.0  # crowds alone
        assert result.figures[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name
    assert (result.score, result.images) == (result.ap, len(objects))
    return result


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1), images=st.integers(1, 8), classes=st.integers(1, 5), ties=st.booleans()
)
def test_figures_are_those_of_pycocotools(seed: int, images: int, classes: int, ties: bool) -> None:
    objects, found = random_case(seed, images, classes, ties)
    if not sum(len(one.labels) for one in objects):
        objects[0] = boxes_of([[10, 20, 50, 60]], [0])
    if not sum(len(one["labels"]) for one in found):
        found[0] = found_at([[11, 20, 50, 60]], [0], [0.5])
    # One class more, of which there are no objects.
    check(objects, found, classes + 1)


def test_a_large_case_has_figures_of_all_kinds() -> None:
    result = check(*random_case(0, 60, 3, ties=False), 4)
    assert None not in result.figures.values()
    assert all(1 < value < 99 for value in result.figures.values() if value is not None)
    assert result.ap75 < result.ap50


def test_more_than_a_hundred_boxes_of_an_image_do_not_count() -> None:
    objects = [boxes_of([[10, 10, 60, 60]], [0])]
    strays = random_boxes(np.random.default_rng(0), 100) + 70
    found = [found_at([*strays.tolist(), [10, 10, 60, 60]], [0] * 101, [*np.linspace(0.9, 0.8, 100), 0.1])]
    assert check(objects, found, 1).ar == 0
    found[0]["scores"][-1] = 1.0
    assert check(objects, found, 1).ar == pytest.approx(100)


def test_what_lies_in_a_crowd_is_no_mistake() -> None:
    objects = [boxes_of([[10, 10, 60, 60], [100, 10, 300, 200]], [0, 0], crowd=[False, True])]
    found = [found_at([[120, 20, 150, 60], [10, 10, 60, 60]], [0, 0], [0.9, 0.8])]
    assert check(objects, found, 1).ap == pytest.approx(100)
    objects[0].crowd[1] = False
    assert check(objects, found, 1).ap < 50


def test_sizes_are_those_of_the_objects_and_not_of_their_boxes() -> None:
    result = check([boxes_of([[10, 10, 60, 60]], [0], [900])], [found_at([[10, 10, 60, 60]], [0], [0.9])], 1)
    assert (result.ap_small, result.ap_medium, result.ap_large) == (pytest.approx(100), None, None)


def test_all_objects_found_are_a_hundred_percent_and_nothing_found_is_none() -> None:
    random = np.random.default_rng(3)
    objects = [boxes_of(random_boxes(random, 5), random.integers(0, 3, 5)) for _ in range(4)]
    objects.append(boxes_of([], []))
    perfect = [found_at(one.boxes.numpy(), one.labels.numpy(), [0.5] * len(one.labels)) for one in objects]
    result = ours(objects, perfect, 3)
    assert list(result.figures.values()) == [pytest.approx(100)] * 7
    assert result.images == 5
    nothing = ours(objects, [found_at([], [], [])] * 5, 3)
    assert list(nothing.figures.values()) == [0] * 7
    assert nothing.images == 5


def test_no_objects_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="no objects"):
        ours([boxes_of([], [])], [found_at([[1, 2, 3, 4]], [0], [0.5])], 2)
