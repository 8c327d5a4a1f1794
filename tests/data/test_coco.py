"""Images with boxes from files in COCO's format: what is read, and what a training and a test see."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.data.coco_folder import (
    add_object,
    content,
    in_val,
    loaded,
    pictures,
    varied,
    write_annotations,
    write_coco,
)
from wnexplore.data import Data, EpochPass
from wnexplore.data.coco import tested_coco as for_evaluation  # else pytest takes it for a test
from wnexplore.data.detection import DetectionSplit
from wnexplore.errors import Notice

NAMES = ("quince", "apple", "pear")
"""The categories in the order of their ids, 2, 7 and 30."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coco(tmp_path)


def noticed(folder: Path) -> tuple[Data, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = loaded(folder)
    assert {one.category for one in caught} <= {Notice}
    return data, [str(one.message) for one in caught]


def test_boxes_and_labels(tmp_path: Path) -> None:
    part = content(2)
    del part["annotations"][0]["area"], part["annotations"][0]["iscrowd"]
    part["annotations"][0] |= {"bbox": [2.5, 3, 10, 4.25], "category_id": 30}
    add_object(part, 0, [1, 2, 3, 4], 7, area=5.5, iscrowd=1)
    part["images"].reverse()
    data = loaded(write_coco(tmp_path, val=part))
    assert (data.name, data.num_classes, data.classes) == ("coco", 3, NAMES)
    found = pictures(data.test)
    assert (len(data.test), len(found), list(found.sizes)) == (2, 2, [(48, 32), (32, 48)])
    assert found.name(1) == str(tmp_path / "val2017" / "000000.png")
    objects = found.objects[1]
    assert objects.boxes.tolist() == [[2.5, 3, 12.5, 7.25], [1, 2, 4, 6]]
    assert objects.labels.tolist() == [2, 1]
    assert objects.areas.tolist() == [42.5, 5.5]
    assert objects.crowd.tolist() == [False, True]
    assert [one.dtype for one in (objects.boxes, objects.labels, objects.areas, objects.crowd)] == [
        *(torch.float32, torch.int64, torch.float32, torch.bool)
    ]


def test_boxes_are_those_of_pycocotools(tmp_path: Path) -> None:
    api = pytest.importorskip("pycocotools.coco")
    write_coco(tmp_path, varied(), varied())
    data, _ = noticed(tmp_path)
    found = pictures(data.test)
    reference = api.COCO(tmp_path / "annotations" / "instances_val2017.json")
    images = reference.dataset["images"]
    assert len(found) == len(images) == 6
    ids = sorted(reference.getCatIds())
    assert data.classes == tuple(one["name"] for one in reference.loadCats(ids))
    for image, objects in zip(images, found.objects, strict=True):
        expected = reference.loadAnns(reference.getAnnIds(imgIds=image["id"]))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in expected)]
        assert objects.boxes.tolist() == boxes
        assert objects.labels.tolist() == [ids.index(one["category_id"]) for one in expected]
        assert objects.areas.tolist() == [one["area"] for one in expected]
        assert objects.crowd.tolist() == [one["iscrowd"] == 1 for one in expected]


def test_training_images_without_boxes_are_left_out_and_said(tmp_path: Path) -> None:
    data, said = noticed(write_coco(tmp_path, varied(), varied()))
    names = [os.path.basename(pictures(data.train).name(i)) for i in range(len(data.train))]
    assert names == ["000000.png", "000001.png", "000002.png", "000004.png"]
    assert len(data.test) == 6
    # What is left is that of the test.
    for one, image in zip(pictures(data.train).objects, (0, 1, 2, 4), strict=True):
        assert torch.equal(one.boxes, pictures(data.test).objects[image].boxes)
        assert torch.equal(one.labels, pictures(data.test).objects[image].labels)
    assert [len(one.boxes) for one in pictures(data.test).objects] == [3, 1, 2, 1, 1, 0]
    train, val = sorted(said)
    assert "instances_train2017.json" in train
    assert "left out: 2, the first images[3] (id 14)" in train
    assert "instances_val2017.json" in val
    assert "left out" not in val
    assert ": 2, the first images[3] (id 14)" in val


def test_a_proper_folder_needs_no_notice(folder: Path) -> None:
    assert noticed(folder)[1] == []


