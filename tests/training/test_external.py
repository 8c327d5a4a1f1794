"""Trainings of networks of one's own: what can't begin, what changed meanwhile, layers that learn nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import external_networks
from tests.commands import ended
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec, TrainSpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError
from wnexplore.study.sweep import plan
from wnexplore.training.full_training import TrainRun, train_fully
from wnexplore.training.log import read_log

NETWORK = Path(external_networks.__file__).read_text()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


def a_run(network: Path, out: Path, function: str = "Relu") -> TrainRun:
    point = DesignPoint.of(f"{network}:{function}", resolution=8)
    spec = TrainSpec(data="digits", device="cpu", steps=4, batch_size=16)
    return TrainRun(point, spec, out, log_every=1, save_every=2)


@pytest.mark.parametrize(("function", "message"), [("Pair", "tuple of 2"), ("seven", "7 classes")])
def test_what_can_not_be_trained_leaves_no_run_directory(
    network: Path, tmp_path: Path, function: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_fully(a_run(network, tmp_path / "run", function))
    assert not (tmp_path / "run").exists()
    point = PointSpec(backbone=f"{network}:{function}", resolution=8, method="plain")
    spec = SweepSpec(points=(point,), latency=None, train=TrainSpec(data="digits", device="cpu", epochs=1))
    with pytest.raises(InputError, match=message):
        plan(spec)
    if function == "seven":
        assert plan(SweepSpec(points=(point,), latency=LatencySpec(device="cpu"))).points


def test_a_network_that_changed_is_not_trained_on(network: Path, tmp_path: Path) -> None:
    def stop(row: object, steps: int) -> None:
        raise KeyboardInterrupt

    run = a_run(network, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train_fully(run, lambda row, steps: stop(row, steps) if row.step == 3 else None)
    network.write_text(NETWORK.replace("y.relu()", "y.sigmoid()"))
    with pytest.raises(InputError, match=r"'.*net.py:Relu'.*changed"):
        train_fully(run)
    network.write_text(NETWORK)
    assert train_fully(run).finished


@pytest.mark.slow
def test_two_processes_train_a_network_with_a_layer_that_never_runs(network: Path, tmp_path: Path) -> None:
    options = (
        *("--backbone", f"{network}:Relu", "--resolution", 8, "--data", "digits", "--device", "cpu"),
        *("--batch-size", 64, "--steps", 6, "--log-every", 1, "--optimizer", "sgd", "--warmup-epochs", 0),
    )
    ended("train", *options, "--out", tmp_path / "alone")
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "wnexplore", "train", *map(str, options), "--out", str(tmp_path / "pair")]
    subprocess.run([*together, *train], check=True, capture_output=True)
    ours, theirs = read_log(tmp_path / "pair"), read_log(tmp_path / "alone")
    assert [row.loss for row in ours] == pytest.approx([row.loss for row in theirs], rel=1e-3)
