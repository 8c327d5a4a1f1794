from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import CIFAR10

from wnexplore.errors import InputError, RunError
from wnexplore.measure.data import Split, TensorSplit, load_data


def everything(split: Split, seed: int | None = None, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    images, labels = zip(*split.batches(batch_size, "cpu", generator), strict=True)
    return torch.cat(images), torch.cat(labels)


def plain_split(images: Tensor, *, shift: int = 0, flip: bool = False) -> TensorSplit:
    """A split without normalisation whose labels number the images."""
    n, _, _, width = images.shape
    return TensorSplit(images, torch.arange(n), width, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), shift, flip)


def test_digits_are_split_once_and_for_all_by_class() -> None:
    data = load_data("digits", resolution=8)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("digits", 10, 1437, 360)
    (train, train_labels), (test, test_labels) = everything(data.train), everything(data.test)
    whole = load_digits()
    share = np.bincount(test_labels) / np.bincount(whole.target)
    assert share == pytest.approx(0.2, abs=0.005)
    # Together they are the data set again: normalisation is affine, so comparing ranks is enough.
    together = torch.cat([train, test])[:, 0]
    raw = torch.from_numpy(whole.images)
    scale = (raw.max() - raw.min()) / (together.max() - together.min())
    back = ((together - together.min()) * scale).round().flatten(1)
    found = sorted(map(tuple, torch.cat([back, torch.cat([train_labels, test_labels])[:, None]], 1).tolist()))
    expected = torch.cat([raw.flatten(1), torch.from_numpy(whole.target)[:, None]], 1)
    assert found == sorted(map(tuple, expected.tolist()))
    again = load_data("digits", resolution=8)
    assert torch.equal(everything(again.test)[0], test)