@pytest.mark.parametrize(
    ("box", "kept", "told"),
    [
        ([5, 5, 0, 4], None, "without width or height"),
        ([5, 5, 4, 0], None, "without width or height"),
        ([40.3, 5, 1e-9, 4], None, "without width or height"),
        ([-3, 5, 10, 4], [0, 5, 7, 9], "clipped"),
        ([40, 30, 10, 4], [40, 30, 48, 32], "clipped"),
        ([-1e300, -1, 1.5e300, 1e308], [0, 0, 48, 32], "clipped"),
        ([-1, -1.7e308, 1.7e308, 1.7e308], None, "outside"),
        ([5, 32, 4, 4], None, "outside"),
        ([-9, 5, 9, 4], None, "outside"),
        ([10**300, 5, 9, 4], None, "outside"),
        ([1.5e308, 5, 1.5e308, 4], None, "outside"),
        # As rounding leaves it.
        ([40, 5, 8.004, 4], [40, 5, 48, 9], None),
    ],
)
def test_boxes_beyond_their_image(
    folder: Path, box: list[float], kept: list[float] | None, told: str | None
) -> None:
    part = content(3)
    for _ in range(2):
        add_object(part, 2, box, area=3)
    write_annotations(folder, part)
    data, said = noticed(folder)
    found = pictures(data.test).objects[2].boxes[1:]
    assert torch.equal(found, torch.tensor([] if kept is None else [kept] * 2).reshape(-1, 4).float())
    if told is None:
        assert said == []
    else:
        assert len(said) == 1
        assert told in said[0]
        assert ("left out" in said[0]) == (kept is None)
        assert said[0].endswith(": 2, the first annotations[3] (id 121)")


def test_an_area_that_is_missing_is_that_of_the_clipped_box(folder: Path) -> None:
    part = content(1)
    part["annotations"][0] |= {"bbox": [40, 2, 1e300, 3]}
    del part["annotations"][0]["area"]
    with pytest.warns(Notice):
        assert in_val(folder, part).objects[0].areas.tolist() == [24]


@pytest.mark.parametrize(("names", "under"), [(("train", "val"), ""), (("train2014", "val_x"), "images")])
def test_other_names_and_places(tmp_path: Path, names: tuple[str, str], under: str) -> None:
    data = loaded(write_coco(tmp_path, names=names, under=under))
    assert pictures(data.train).name(0) == str(tmp_path / under / names[0] / "000000.png")
    assert (len(data.train), len(data.test)) == (6, 5)


def test_images_are_decoded(folder: Path) -> None:
    image = folder / "val2017" / "000000.png"
    found = pictures(for_evaluation(folder).test)
    assert found.from_files
    assert found[0].dtype == torch.uint8
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), np.asarray(Image.open(image)))
    # Sixteen bits become eight: 25900 / 257 is 100.8.
    Image.fromarray(np.full((32, 48), 25900, np.uint16)).save(image)
    assert (found[0].dtype, found[0].shape, found[0].unique().tolist()) == (torch.uint8, (3, 32, 48), [101])


@pytest.mark.parametrize("upright", [True, False])
def test_an_image_lies_as_its_annotations_say(folder: Path, upright: bool) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (32, 48, 3) if not upright else (48, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(stored).save(folder / "val2017" / "000000.png", exif=exif)
    found = pictures(for_evaluation(folder).test)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, np.rot90(stored, -1) if upright else stored)


def test_damaged_images_are_tallied(folder: Path) -> None:
    data = for_evaluation(folder)
    Image.new("RGB", (32, 48)).save(folder / "val2017" / "000000.png")
    (folder / "val2017" / "000003.png").write_bytes(b"no image")
    batches = list(data.test.batches(2, "cpu"))
    assert torch.stack([target["image"] for _, targets in batches for target in targets]).tolist() == [
        1,
        2,
        4,
    ]
    why = {os.path.basename(path): why for path, why in data.test.why_damaged.items()}
    assert why["000000.png"] == "it is 32x48 pixels, and the annotations say 48x32"
    assert "format" in why["000003.png"]


def test_for_evaluation_the_training_may_be_missing(folder: Path) -> None:
    both = loaded(folder)
    (folder / "annotations" / "instances_train2017.json").unlink()
    shutil.rmtree(folder / "train2017")
    data = for_evaluation(folder)
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("coco", NAMES, 5, 5)
    assert data.listing != both.listing
    targets = [target for _, targets in data.test.batches(2, "cpu") for target in targets]
    expected = pictures(both.test).objects
    assert all(torch.equal(targets[i]["boxes"], expected[i].boxes) for i in range(5))


def test_pictures_reach_another_process_whole_and_small(folder: Path) -> None:
    found = pictures(loaded(folder).train)
    copied = pickle.loads(pickle.dumps(found))
    for index in range(len(found)):
        assert torch.equal(copied[index], found[index])
        assert torch.equal(copied.objects[index].boxes, found.objects[index].boxes)
    assert torch.equal(copied.objects[-1].boxes, found.objects[5].boxes)
    assert [one.labels.tolist() for one in copied.objects[1:3]] == [[0], [2]]
    with pytest.raises(IndexError):
        copied.objects[6]
    many = content(1)
    many["images"] = [many["images"][0] | {"id": number} for number in range(1000)]
    many["annotations"] = [
        many["annotations"][0] | {"id": number, "image_id": number // 2} for number in range(2000)
    ]
    assert len(pickle.dumps(in_val(folder, many))) < 200_000


def test_the_listing_tells_changed_folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = loaded(folder).listing
    assert before is not None
    moved = shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "copy")
    assert loaded(moved).listing == before

    def changed(change: Callable[[], object]) -> tuple[bool, bool]:
        """Whether the listing differs by names and classes, and by contents."""
        change()
        now = loaded(folder).listing
        assert now is not None
        parts = zip(now.split("-"), before.split("-"), strict=True)
        shutil.rmtree(folder)
        shutil.copytree(moved, folder)
        names, contents = (one != other for one, other in parts)
        return names, contents

    def renamed() -> None:
        part = content(5, 1)
        part["images"][0]["file_name"] = "other.png"
        write_annotations(folder, part)
        (folder / "val2017" / "000000.png").rename(folder / "val2017" / "other.png")

    image = folder / "train2017" / "000001.png"
    assert changed(lambda: image.write_bytes(image.read_bytes() + b"\0")) == (False, True)
    assert changed(lambda: write_annotations(folder, content(5, 2))) == (False, True)
    assert changed(renamed) == (True, True)
    assert changed(lambda: None) == (False, False)


