"""Reads annotations in COCO's format: one JSON file of images, of the objects in them and of categories.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, https://arxiv.org/abs/1405.0312; the format
is that of https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wnexplore.data.decoding import reason
from wnexplore.errors import InputError, shown


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a file of annotations says, in its order: I images, N objects."""

    file: Path
    digest: str
    """SHA-256 of the file, in hex."""
    categories: Mapping[int, str]
    """Id -> name, in the order of the ids, which is that of the labels."""
    image_ids: list[int]
    """(I,)"""
    names: list[str]
    """(I,): each image's file, as a path in the folder of images."""
    sizes: list[tuple[int, int]]
    """(I,): height and width in pixels."""
    object_ids: list[int]
    """(N,)"""
    images: NDArray[np.int64]
    """(N,): index of each object's image."""
    labels: NDArray[np.int64]
    """(N,), from 0."""
    boxes: NDArray[np.float64]
    """(N, 4) as x, y, width, height in pixels: finite, not negative in size, anywhere."""
    areas: NDArray[np.float64]
    """(N,): pixels of the object itself; NaN where the file doesn't say."""
    crowd: NDArray[np.bool_]
    """(N,): whether it is a group of objects."""


def read_annotations(file: Path) -> Annotations:
    """The annotations in `file`, of which nothing is trusted.

    Raises `InputError` that names file and place if it can't be read or is anything but such annotations.
    """
    try:
        size_of(file)
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"can't read {shown(file, 300)}: {reason(error)}") from None
    try:
        content = _parsed(data)
        categories = _categories(content)
        labels = {number: label for label, number in enumerate(categories)}
        images = _each(content, "images", _image)
        positions = {number: position for position, number in enumerate(images)}
        objects = _each(content, "annotations", lambda one: _object(one, positions, labels))
    except _WrongError as error:
        raise InputError(f"{shown(file, 300)}: {error}") from None
    names, sizes = zip(*images.values(), strict=True)
    image, label, boxes, areas, crowd = zip(*objects.values(), strict=True)
    return Annotations(
        file,
        hashlib.sha256(data).hexdigest(),
        categories,
        list(images),
        list(names),
        list(sizes),
        list(objects),
        np.array(image, dtype=np.int64),
        np.array(label, dtype=np.int64),
        np.array(boxes, dtype=np.float64),
        np.array(areas, dtype=np.float64),
        np.array(crowd, dtype=np.bool_),
    )


def size_of(file: str | Path) -> int:
    """The size of `file` in bytes. Raises `OSError` or `ValueError` if it is missing or not a file.

    Pipes are none: they might be waited for without end.
    """
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    return status.st_size


class _WrongError(Exception):
    """What is wrong, and where in the file."""


_Parsed = TypeVar("_Parsed")
_Object = tuple[int, int, list[float], float, bool]
"""Index of the image, label, box, area and whether it is a crowd."""


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data, object_hook=_without_outlines)
    except RecursionError:
        raise _WrongError("nested too deep: expected COCO's annotations") from None
    except ValueError as error:
        raise _WrongError(f"not JSON: {shown(error)}") from None
    if not isinstance(content, dict):
        raise _WrongError(
            f"expected an object of images, annotations and categories, not {_kind(content)}, as in COCO's"
            " files instances_*.json"
        )
    return content


def _without_outlines(found: dict[str, Any]) -> dict[str, Any]:
    """An object as soon as it is parsed: of an outline, which would fill memory, whether it is RLE."""
    if "segmentation" in found:
        found["segmentation"] = isinstance(found["segmentation"], dict)
    return found


def _categories(content: Mapping[str, Any]) -> dict[int, str]:
    found = _each(content, "categories", lambda one: _text(one, "name"))
    ids: dict[str, int] = {}
    for number, name in found.items():
        if name in ids:
            raise _WrongError(
                f"categories: ids {ids[name]} and {shown(number)} have one name, '{shown(name)}'"
            )
        ids[name] = number
    return dict(sorted(found.items()))


