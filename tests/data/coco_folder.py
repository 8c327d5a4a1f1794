"""Small folders in COCO's format, drawn: each object is a white rectangle on a dark image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wnexplore.data import Augment, Data
from wnexplore.data.coco import CocoPictures, coco
from wnexplore.data.coco import tested_coco as for_evaluation  # else pytest takes it for a test
from wnexplore.data.detection import DetectionSplit

Content = dict[str, Any]
"""What a file of annotations holds."""

CATEGORIES = ((30, "pear"), (2, "quince"), (7, "apple"))
"""Ids and names, not in order; no object is an apple."""


def content(count: int = 5, seed: int = 0) -> Content:
    """`count` images of 48x32 and of 32x48 pixels in turn, with one box of whole numbers each."""
    random = np.random.default_rng(seed)
    found: Content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
    }
    for image in range(count):
        width, height = ((48, 32), (32, 48))[image % 2]
        found["images"].append(
            {"id": 5 + 3 * image, "file_name": f"{image:06d}.png", "width": width, "height": height}
        )
        x, y = random.integers(2, 12, 2).tolist()
        w, h = int(random.integers(6, width - x - 2)), int(random.integers(6, height - y - 2))
        add_object(found, image, [x, y, w, h], CATEGORIES[image % 2][0])
    return found


def add_object(to: Content, image: int, box: list[float], category: int = 2, **more: Any) -> None:
    """An annotation of the image at a place in the list; its area is that of `box` unless `more` has one."""
    to["annotations"].append(
        {
            "id": max((one["id"] for one in to["annotations"]), default=93) + 7,
            "image_id": to["images"][image]["id"],
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            **more,
        }
    )


def write_coco(
    folder: Path,
    train: Content | None = None,
    val: Content | None = None,
    *,
    names: tuple[str, str] = ("train2017", "val2017"),
    under: str = "",
) -> Path:
    """`folder` with the two parts, `content` by default, and their images in folders of `under`."""
    parts = (content(6, 0) if train is None else train, content(5, 1) if val is None else val)
    for name, part in zip(names, parts, strict=True):
        write_annotations(folder, part, name)
        (folder / under / name).mkdir(parents=True)
        for image in part["images"]:
            boxes = [one["bbox"] for one in part["annotations"] if one["image_id"] == image["id"]]
            drawn(image["width"], image["height"], boxes).save(folder / under / name / image["file_name"])
    return folder


def write_annotations(folder: Path, part: object, name: str = "val2017") -> Path:
    """The file of annotations of a part: `part`, as JSON unless it is bytes."""
    file = folder / "annotations" / f"instances_{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(part if isinstance(part, bytes) else json.dumps(part).encode())
    return file


def drawn(width: int, height: int, boxes: list[list[float]]) -> Image.Image:
    """A dark image with a white rectangle for each box [x, y, width, height]."""
    pixels = np.full((height, width, 3), 20, dtype=np.uint8)
    for x, y, w, h in np.array(boxes).reshape(-1, 4).round().astype(int).tolist():
        pixels[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = 255
    return Image.fromarray(pixels)


def loaded(folder: Path, scales: tuple[int, ...] = (), longest: int = 100, **augment: Any) -> Data:
    """The data set in `folder`."""
    return coco(folder, scales, longest, Augment(**augment))


def pictures(split: object) -> CocoPictures:
    """Those of a split of `loaded`."""
    assert isinstance(split, DetectionSplit)
    assert isinstance(split.pictures, CocoPictures)
    return split.pictures


def in_val(folder: Path, part: object) -> CocoPictures:
    """The pictures of `part`, written in place of the test's annotations."""
    write_annotations(folder, part)
    return pictures(for_evaluation(folder).test)


def varied() -> Content:
    """Gaps in the ids, several objects in an image, crowds, an image with crowds alone, one without boxes."""
    part = content(6)
    del part["annotations"][3], part["annotations"][4]
    add_object(part, 2, [1.25, 2.5, 10.75, 20.5], 30)
    add_object(part, 0, [3, 4, 5, 6], 7, iscrowd=1, segmentation={"counts": [9, 9], "size": [32, 48]})
    add_object(part, 0, [0, 0, 48, 32], 2, area=17.5, segmentation=[[0, 0, 48, 0, 48, 32]])
    add_object(part, 3, [3, 4, 5, 6], 30, iscrowd=1, area=11)
    return part
