from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from torch import nn

from tests.data.splits import everything
from tests.examples import examples
from tests.trainings import train
from wnexplore.data import Data, EpochPass, TensorSplit, load_data
from wnexplore.data.drawing import FINE_OUTLINES, FINE_TEXTURES, HUES, OUTLINES, TEXTURES, reaches
from wnexplore.data.shapes import DrawnImages, FineImages, SuperclassImages
from wnexplore.design.protocol import Recipe

drawings = pytest.mark.parametrize("drawing", [DrawnImages, FineImages, SuperclassImages])


@drawings
@examples(30)
@given(
    classes=st.integers(2, 100),
    resolution=st.integers(1, 40),
    numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_an_image_follows_from_its_number_alone(
    drawing: type[DrawnImages], classes: int, resolution: int, numbers: list[int], seed: int
) -> None:
    images = drawing(drawing.kinds_of(classes), resolution, 10**6 + 1, seed)
    together = images[torch.tensor(numbers)]
    assert together.shape == (len(numbers), 3, resolution, resolution)
    assert together.dtype == torch.uint8
    for number, image in zip(numbers, together, strict=True):
        assert torch.equal(images[torch.tensor([number])][0], image)


@drawings
def test_images_of_another_number_or_seed_are_others(drawing: type[DrawnImages]) -> None:
    numbers = torch.arange(0, 400, 10)  # of one class
    drawn = [drawing(drawing.kinds_of(10), 16, 400, seed)[numbers].flatten(1) for seed in (0, 1)]
    assert len(torch.unique(torch.cat(drawn), dim=0)) == 80
    # No two resemble each other more than the noise lets chance do: correlations stay below 1.
    assert np.sort(np.corrcoef(torch.cat(drawn).numpy()).ravel())[-81] < 0.95


@pytest.mark.parametrize("classes", [2, 3, 10, 26, 100])
def test_classes_are_pairs_of_shape_and_texture(classes: int) -> None:
    pairs = DrawnImages.kinds_of(classes)
    assert len(set(pairs)) == len(pairs) == classes
    shapes, textures = (max(column) + 1 for column in zip(*pairs, strict=True))
    assert shapes <= len(OUTLINES)
    assert textures <= len(TEXTURES)
    assert classes < 4 or min(shapes, textures) >= 2


@pytest.mark.parametrize("classes", [2, 8, 20, 100, 729, 1000])
def test_fine_classes_are_triples_that_only_together_differ(classes: int) -> None:
    kinds = FineImages.kinds_of(classes)
    assert len(set(kinds)) == len(kinds) == classes == len({FineImages.name(kind) for kind in kinds})
    across = [len(set(column)) for column in zip(*kinds, strict=True)]
    assert all(found <= most for found, most in zip(across, (len(part) for part in _PARTS), strict=True))
    assert classes < 5 or min(across) >= 2


_PARTS = (FINE_OUTLINES, FINE_TEXTURES, HUES)


@pytest.mark.parametrize("classes", [2, 3, 20, 90, 100])
def test_classes_of_a_superclass_differ_in_one_cue(classes: int) -> None:
    kinds = SuperclassImages.kinds_of(classes)
    assert len(set(kinds)) == len(kinds) == classes == len({SuperclassImages.name(kind) for kind in kinds})
    members: dict[int, list[tuple[int, ...]]] = {}
    for *parts, superclass, _ in kinds:
        members.setdefault(superclass, []).append(tuple(parts))
    assert len(members) <= 10
    for superclass, found in members.items():
        values = [len(set(column)) for column in zip(*found, strict=True)]
        assert values == [len(found) if cue == superclass % 3 else 1 for cue in range(3)]
        assert max(map(max, found)) < 10


def test_the_surroundings_tell_the_superclass_and_not_the_class() -> None:
    """Colours of the corners, which objects rarely reach: 4 superclasses of 4 classes."""
    data = load_data("shapes:16x4000:superclasses", resolution=16)
    (images, labels), (tested, expected) = everything(data.train), everything(data.test)
    corners, of_test = (part[:, :, ::15, ::15].flatten(1).numpy() for part in (images, tested))
    # Quadratic, as hues lie on a circle.
    found = make_pipeline(PolynomialFeatures(2), RidgeClassifier(alpha=1e2)).fit(corners, labels)
    told = torch.from_numpy(found.predict(of_test))
    superclass = (told % 4 == expected % 4).double().mean()
    assert superclass > 0.5
    # Of the images with the right superclass about a quarter have the right class.
    assert (told == expected).double().mean() < 0.4 * superclass


def test_an_image_is_the_one_of_earlier_versions() -> None:
    image = DrawnImages(DrawnImages.kinds_of(20), 4, 2000, 0)[torch.tensor([1234])][0]
    # Within one level: the last bits of a sine depend on the processor.
    assert (image.int() - torch.tensor(EARLIER)).abs().max() <= 1


EARLIER = [
    [[135, 88, 142, 157], [64, 160, 70, 148], [154, 85, 105, 170], [158, 158, 150, 155]],
    [[52, 73, 61, 55], [36, 218, 88, 46], [65, 43, 158, 73], [59, 54, 163, 100]],
    [[83, 82, 83, 78], [132, 183, 66, 103], [88, 84, 130, 94], [106, 101, 140, 94]],
]
"""As drawn before there was a second drawing: records of `shapes` are compared with those of then."""


def test_sizes_labels_and_names_are_as_asked() -> None:
    data = load_data("shapes:7x100", resolution=20)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("shapes:7x100", 7, 100, 50)
    assert len(set(data.classes)) == 7
    assert data.classes[:2] == ("even disk", "even triangle")
    images, labels = everything(data.test)
    assert images.shape == (50, 3, 20, 20)
    assert torch.bincount(labels).tolist() == [8] + [7] * 6
    usual = load_data("shapes", resolution=8)
    assert (usual.name, usual.num_classes, len(usual.train), len(usual.test)) == ("shapes", 10, 2000, 1000)


@pytest.mark.parametrize(
    ("source", "within"), [("shapes", 0.1), ("shapes:1000:fine", 0.25), ("shapes:100:superclasses", 0.25)]
)
def test_pixels_are_about_normalised(source: str, within: float) -> None:
    images, _ = everything(load_data(source, resolution=16).train)
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=within)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=within)


