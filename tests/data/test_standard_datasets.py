from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100

from tests.data.splits import everything
from wnexplore.data import Augment, EpochPass, TensorSplit, load_data
from wnexplore.design.data_source import DataSource
from wnexplore.errors import InputError, RunError


def test_digits_are_split_once_and_for_all_by_class() -> None:
    data = load_data("digits", resolution=8)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("digits", 10, 1437, 360)
    assert data.classes == tuple("0123456789")
    (train, train_labels), (test, test_labels) = everything(data.train), everything(data.test)
    full = load_digits()
    share = np.bincount(test_labels) / np.bincount(full.target)
    assert share == pytest.approx(0.2, abs=0.005)
    # Together they are the data set again: normalisation is affine, so comparing ranks is enough.
    together = torch.cat([train, test])[:, 0]
    raw = torch.from_numpy(full.images)
    scale = (raw.max() - raw.min()) / (together.max() - together.min())
    back = ((together - together.min()) * scale).round().flatten(1)
    found = sorted(map(tuple, torch.cat([back, torch.cat([train_labels, test_labels])[:, None]], 1).tolist()))
    expected = torch.cat([raw.flatten(1), torch.from_numpy(full.target)[:, None]], 1)
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


def test_jitter_of_digits_stays_between_black_and_white() -> None:
    data = load_data("digits", resolution=8, augment=Augment(colour_jitter=0.9))
    plain, _ = everything(data.train)
    jittered, _ = everything(data.train, EpochPass(0, 0))
    assert jittered.min().item() == pytest.approx(plain.min().item(), abs=1e-5)
    assert jittered.max().item() == pytest.approx(plain.max().item(), abs=1e-5)


def write_cifar(folder: Path, kind: Any, label: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten random images a file in the format of CIFAR, and torchvision's checksums made to fit."""
    folder.mkdir()
    random = np.random.default_rng(0)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str) -> list[str]:
        pixels = random.integers(256, size=(10, 3072), dtype=np.uint8)
        return [name, write(name, {"data": pixels, label: random.permutation(10).tolist()})]

    monkeypatch.setattr(kind, "train_list", [batch(name) for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [batch(name) for name, _ in kind.test_list])
    names = {kind.meta["key"]: [f"class {i}" for i in range(classes)]}
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": write(kind.meta["filename"], names)})


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_cifar(tmp_path / CIFAR10.base_folder, CIFAR10, "labels", 10, monkeypatch)
    return tmp_path


def test_cifar10_is_read_from_its_files(cifar10: Path) -> None:
    data = load_data(f"cifar10:{cifar10}", resolution=32)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("cifar10", 10, 50, 10)
    assert data.classes[3] == "class 3"
    images, labels = everything(data.train)
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    first = pickle.loads((cifar10 / CIFAR10.base_folder / "data_batch_1").read_bytes())
    assert labels[:10].tolist() == first["labels"]
    raw = first["data"][0].reshape(3, 32, 32).astype(float)
    assert np.corrcoef(images[0].flatten(), raw.flatten())[0, 1] > 0.999
    assert everything(data.train, EpochPass(0, 0), batch_size=50)[0].shape == (50, 3, 32, 32)
    smaller = load_data(DataSource("cifar10", cifar10), resolution=20)
    assert everything(smaller.test)[0].shape == (10, 3, 20, 20)


@pytest.mark.parametrize(("flip", "flips"), [(None, True), (True, True), (False, False)])
def test_flips_are_as_usual_unless_reported(cifar10: Path, flip: bool | None, flips: bool) -> None:
    for name in ("digits", f"cifar10:{cifar10}"):
        train = load_data(name, resolution=32, augment=Augment(flip=flip)).train
        assert isinstance(train, TensorSplit)
        assert train.flip == (flips if flip is not None or name != "digits" else False)


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / CIFAR100.base_folder, CIFAR100, "fine_labels", 100, monkeypatch)
    data = load_data(f"cifar100:{tmp_path}", resolution=32)
    assert (data.name, data.num_classes, len(data.classes)) == ("cifar100", 100, 100)
    content = pickle.loads((tmp_path / CIFAR100.base_folder / "test").read_bytes())
    assert everything(data.test)[1].tolist() == content["fine_labels"]


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        write_idx(
            folder / f"{part}-images-idx3-ubyte", random.integers(256, size=(count, 28, 28), dtype=np.uint8)
        )
        write_idx(folder / f"{part}-labels-idx1-ubyte", random.integers(10, size=count, dtype=np.uint8))
    return tmp_path