def everything(
    split: object, training: EpochPass | None = None, batch_size: int = 3, **share: int
) -> list[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    assert isinstance(split, DetectionSplit)
    return list(split.batches(batch_size, "cpu", training, **share))


def bright(image: Tensor) -> list[float]:
    """The bounding box of the bright pixels: x1, y1, x2, y2."""
    rows, columns = (image.mean(0) > 0.5).nonzero().unbind(1)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_tested_images_are_as_they_are(folder: Path) -> None:
    for images, targets in everything(loaded(folder, scales=(20,)).test):
        for image, target in zip(images, targets, strict=True):
            assert tuple(image.shape[1:]) in ((32, 48), (48, 32))
            assert target["boxes"].tolist() == [bright(image)]


def test_training_boxes_follow_the_flipped_and_resized_image(tmp_path: Path) -> None:
    split = loaded(write_coco(tmp_path, content(24)), scales=(40, 64), longest=80).train
    flips, sides = [], set()
    for images, targets in everything(split, EpochPass(0, 0)):
        # Of one side within a batch, 64 less where the longer one, half as long again, would be beyond 80.
        assert len({min(image.shape[1:]) for image in images}) == 1
        for image, target in zip(images, targets, strict=True):
            sides.add((min(image.shape[1:]), max(image.shape[1:])))
            assert target["boxes"].tolist()[0] == pytest.approx(bright(image), abs=1.5)
            before = pictures(split).objects[int(target["image"])]
            assert torch.equal(target["labels"], before.labels)
            scale = min(image.shape[1:]) / 32
            x1, y1, x2, y2 = (before.boxes[0] * scale).tolist()
            mirrored = [image.shape[2] - x2, y1, image.shape[2] - x1, y2]
            flips.append(target["boxes"].tolist()[0] == pytest.approx(mirrored, abs=1))
            if not flips[-1]:
                assert target["boxes"].tolist()[0] == pytest.approx([x1, y1, x2, y2], abs=1)
    assert sides == {(40, 60), (53, 80)}
    assert 5 < sum(flips) < 19
    assert len(flips) == 24


def test_augmentation_as_asked_for(folder: Path) -> None:
    for images, targets in everything(loaded(folder, flip=False).train, EpochPass(0, 0)):
        for image, target in zip(images, targets, strict=True):
            before = pictures(loaded(folder).train).objects[int(target["image"])]
            assert target["boxes"].tolist() == before.boxes.tolist() == [bright(image)]
    dark = {float(i.min()) for images, _ in everything(loaded(folder).train, EpochPass(0, 0)) for i in images}
    assert len(dark) == 1
    jittered = loaded(folder, colour_jitter=0.4).train
    dark = {float(i.min()) for images, _ in everything(jittered, EpochPass(0, 0)) for i in images}
    assert len(dark) > 3


def test_a_pass_determines_its_batches(folder: Path) -> None:
    split = loaded(folder, scales=(24, 32), colour_jitter=0.2).train
    first, again, later = (everything(split, EpochPass(3, epoch)) for epoch in (1, 1, 2))
    assert len(first) == 2
    assert flat(first) == flat(again)
    assert flat(first) != flat(later)


def test_two_ranks_see_what_one_process_sees(folder: Path) -> None:
    split = loaded(folder, scales=(24, 32), colour_jitter=0.2).train
    alone = everything(split, EpochPass(3, 1), batch_size=2)
    ranks = [everything(split, EpochPass(3, 1), batch_size=2, rank=rank, world=2) for rank in range(2)]
    assert [len(part) for part in (alone, *ranks)] == [3, 3, 3]
    for batch in range(3):
        assert flat(alone[batch : batch + 1]) == flat([part[batch] for part in ranks])


def flat(batches: list[tuple[list[Tensor], list[dict[str, Tensor]]]]) -> dict[int, Any]:
    """Index -> pixels, boxes and labels, for comparisons."""
    return {
        int(target["image"]): (image.tolist(), target["boxes"].tolist(), target["labels"].tolist())
        for images, targets in batches
        for image, target in zip(images, targets, strict=True)
    }