def test_digits_are_normalised_by_the_training_images() -> None:
    data = load_data("digits", resolution=8)
    images, labels = everything(data.train)
    assert images.shape == (1437, 3, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.mean().item() == pytest.approx(0, abs=1e-4)
    assert images.std().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("size", [5, 16, 32])
def test_resize_is_pillows_bilinear(size: int) -> None:
    images = torch.randint(256, (4, 3, 12, 12), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(4), size, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    found, _ = everything(split)
    for image, expected in zip(found.flatten(0, 1), images.flatten(0, 1), strict=True):
        resized = Image.fromarray(expected.numpy().astype(np.float32)).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        np.testing.assert_allclose(image, np.asarray(resized), atol=1e-2)


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_is_every_shift_and_flip_with_black_at_the_border(flip: bool) -> None:
    image = torch.arange(1, 49, dtype=torch.uint8).view(3, 4, 4)
    padded = np.pad(image.numpy(), ((0, 0), (1, 1), (1, 1)))
    windows = [padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    windows += [w[:, :, ::-1] for w in windows] if flip else []
    images, _ = everything(plain_split(image.repeat(600, 1, 1, 1), shift=1, flip=flip), seed=0)
    counts = [(images.numpy() == w).all((1, 2, 3)).sum() for w in windows]
    assert sum(counts) == len(images)
    assert min(counts) > 0.4 * len(images) / len(windows)


def test_training_order_and_augmentation_come_from_the_generator_alone() -> None:
    split = load_data("digits", resolution=16).train
    images, labels = everything(split, seed=1)
    torch.rand(3)
    again, same_labels = everything(split, seed=1)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    assert not torch.equal(labels, everything(split, seed=2)[1])
    assert not torch.equal(labels, everything(split)[1][: len(labels)])


def test_training_leaves_out_an_incomplete_batch_and_repeats_no_image() -> None:
    split = plain_split(torch.zeros(10, 3, 4, 4, dtype=torch.uint8))
    _, labels = everything(split, seed=0, batch_size=4)
    assert len(labels) == 8 == len(set(labels.tolist()))
    assert sorted(everything(split, seed=0, batch_size=64)[1].tolist()) == list(range(10))
    assert everything(split, batch_size=4)[1].tolist() == list(range(10))


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten random images a file in CIFAR-10's format, and torchvision's checksums made to fit."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str) -> list[str]:
        pixels = random.integers(256, size=(10, 3072), dtype=np.uint8)
        return [name, write(name, {"data": pixels, "labels": random.permutation(10).tolist()})]

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    names = {"label_names": [str(i) for i in range(10)]}
    meta = CIFAR10.meta | {"md5": write(CIFAR10.meta["filename"], names)}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path


def test_cifar10_is_read_from_its_files(cifar10: Path) -> None:
    data = load_data("cifar10", resolution=32, path=cifar10)
    assert (data.num_classes, len(data.train), len(data.test)) == (10, 50, 10)
    images, labels = everything(data.train)
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    first = pickle.loads((cifar10 / CIFAR10.base_folder / "data_batch_1").read_bytes())
    assert labels[:10].tolist() == first["labels"]
    raw = first["data"][0].reshape(3, 32, 32).astype(float)
    assert np.corrcoef(images[0].flatten(), raw.flatten())[0, 1] > 0.999
    assert everything(data.train, seed=0, batch_size=50)[0].shape == (50, 3, 32, 32)
    assert everything(load_data("cifar10", resolution=20, path=cifar10).test)[0].shape == (10, 3, 20, 20)


def test_cifar10_that_is_not_there_or_not_whole_is_refused(cifar10: Path) -> None:
    (cifar10 / CIFAR10.base_folder / "data_batch_3").write_bytes(b"half of it")
    for path in (cifar10, cifar10 / CIFAR10.base_folder):
        with pytest.raises(InputError, match=r"cifar-10-batches-py is not there or not whole.*unpacked in"):
            load_data("cifar10", resolution=32, path=path)


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        coarse = random.integers(256, size=(6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{i}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "train" / name, 5, seed)
        write_images(tmp_path / "val" / name, 2, seed + 10)
    return tmp_path


def test_folder_is_tested_on_the_centre_of_the_resized_image(folder: Path) -> None:
    data = load_data("folder", resolution=28, path=folder)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("folder", 2, 10, 4)
    images, labels = everything(data.test, batch_size=3)
    assert labels.tolist() == [0, 0, 1, 1]
    # 28 · 256/224 = 32 is the short side: 80x60 becomes 42x32, its centre 28x28 starts at (7, 2).
    image = Image.open(folder / "val" / "cat" / "0.png").resize((42, 32), Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((7, 2, 35, 30))) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert images.shape == (4, 3, 28, 28)
    np.testing.assert_allclose(images[0].permute(1, 2, 0), expected, atol=0.03)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)
def test_folder_trains_on_the_same_crops_however_many_workers_there_are(folder: Path) -> None:
    split = load_data("folder", resolution=16, path=folder).train
    state = torch.get_rng_state()
    images, labels = everything(split, seed=0, batch_size=3)
    assert len(labels) == 9
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        alone, _ = everything(split, seed=0, batch_size=3)
    finally:
        os.sched_setaffinity(0, mask)
    assert torch.equal(images, alone)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(images, everything(split, seed=1, batch_size=3)[0])


def test_file_that_is_no_image_ends_the_run_with_its_name(folder: Path) -> None:
    (folder / "train" / "dog" / "3.png").write_bytes(b"not a picture")
    split = load_data("folder", resolution=16, path=folder).train
    with pytest.raises(RunError, match=r"^can't read image .*dog/3\.png: cannot identify[^\n]*$"):
        everything(split)


def test_paths_are_wanted_where_there_are_files_and_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'digits' is embedded: leave path"):
        load_data("digits", resolution=32, path=tmp_path)
    for name in ("cifar10", "folder"):
        with pytest.raises(InputError, match=f"'{name}' needs the path"):
            load_data(name, resolution=32)
        with pytest.raises(InputError, match=f"'{name}': no folder .*missing"):
            load_data(name, resolution=32, path=tmp_path / "missing")


def test_unknown_data_set_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        load_data("cifar", resolution=32)


def test_folder_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            load_data("folder", resolution=32, path=tmp_path)

    refused(r"no folder .*train: expected .*train and .*val")
    write_images(tmp_path / "train" / "cat", 1)
    refused(r"no folder .*val")
    (tmp_path / "val").mkdir()
    refused(r"find any class folder.*expected images as .*val/CLASS")
    (tmp_path / "val" / "cat").mkdir()
    refused(r"no valid file.*cat.*expected images as")
    write_images(tmp_path / "val" / "dog", 1)
    (tmp_path / "val" / "cat").rmdir()
    refused(r"class 'cat' is in only one of")