def test_fashion_mnist_is_read_from_its_files(fashion: Path) -> None:
    data = load_data(f"fashion_mnist:{fashion}", resolution=28)
    assert (data.num_classes, len(data.train), len(data.test)) == (10, 30, 20)
    assert data.classes[-1] == "Ankle boot"
    images, labels = everything(data.test)
    folder = fashion / "FashionMNIST" / "raw"
    assert labels.tolist() == list((folder / "t10k-labels-idx1-ubyte").read_bytes()[8:])
    raw = np.frombuffer((folder / "t10k-images-idx3-ubyte").read_bytes()[16:], dtype=np.uint8)
    assert images.shape == (20, 3, 28, 28)
    assert np.corrcoef(images[:, 1].flatten(), raw.astype(float))[0, 1] > 0.999


def test_files_that_are_not_there_or_not_whole_are_refused(cifar10: Path, fashion: Path) -> None:
    assert cifar10 == fashion  # one folder, which holds both
    (cifar10 / CIFAR10.base_folder / "data_batch_3").write_bytes(b"half of it")
    (fashion / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"half of it")
    for path in (cifar10, cifar10 / CIFAR10.base_folder):
        with pytest.raises(InputError, match="cifar-10-batches-py") as error:
            load_data(f"cifar10:{path}", resolution=32)
        assert "\n" not in str(error.value)
        with pytest.raises(InputError, match="train-images-idx3-ubyte"):
            load_data(f"fashion_mnist:{path}", resolution=32)
    for name in ("cifar10", "cifar100", "fashion_mnist", "folder"):
        with pytest.raises(InputError, match=f"'{name}'.*missing"):
            load_data(f"{name}:{cifar10 / 'missing'}", resolution=32)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves tmp_path/served at the address that it gives; nothing else can be reached."""
    (tmp_path / "served").mkdir()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_data_set_is_downloaded_only_where_asked_and_once(
    cifar10: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = cifar10 / "served" / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar10 / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{CIFAR10.filename}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    target = f"cifar10:{cifar10 / 'deep' / 'fetched'}"
    with pytest.raises(InputError, match="fetched"):
        load_data(target, resolution=32)
    fetched = load_data(target, resolution=32, download=True)
    here = load_data(f"cifar10:{cifar10}", resolution=32)
    assert torch.equal(everything(fetched.train)[0], everything(here.train)[0])
    archive.unlink()
    assert len(load_data(target, resolution=32, download=True).test) == 10
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["cifar100", "fashion_mnist"])
def test_a_download_that_fails_is_reported_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"'{name}'.*here: .+") as error:
        load_data(f"{name}:{tmp_path / 'here'}", resolution=32, download=True)
    assert "\n" not in str(error.value)


def test_a_file_in_the_way_of_a_download_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(gzip.compress(b""))
    with pytest.raises(RunError, match=r"'cifar10'.*file"):
        load_data(f"cifar10:{tmp_path / 'file'}", resolution=32, download=True)


@pytest.mark.parametrize("name", ["digits", "shapes", "folder:."])
def test_what_cant_be_downloaded_is_reported(name: str) -> None:
    with pytest.raises(InputError, match="download"):
        load_data(name, resolution=32, download=True)
