"""Networks whose gradients, layers or failures are unusual: trained, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import curve
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.errors import InputError, RunError
from wnexplore.training.full_training import TrainRun, train_fully

NETWORK = """
import threading
import torch
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, num_classes, sparse=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.skipped = nn.Conv2d(8, 8, 1)
        self.places = nn.Embedding(4, 8, sparse=sparse)
        self.head = nn.Linear(8, num_classes)
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        x = self.change(self.conv(images)).relu().mean((2, 3))
        return self.head(x + self.places(torch.tensor([1, 3])).sum(0))

    def change(self, x):
        return x


def sparse(num_classes):
    return Net(num_classes, True)


def dense(num_classes):
    return Net(num_classes)


class Lock(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.lock = threading.Lock()

    def change(self, x):
        with self.lock:
            return self.skipped(x)


class Unfrozen(Net):
    def change(self, x):
        return self.skipped(x) if self.steps > 2 else x


class Early(Net):
    def change(self, x):
        if self.steps == 2:
            self.added = nn.Conv2d(8, 8, 1)
        return x


class Late(Net):
    def change(self, x):
        if self.steps == 7:
            self.skipped.weight = nn.Parameter(self.skipped.weight.detach() + 1)
        return x


class Failing(Net):
    def change(self, x):
        if self.steps == 7:
            raise KeyError("out of luck")
        return x


class FailingInTest(Net):
    def change(self, x):
        if self.steps > 5 and not self.training:
            raise KeyError("out of luck")
        return x


class Single(Net):
    def __deepcopy__(self, memo):
        raise TypeError("there is one of it")


def scripted(num_classes):
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                          nn.Linear(8, num_classes)))


def partly_scripted(num_classes):
    return nn.Sequential(torch.jit.script(nn.Conv2d(3, 8, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


def a_run(network: Path, function: str, out: Path, **recipe: object) -> TrainRun:
    point = DesignPoint.of(f"{network}:{function}", resolution=8)
    recipe = {"data": "digits", "device": "cpu", "steps": 8, "batch_size": 16, **recipe}
    return TrainRun(point, TrainSpec.model_validate(recipe), out, log_every=1, save_every=4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_sparse_gradients_train_as_dense_ones(network: Path, tmp_path: Path, optimizer: str) -> None:
    for function in ("sparse", "dense"):
        assert train_fully(a_run(network, function, tmp_path / function, optimizer=optimizer)).finished
    assert curve(tmp_path / "sparse") == curve(tmp_path / "dense")


@pytest.mark.parametrize("function", ["Lock", "Unfrozen"])
def test_what_cannot_be_copied_and_what_learns_later_trains(
    network: Path, tmp_path: Path, function: str
) -> None:
    assert train_fully(a_run(network, function, tmp_path / "run", optimizer="sgd")).finished


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("Early", "added"),
        ("Single", "one of it"),
        ("scripted", "TorchScript"),
        ("partly_scripted", "TorchScript"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    network: Path, tmp_path: Path, function: str, reason: str
) -> None:
    with pytest.raises(InputError, match=rf"net.py:{function}'.*{reason}"):
        train_fully(a_run(network, function, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("Late", r"skipped\.weight.*step 7 of 8"),
        ("Failing", "step 7 of 8.*out of luck"),
        ("FailingInTest", "out of luck"),
    ],
)
def test_what_fails_late_is_reported_with_its_name_and_step(
    network: Path, tmp_path: Path, function: str, reason: str
) -> None:
    with pytest.raises(RunError, match=rf"net.py:{function}\b.*{reason}"):
        train_fully(a_run(network, function, tmp_path / "run"))
