"""What is wrong with a folder in COCO's format is one line with its place, and nothing else is read."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import Tensor

from tests.data.coco_folder import (
    CATEGORIES,
    Content,
    content,
    in_val,
    loaded,
    pictures,
    varied,
    write_annotations,
    write_coco,
)
from tests.examples import examples
from wnexplore.data import Data
from wnexplore.data.coco import tested_coco as for_evaluation  # else pytest takes it for a test
from wnexplore.data.detection import Boxes
from wnexplore.errors import InputError, Notice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coco(tmp_path)


def deep(text: str) -> bytes:
    """A valid file with `text`, nested a hundred thousand times, as the outline of an object."""
    part = json.dumps(content(1))
    return part.replace('"bbox"', f'"segmentation": {text * 10**5}{"]" * 10**5}, "bbox"').encode()


def nested(value: Any, depth: int = 200) -> Any:
    for _ in range(depth):
        value = [value]
    return value


MISSING = object()
"""In place of a value: the key is removed."""
HUGE = 10**4000
BAD_FILES: list[tuple[Any, str]] = [
    (b"", "not JSON"),
    (b"\xff\xfe\xff", "not JSON"),
    (b'{"images": [', "not JSON"),
    (b'{"images": ' + b"9" * 5000 + b"}", "not JSON"),
    (deep("["), "nested too deep"),
    (deep('{"x":['), "nested too deep"),
    ([], "expected an object of images, annotations and categories, not a list"),
    (None, "not null"),
    ("\n\x1b[31m" * 1000, "expected an object"),
    ({}, "categories: expected a list of at least one object, not nothing"),
]
BAD_LISTS = [
    (MISSING, "nothing"),
    ({}, "an object"),
    ([], "an empty list"),
    (None, "null"),
    (1, "1"),
    ("x", "x"),
]
BAD_IDS: list[tuple[Any, str]] = [
    (MISSING, "id: expected an integer, not nothing"),
    ("7", 'id: expected an integer, not "7"'),
    (True, "id: expected an integer, not true"),
    (7.0, r"id: expected an integer, not 7\.0"),
    ([7], r"id: expected an integer, not \[7\]"),
    (HUGE, "id: expected an integer of 64 bits"),
]
BAD_VALUES: list[tuple[str, str, list[Any], str]] = [
    ("images", "file_name", [MISSING, "", 3, None, ["x"]], "expected a text, not "),
    ("images", "file_name", ["/etc/passwd", "../val2017/000002.png", "a/../../x"], "leads outside"),
    ("images", "file_name", ["no\n.png", "sub/x.png"], r"can't find .*png: No such file"),
    ("images", "file_name", ["a\0b", "\ud800", "x" * 5000, "."], "can't find "),
    *(
        (
            "images",
            key,
            [*(MISSING, 0, -1, 10**6 + 1, HUGE, 32.5, "32", None, True, math.nan, math.inf, [])],
            told,
        )
        for key, told in (("width", "width: expected an integer"), ("height", "height: expected an integer"))
    ),
    ("annotations", "image_id", [7, -1], r"image_id -?\d is no image's"),
    ("annotations", "image_id", [MISSING, 8.0, [8], None, HUGE], "image_id: expected an integer"),
    ("annotations", "category_id", [3, 0], r"category_id \d is no category's"),
    ("annotations", "category_id", [MISSING, True, "2", {}], "category_id: expected an integer"),
    ("annotations", "bbox", [MISSING], "bbox: nothing given: expected four finite numbers"),
    (
        "annotations",
        "bbox",
        [[], [1, 2, 3], [1, 2, 3, 4, 5], {}, "1234", 4, None],
        "bbox: expected four finite",
    ),
    ("annotations", "bbox", [[1, 2, 3, "4"], [1, 2, True, 4], [[1], 2, 3, 4]], "bbox: expected four finite"),
    ("annotations", "bbox", [[1, 2, 3, math.nan], [-math.inf, 2, 3, 4]], "bbox: expected four finite"),
    ("annotations", "bbox", [[1, 2, 3, HUGE], [None] * 4, nested(1)], "bbox: expected four finite"),
    ("annotations", "bbox", [[1, 2, -3, 4], [1, 2, 3, -1e-9]], "bbox: .* not negative"),
    (
        "annotations",
        "area",
        [-1, math.nan, math.inf, "9", None, True, [], HUGE, 1e13],
        "area: expected a number",
    ),
    ("annotations", "iscrowd", [2, -1, True, "0", None, [], 0.0], "iscrowd: expected 0 or 1"),
    ("categories", "name", [MISSING, 5, None, ["x"]], "name: expected a text"),
]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("valid"))


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
@pytest.mark.parametrize(("part", "told"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_files_that_are_no_annotations(valid: Path, part: object, told: str) -> None:
    is_refused(valid, part, told)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize(("value", "told"), BAD_LISTS)
def test_lists_that_are_missing_or_none(valid: Path, key: str, value: Any, told: str) -> None:
    part = content(5, 1)
    put(part, key, value)
    is_refused(valid, part, f'{key}: expected a list of at least one object, not "?{told}')


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize(("value", "told"), BAD_IDS, ids=range(len(BAD_IDS)))
def test_bad_ids(valid: Path, key: str, value: Any, told: str) -> None:
    part = content(5, 1)
    put(part[key][1], "id", value)
    is_refused(valid, part, rf"{key}\[1\].*: {told}")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_repeated_ids_and_what_is_no_object(valid: Path, key: str) -> None:
    part = content(5, 1)
    part[key].append(part[key][1] | {"name": "other"})
    at = len(part[key]) - 1
    is_refused(valid, part, rf"{key}\[{at}\] \(id {part[key][1]['id']}\): the id is that of {key}\[1\] too")
    part[key].insert(1, 3)
    is_refused(valid, part, rf"{key}\[1\]: expected an object, not 3")


@pytest.mark.parametrize(
    ("key", "field", "value", "told"),
    [(key, field, value, told) for key, field, values, told in BAD_VALUES for value in values],
    # The same in each process of a run.
    ids=lambda part: "missing" if part is MISSING else str(part),
)
def test_bad_values(valid: Path, key: str, field: str, value: Any, told: str) -> None:
    part = content(5, 1)
    put(part[key][2], field, value)
    number = {"images": 11, "annotations": 114, "categories": 7}[key]
    is_refused(valid, part, rf": {key}\[2\] \(id {number}\): .*{told}")


def test_other_bad_annotations(valid: Path) -> None:
    part = content(5, 1)
    assert len(in_val(valid, part)) == 5
    part["categories"][1]["name"] = "pear"
    is_refused(valid, part, "categories: ids 30 and 2 have one name, 'pear'")
    part = content(5, 1)
    del part["annotations"][2]["bbox"]
    part["annotations"][2]["segmentation"] = {"counts": [9], "size": [3, 3]}
    is_refused(valid, part, r"annotations\[2\] \(id 114\): bbox: RLE where boxes are wanted: expected four")
    part["annotations"][2]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    is_refused(valid, part, r"annotations\[2\] \(id 114\): bbox: nothing given: expected four")
    part = content(5, 1)
    for one in part["annotations"]:
        one["bbox"] = [1, 2, 3, 0]
    with pytest.warns(Notice):
        is_refused(valid, part, "annotations: expected a box with an area in its image, found none")


def put(into: Content, key: str, value: Any) -> None:
    into[key] = value
    if value is MISSING:
        del into[key]


def is_refused(folder: Path, part: object, told: str) -> None:
    file = write_annotations(folder, part)
    with pytest.raises(InputError, match=told) as error:
        for_evaluation(folder)
    assert str(error.value).startswith(f"{file}: ")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_images_that_are_missing(folder: Path) -> None:
    for name in ("000001.png", "000002.png", "000004.png"):
        (folder / "val2017" / name).unlink()
    (folder / "val2017" / "000004.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"images\[1\] \(id 8\).*and 2 more images are missing") as error:
        loaded(folder)
    assert f"{folder}/val2017/000001.png: No such file" in str(error.value)


def test_pipes_are_not_waited_for(folder: Path) -> None:
    file = folder / "annotations" / "instances_val2017.json"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match=r"instances_val2017\.json: it is not a regular file"):
        loaded(folder)


def test_folders_of_other_kinds(folder: Path, tmp_path: Path) -> None:
    annotations = folder / "annotations"
    (annotations / "captions_val2017.json").write_text("no matter")
    (annotations / "instances_val2014.json").write_text("{}")
    with pytest.raises(InputError, match=r"one file instances_val\*\.json.*val2014\.json, instances_val2017"):
        loaded(folder)
    for file in annotations.glob("instances_val*"):
        file.unlink()
    with pytest.raises(InputError, match=r"one file instances_val\*\.json.*found captions_val2017\.json"):
        loaded(folder)
    write_annotations(folder, content(5, 1))
    shutil.rmtree(folder / "val2017")
    with pytest.raises(InputError, match=r"expected .*/val2017 or .*/images/val2017"):
        loaded(folder)
    shutil.rmtree(annotations)
    with pytest.raises(InputError, match="annotations: No such file"):
        loaded(folder)
    with pytest.raises(InputError, match="null"):
        for_evaluation(Path("a\0b"))
    annotations.mkdir()
    with pytest.raises(InputError, match="found nothing"):
        loaded(folder)


@pytest.mark.parametrize(
    ("categories", "told"),
    [
        (CATEGORIES[:2], "category 7 is 'apple' in .*train2017.json and missing in .*val2017.json"),
        (
            (*CATEGORIES, (99, "fig")),
            "category 99 is missing in .*train2017.json and 'fig' in .*val2017.json",
        ),
        ((*CATEGORIES[:2], (7, "Apple")), "category 7 is 'apple' in .* and 'Apple' in"),
    ],
)
def test_categories_of_training_and_test_are_the_same(
    folder: Path, categories: tuple[tuple[int, str], ...], told: str
) -> None:
    part = content(5, 1)
    part["categories"] = [{"id": number, "name": name} for number, name in categories]
    write_annotations(folder, part)
    with pytest.raises(InputError, match=told):
        loaded(folder)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Container and key of each value inside `value`."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


NUMBERS = st.sampled_from([0, 1, 2, 5, 7, 8, 30, 100, 48, 1e-320, 1e308, -1e308, 2**63, -(10**400), 10**6])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["id", "bbox", "counts", "x"]), inner, max_size=3)
        | inner.map(nested)
    ),
    max_leaves=6,
)


@st.composite
def altered(draw: st.DrawFn) -> Any:
    """Valid annotations with values replaced, taken out or doubled."""
    part: Any = varied()
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(part, dict | list) or not part or draw(st.integers(0, 40)) == 0:
            return draw(VALUES)
        within, key = draw(st.sampled_from(list(places(part))))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"]))
        if how == "remove":
            del within[key]
        elif how == "double" and isinstance(within, list):
            within.append(copy.deepcopy(within[key]))
        else:
            within[key] = draw(VALUES)
    return part


@pytest.fixture(scope="module")
def varied_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("varied"), varied(), varied())


@pytest.mark.filterwarnings("ignore::wnexplore.errors.Notice")
@examples(400, suppress_health_check=[HealthCheck.too_slow])
@given(altered())
def test_any_annotations_are_loaded_or_refused_in_a_line(varied_folder: Path, part: Any) -> None:
    file = write_annotations(varied_folder, part)
    try:
        data = for_evaluation(varied_folder)
    except InputError as error:
        message = str(error)
    else:
        message = f"{file}"
        are_sound(data)
    assert message.startswith(str(file))
    assert message.isprintable()
    assert len(message) < 2000


def are_sound(data: Data) -> None:
    found = pictures(data.test)
    for (height, width), objects in zip(found.sizes, found.objects, strict=True):
        is_sound(objects, torch.tensor([width, height]), data.num_classes)


def is_sound(objects: Boxes, sides: Tensor, classes: int) -> None:
    assert (objects.boxes[:, :2] >= 0).all()
    assert (objects.boxes[:, 2:] <= sides).all()
    assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()
    assert ((objects.labels >= 0) & (objects.labels < classes)).all()
    assert (objects.areas >= 0).all()
    assert objects.areas.isfinite().all()