def test_the_fine_drawing_has_the_names_and_images_of_its_kinds() -> None:
    data = load_data("shapes:27x54:fine", resolution=24)
    assert (data.name, data.num_classes) == ("shapes:27x54:fine", 27)
    assert data.classes[:2] == ("red, broadly striped square", "red, broadly striped pentagon")
    images, labels = everything(data.train)
    assert labels.tolist() == [*range(27)] * 2
    coarse, _ = everything(load_data("shapes:27x54", resolution=24).train)
    assert not torch.equal(images, coarse)


@pytest.mark.parametrize("part", range(3))
def test_each_part_of_a_fine_kind_shows(part: int) -> None:
    """The same image, but for one part of its kind, differs inside its shape and nowhere else."""
    kinds = [tuple(int(other == part) * value for other in range(3)) for value in (0, 1)]
    one, other = (FineImages((kind,), 32, 50, 0)[torch.arange(50)].int() for kind in kinds)
    changed = ((one - other).abs().amax(1) > 3).float().mean((1, 2))
    assert changed.max() < 0.7
    assert (changed > 0.02).float().mean() > 0.9


def test_outlines_and_textures_of_the_fine_drawing_are_ten_each() -> None:
    assert len(FINE_OUTLINES) == len(FINE_TEXTURES) == len(HUES) == 10
    table = reaches("fine")
    assert table.min() > 0.1
    assert (table.astype(float) ** 2).mean(1) * np.pi == pytest.approx(np.pi, rel=1e-4)


def test_training_and_test_are_drawn_apart() -> None:
    data = load_data("shapes:2x40", resolution=16)
    assert not torch.equal(everything(data.train)[0][:20], everything(data.test)[0])


def test_larger_sets_than_are_kept_are_drawn_by_the_batch() -> None:
    data = load_data("shapes:3x100000", resolution=64)
    images, labels = next(iter(data.train.batches(5, "cpu", EpochPass(0, 0, start=10**4))))
    assert images.shape == (5, 3, 64, 64)
    assert len(labels) == 5
    assert isinstance(data.train, TensorSplit)
    assert not data.train._kept


def test_outlines_have_one_area_and_are_reported_apart() -> None:
    table = reaches()
    assert table.shape[0] == len(OUTLINES) == len(TEXTURES) == 10
    assert table.min() > 0.1
    # In polar coordinates an area is half the integral of the squared reach: its mean times pi.
    assert (table.astype(float) ** 2).mean(1) * np.pi == pytest.approx(np.pi, rel=1e-4)
    for i, one in enumerate(table):
        for other in table[i + 1 :]:
            turned = min(np.abs(one - np.roll(other, by)).mean() for by in range(0, table.shape[1], 8))
            assert turned > 0.04


@pytest.mark.parametrize(("name", "perimeter"), [("square", 8 / np.sqrt(2)), ("triangle", 3 * np.sqrt(3))])
def test_polygons_are_regular(name: str, perimeter: float) -> None:
    theta = np.linspace(0, 2 * np.pi, 24001)
    reach = OUTLINES[name](theta % (2 * np.pi))
    assert np.hypot(*np.diff(reach * np.array([np.cos(theta), np.sin(theta)]))).sum() == pytest.approx(
        perimeter, rel=1e-4
    )


def of_linear_classifier(data: Data) -> float:
    """Accuracy in percent of the best of several ridge regressions on pixels, each class against the rest."""
    (images, labels), (tested, expected) = everything(data.train), everything(data.test)
    scores: list[float] = [
        RidgeClassifier(alpha=alpha).fit(images.flatten(1).numpy(), labels).score(tested.flatten(1), expected)
        for alpha in (1e2, 1e4, 1e6)
    ]
    return 100 * max(scores)


def test_pixels_alone_tell_little() -> None:
    assert of_linear_classifier(load_data("shapes", resolution=16)) < 20


def three_convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for into, width, stride in ((3, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += (nn.Conv2d(into, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


@pytest.mark.slow
def test_a_plain_network_learns_them_and_not_all_of_them() -> None:
    # 16 pixels, of which a linear classifier makes less than 20 %: larger images take minutes.
    data = load_data("shapes", resolution=16)
    top1 = train(three_convolutions, data, Recipe(epochs=8), seed=0, device="cpu").score
    assert 35 < top1 < 95