def _each(
    content: Mapping[str, Any], key: str, parse: Callable[[dict[str, Any]], _Parsed]
) -> dict[int, _Parsed]:
    """Id -> `parse` of each of the objects in the list `key`; raises `_WrongError` with the place."""
    values = content.get(key)
    if not isinstance(values, list) or not values:
        given = "nothing" if key not in content else "an empty list" if values == [] else _kind(values)
        raise _WrongError(f"{key}: expected a list of at least one object, not {given}")
    found: dict[int, _Parsed] = {}
    for position, one in enumerate(values):
        try:
            if type(one) is not dict:
                raise _WrongError(f"expected an object, not {_kind(one)}")
            number = _integer(one, "id")
            if number in found:
                raise _WrongError(f"the id is that of {key}[{list(found).index(number)}] too")
            found[number] = parse(one)
        except _WrongError as error:
            raise _WrongError(f"{_place(key, position, one)}: {error}") from None
    return found


def _image(one: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
    """File, height and width."""
    name = _text(one, "file_name")
    path = PurePath(name)
    if path.anchor or ".." in path.parts:
        raise _WrongError(f"file_name '{shown(name)}' leads outside of the folder of images")
    sides = _integer(one, "height"), _integer(one, "width")
    for key, side in zip(("height", "width"), sides, strict=True):
        if not 1 <= side <= _MAX_SIDE:
            raise _WrongError(f"{key}: expected an integer from 1 to {_MAX_SIDE:,}, not {shown(side)}")
    return name, sides


def _object(one: Mapping[str, Any], positions: Mapping[int, int], labels: Mapping[int, int]) -> _Object:
    image = positions.get(_integer(one, "image_id"))
    if image is None:
        raise _WrongError(f"image_id {shown(one['image_id'])} is no image's")
    label = labels.get(_integer(one, "category_id"))
    if label is None:
        raise _WrongError(f"category_id {shown(one['category_id'])} is no category's")
    area = one.get("area", np.nan)
    if "area" in one and not (_is_finite(area) and 0 <= area <= _MAX_SIDE**2):
        raise _WrongError(f"area: expected a number of pixels, not {_given(area)}")
    crowd = one.get("iscrowd", 0)
    if type(crowd) is not int or crowd not in (0, 1):
        raise _WrongError(f"iscrowd: expected 0 or 1, not {_given(crowd)}")
    return image, label, _box(one), area, crowd == 1


def _box(one: Mapping[str, Any]) -> list[float]:
    expected = "expected four finite numbers [x, y, width, height]"
    if "bbox" not in one:
        rle = "RLE where boxes are wanted" if one.get("segmentation") else "nothing given"
        raise _WrongError(f"bbox: {rle}: {expected}")
    box = one["bbox"]
    if type(box) is not list or len(box) != 4 or not all(map(_is_finite, box)):
        raise _WrongError(f"bbox: {expected}, not {_given(box)}")
    if box[2] < 0 or box[3] < 0:
        raise _WrongError(f"bbox: expected a width and height that are not negative, not {_given(box)}")
    return box


def _integer(one: Mapping[str, Any], key: str) -> int:
    value = one.get(key)
    if type(value) is not int:  # which a bool is to isinstance
        raise _WrongError(f"{key}: expected an integer, not {_given(value) if key in one else 'nothing'}")
    if not -(2**63) <= value < 2**63:
        raise _WrongError(f"{key}: expected an integer of 64 bits, not {shown(value)}")
    return value


def _text(one: Mapping[str, Any], key: str) -> str:
    value = one.get(key)
    if not isinstance(value, str) or not value:
        raise _WrongError(f"{key}: expected a text, not {_given(value) if key in one else 'nothing'}")
    return value


def _is_finite(value: object) -> bool:
    """Whether `value` is a number that a float holds; comparing neither overflows nor is true of NaN."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def _place(key: str, position: int, one: Any) -> str:
    number = one.get("id") if isinstance(one, dict) else None
    return f"{key}[{position}]" + (f" (id {shown(number)})" if type(number) is int else "")


def _given(value: object) -> str:
    """`value` in a message, as in JSON where it is short there."""
    plain = value is None or isinstance(value, bool | str)
    return shown(json.dumps(value, ensure_ascii=False) if plain else value)


def _kind(value: object) -> str:
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else _given(value)


_MAX_SIDE = 10**6
"""Pixels of an image's width and height at most."""
_LARGEST = sys.float_info.max
