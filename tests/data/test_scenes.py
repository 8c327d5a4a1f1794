"""Scenes: their boxes are those of what is seen, and an image and its boxes are augmented together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.examples import examples
from wnexplore.data import Augment, EpochPass, load_data
from wnexplore.data.detection import Boxes, DetectionSplit, Target
from wnexplore.data.drawing import OUTLINES
from wnexplore.data.painting import Draws, background, grid, paint_clutter, paint_object, placed
from wnexplore.data.scenes import DrawnScenes
from wnexplore.data.shapes import DrawnImages
from wnexplore.design.data_source import parse_data
from wnexplore.errors import InputError

KINDS = DrawnImages.kinds_of(4)
Batch = tuple[list[Tensor], list[Target]]
Pixels = set[tuple[int, int]]
"""x and y of some."""


def split_of(source: str = "scenes:2x40", part: str = "train", **augment: float | bool) -> DetectionSplit:
    data = load_data(source, resolution=24, augment=Augment(**augment))  # type: ignore[arg-type]
    found = getattr(data, part)
    assert isinstance(found, DetectionSplit)
    return found


def passed(
    split: DetectionSplit, batch_size: int, training: EpochPass, rank: int = 0, world: int = 1
) -> list[Batch]:
    return list(split.batches(batch_size, "cpu", training, rank=rank, world=world))


def same(one: Batch, other: Batch) -> bool:
    (images, targets), (others, of_others) = one, other
    return all(map(torch.equal, images, others)) and [*map(_plain, targets)] == [*map(_plain, of_others)]


def _plain(target: Target) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in target.items()}


def indices(batches: Iterable[Batch]) -> list[int]:
    return [int(target["image"]) for _, targets in batches for target in targets]


def painted(seed: int, index: int, resolution: int) -> tuple[Tensor, list[tuple[int, Pixels, Pixels]]]:
    """Image `index`, painted by itself: its pixels, and of each object the label, what it covers, and what
    of that no later one covers."""
    draw = Draws(seed, np.array([index], dtype=np.uint64))
    x, y = grid(resolution)
    canvas = background(draw, x, y)
    paint_clutter(canvas, draw, x, y, draw.choice(len(OUTLINES)))
    count = int(draw.choice(7)[0])
    objects: list[tuple[int, Pixels, Pixels]] = []
    for _ in range(count):
        label = int(draw.choice(len(KINDS))[0])
        shape, texture = (np.array([part]) for part in KINDS[label])
        size = np.exp(draw.uniform(np.log(0.1), np.log(0.5)))
        at = placed(draw, x, y, size, reach=0.9)
        (covered,) = paint_object(canvas, draw, at, size, shape, texture)
        pixels = {(p % resolution, p // resolution) for p in np.flatnonzero(covered > 0.5).tolist()}
        for _, _, visible in objects:
            visible -= pixels
        objects.append((label, pixels, set(pixels)))
    drawn = canvas[0] + draw.noise(len(x))[0]
    return torch.from_numpy(drawn * 255 + 0.5).clamp(0, 255).byte().view(3, resolution, resolution), objects


def test_boxes_are_those_of_what_is_seen() -> None:
    scenes, covered, hidden = DrawnScenes(KINDS, 48, 60, 5), 0, 0
    for index, found in enumerate(scenes.objects):
        pixels, objects = painted(5, index, 48)
        assert (pixels.int() - scenes[index].int()).abs().max() <= 1
        expected = []
        for label, whole, visible in objects:
            if not visible or len(visible) < 0.25 * len(whole):
                hidden += 1
                continue
            covered += len(visible) < len(whole)
            (left, top), (right, bottom) = (
                [pick(one[axis] for one in visible) for axis in (0, 1)] for pick in (min, max)
            )
            expected.append((label, [left, top, right + 1, bottom + 1], len(visible)))
        said = (found.labels.tolist(), found.boxes.tolist(), found.areas.tolist())
        assert list(zip(*said, strict=True)) == expected
    # There were some of each.
    assert covered > 10
    assert hidden > 2


@examples(20)
@given(resolution=st.integers(1, 80), seed=st.integers(0, 9), classes=st.integers(1, 100))
def test_boxes_lie_in_their_image_around_their_area(resolution: int, seed: int, classes: int) -> None:
    for found in DrawnScenes(DrawnImages.kinds_of(classes), resolution, 20, seed).objects:
        count = len(found.labels)
        assert count <= 6
        shapes = [one.shape for one in (found.boxes, found.areas, found.crowd)]
        assert shapes == [(count, 4), (count,), (count,)]
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert (sides >= 1).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= resolution).all()
        assert (found.areas >= 1).all()
        assert (found.areas <= sides.prod(1)).all()
        # No pixel shows two.
        assert found.areas.sum() <= resolution**2
        assert ((found.labels >= 0) & (found.labels < classes)).all()
        assert not found.crowd.any()


def equal(one: Boxes, other: Boxes) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "labels", "areas"))


def test_an_image_follows_from_its_number_and_the_seed_alone() -> None:
    few, many, others = (DrawnScenes(KINDS, 64, count, seed) for count, seed in ((5, 1), (50, 1), (5, 2)))
    for index in range(5):
        assert torch.equal(few[index], many[index])
        assert equal(few.objects[index], many.objects[index])
        assert not torch.equal(few[index], others[index])
    assert len(torch.unique(torch.stack([many[index].flatten() for index in range(50)]), dim=0)) == 50


def test_images_have_up_to_six_objects_of_all_classes() -> None:
    objects = DrawnScenes(KINDS, 32, 400, 0).objects
    counts = torch.bincount(torch.tensor([len(one.labels) for one in objects]))
    assert len(counts) == 7
    # A seventh has none; of later ones some are hidden.
    assert counts.min() > 10
    labels = torch.bincount(torch.cat([one.labels for one in objects]))
    assert len(labels) == 4
    assert labels.min() > 0.8 * labels.max()
    small, large = (torch.cat([one.areas for one in objects]).double().quantile(q) for q in (0.1, 0.9))
    assert large > 5 * small


def test_sizes_names_and_parts_are_as_asked() -> None:
    data = load_data("scenes:3x50", resolution=20)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("scenes:3x50", 3, 50, 25)
    assert data.classes == load_data("shapes:3x50", resolution=4).classes
    train, test = split_of("scenes:3x50"), split_of("scenes:3x50", "test")
    assert train.pictures.sizes == [(24, 24)] * 50
    assert not any(torch.equal(train.pictures[index], test.pictures[index]) for index in range(25))
    usual = load_data("scenes", resolution=8)
    assert (usual.name, usual.num_classes, len(usual.train), len(usual.test)) == ("scenes", 4, 2000, 1000)


def test_a_test_has_each_image_as_drawn() -> None:
    split = split_of(part="test", colour_jitter=0.5)
    batches = list(split.batches(6, "cpu"))
    assert [len(images) for images, _ in batches] == [6, 6, 6, 2]
    images = [image for some, _ in batches for image in some]
    targets = [target for _, some in batches for target in some]
    assert [int(target["image"]) for target in targets] == list(range(20))
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        assert image.dtype == torch.float32
        assert torch.equal(image, split.pictures[index] / 255)
        assert torch.equal(target["boxes"], split.pictures.objects[index].boxes)
        assert torch.equal(target["labels"], split.pictures.objects[index].labels)


@pytest.mark.parametrize("flip", [True, False])
def test_about_half_of_the_training_is_flipped_with_its_boxes(flip: bool) -> None:
    split, flipped, seen = split_of(flip=flip), 0, 0
    for images, targets in passed(split, 8, EpochPass(0, 0)):
        for image, target in zip(images, targets, strict=True):
            index = int(target["image"])
            drawn, boxes = split.pictures[index] / 255, split.pictures.objects[index].boxes
            if not torch.equal(image, drawn):
                drawn, boxes = drawn.flip(2), (24 - boxes[:, [2, 1, 0, 3]]).abs()
                boxes[:, [1, 3]] = split.pictures.objects[index].boxes[:, [1, 3]]
                flipped += 1
            assert torch.equal(image, drawn)
            assert torch.equal(target["boxes"], boxes)
            assert torch.equal(target["labels"], split.pictures.objects[index].labels)
            seen += 1
    assert seen == 40
    assert 10 < flipped < 30 if flip else flipped == 0


def test_seed_and_epoch_alone_decide_a_pass() -> None:
    split = split_of(colour_jitter=0.4)
    state = torch.get_rng_state()
    first = passed(split, 8, EpochPass(1, 0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = passed(split, 8, EpochPass(1, 0))
    assert len(first) == len(again) == 5
    assert all(map(same, first, again))
    assert sorted(indices(first)) == list(range(40))
    for other in (EpochPass(2, 0), EpochPass(1, 1)):
        assert indices(passed(split, 8, other)) != indices(first)


@pytest.mark.parametrize(("batch_size", "start", "world"), [(8, 3, 2), (7, 1, 3), (64, 0, 2)])
def test_a_pass_continues_and_is_shared_bit_for_bit(batch_size: int, start: int, world: int) -> None:
    split = split_of(colour_jitter=0.4)
    full = passed(split, batch_size, EpochPass(4, 2))
    assert len(full) == split.batches_per_pass(batch_size) == max(1, 40 // batch_size)
    rest = passed(split, batch_size, EpochPass(4, 2, start))
    assert len(rest) == len(full) - start
    assert all(map(same, rest, full[start:]))
    for rank in range(world):
        share = passed(split, batch_size, EpochPass(4, 2), rank, world)
        assert len(share) == len(full)
        for (images, targets), part in zip(full, share, strict=True):
            assert same((images[rank::world], targets[rank::world]), part)
            assert len(part[0]) == len(part[1]) == len(images[rank::world])
        tested = indices(split.batches(8, "cpu", rank=rank, world=world))
        assert tested == list(range(40))[rank::world]


@pytest.mark.parametrize(
    ("text", "classes", "images", "label"),
    [
        ("scenes", 4, 2000, "scenes"),
        ("scenes:3", 3, 2000, "scenes:3"),
        ("scenes:3x50", 3, 50, "scenes:3x50"),
        ("scenes:4x2000", 4, 2000, "scenes"),
        ("scenes:100x4", 100, 4, "scenes:100x4"),
    ],
)
def test_its_text_says_classes_and_images(text: str, classes: int, images: int, label: str) -> None:
    source = parse_data(text)
    assert (source.name, source.classes, source.images) == ("scenes", classes, images)
    assert (source.label, source.text, source.task) == (label, label, "detection")
    assert parse_data(source.text) == source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scenes:0", "expected 1 to 100 classes"),
        ("scenes:101", "expected 1 to 100 classes"),
        ("scenes:2x3", "expected 4 to 10000000 images"),
        ("scenes:2x10000001", "expected 4 to 10000000 images"),
        ("scenes:x", "expected 'scenes:CLASSES' or 'scenes:CLASSESxIMAGES'"),
        ("scenes:-1", "expected 'scenes:CLASSES' or 'scenes:CLASSESxIMAGES'"),
        ("scenes:2x8:fine", "expected 'scenes:CLASSES' or 'scenes:CLASSESxIMAGES'"),
        ("scenes:2\n", "expected 'scenes:CLASSES' or 'scenes:CLASSESxIMAGES'"),
        ("scenes:", "expected 'scenes:CLASSESxIMAGES'"),
    ],
)
def test_another_text_is_refused_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(InputError) as told:
        parse_data(text)
    assert str(told.value).startswith("data set 'scenes:")
    assert expected in str(told.value)
    assert "\n" not in str(told.value)
