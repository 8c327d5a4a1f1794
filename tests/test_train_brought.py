"""Trainings of networks of one's own: what can't begin, what changed meanwhile, layers that learn nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec, TrainSpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError
from wnexplore.sweep import plan
from wnexplore.train import TrainRun, train_fully
from wnexplore.training_log import read_log

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.old = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, n)

    def forward(self, x):
        return self.fc(self.conv(self.stem(x)).relu().mean((2, 3)))

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

def make(num_classes): return Net(num_classes)
def pair(num_classes): return Pair(num_classes)
def seven(): return Net(7)
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


def a_run(network: Path, out: Path, function: str = "make") -> TrainRun:
    point = DesignPoint.of(f"{network}:{function}", resolution=8)
    spec = TrainSpec(data="digits", device="cpu", steps=4, batch_size=16)
    return TrainRun(point, spec, out, log_every=1, save_every=2)


@pytest.mark.parametrize(("function", "told"), [("pair", "a tuple of 2"), ("seven", "gives 7 classes")])
def test_what_can_not_be_trained_leaves_no_run_directory(
    network: Path, tmp_path: Path, function: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        train_fully(a_run(network, tmp_path / "run", function))
    assert not (tmp_path / "run").exists()
    point = PointSpec(backbone=f"{network}:{function}", resolution=8, method="plain")
    spec = SweepSpec(points=(point,), latency=None, train=TrainSpec(data="digits", device="cpu", epochs=1))
    with pytest.raises(InputError, match=told):
        plan(spec)
    if function == "seven":
        assert plan(SweepSpec(points=(point,), latency=LatencySpec(device="cpu"))).points


def test_a_network_that_changed_is_not_trained_on(network: Path, tmp_path: Path) -> None:
    def stop(row: object, steps: int) -> None:
        raise KeyboardInterrupt

    run = a_run(network, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train_fully(run, lambda row, steps: stop(row, steps) if row.step == 3 else None)
    network.write_text(NETWORK.replace(".relu()", ".sigmoid()"))
    with pytest.raises(InputError, match=r"the file of backbone '.*net.py:make' has changed since .*run was"):
        train_fully(run)
    network.write_text(NETWORK)
    assert train_fully(run).finished


@pytest.mark.slow
def test_two_processes_train_a_network_with_a_layer_that_never_runs(network: Path, tmp_path: Path) -> None:
    options = (
        *("--backbone", f"{network}:make", "--resolution", 8, "--data", "digits", "--device", "cpu"),
        *("--batch-size", 64, "--steps", 6, "--log-every", 1, "--optimizer", "sgd", "--warmup-epochs", 0),
    )
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, how in {"alone": [], "pair": together}.items():
        train = ["-m", "wnexplore", "train", *map(str, options), "--out", str(tmp_path / name)]
        subprocess.run([sys.executable, *how, *train], check=True, capture_output=True)
    ours, theirs = read_log(tmp_path / "pair"), read_log(tmp_path / "alone")
    assert [row.loss for row in ours] == pytest.approx([row.loss for row in theirs], rel=1e-3)
