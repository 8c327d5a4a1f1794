"""A training that was stopped goes on to the bits of the one that was not, whatever its network holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training import odd_networks
from tests.training.runs import CrashError, crash_at, curve, odd_run
from wnexplore.data import load_data
from wnexplore.design.protocol import Recipe
from wnexplore.training.accuracy import evaluate
from wnexplore.training.checkpoint import open_checkpoint, read_state, save_state
from wnexplore.training.full_training import train_fully
from wnexplore.training.log import read_log
from wnexplore.training.trainer import Trainer

# The kinds that lost their state, with and without a moving average; all others in the slow tests.
FAST = [
    *(("frozen_by_train", None), ("spectral_old", 0.9), ("late", 0.9), ("extra_dict", None)),
    ("generators", 0.9),
]
REST = [
    pytest.param(name, ema, marks=pytest.mark.slow)
    for name in odd_networks.NAMES
    for ema in (None, 0.9)
    if (name, ema) not in FAST
]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def alike(one: Any, other: Any, path: str = "") -> None:
    """Fails where two states differ, times apart."""
    assert type(one) is type(other), path
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one.keys() - {"seconds"}:
            alike(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            alike(left, right, f"{path}[{number}]")
    else:
        assert one == other, path


@pytest.mark.parametrize(
    ("name", "ema"), [*FAST[:3], *(pytest.param(*case, marks=pytest.mark.slow) for case in FAST[3:]), *REST]
)
def test_the_full_training_resumes_to_the_same_bits(name: str, ema: float | None, tmp_path: Path) -> None:
    train_fully(odd_run(name, tmp_path / "whole", ema=ema))
    broken = odd_run(name, tmp_path / "broken", ema=ema)
    for step in (4, 7):
        with pytest.raises(CrashError):
            train_fully(broken, crash_at(step))
    outcome = train_fully(broken)
    assert outcome.finished
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    full, parts = (tmp_path / run / "checkpoints" for run in ("whole", "broken"))
    alike(read_state(parts / "step_00000010.state"), read_state(full / "step_00000010.state"))
    alike(load_file(parts / "best.safetensors"), load_file(full / "best.safetensors"))
    # What was kept is what was tested: all of it comes back in a network built anew.
    best = open_checkpoint(outcome.best, broken.point.backbone)
    found = evaluate(best.network, load_data("digits", resolution=8).test, 256, "cpu")
    assert found.top1 == outcome.best_score


@pytest.mark.slow
def test_two_processes_test_what_the_first_one_keeps(tmp_path: Path) -> None:
    # Each has statistics of its own, of half of each batch.
    network = f"{odd_networks.__file__}:instance"
    options = (
        *("--backbone", network, "--resolution", 8, "--data", "digits", "--device", "cpu"),
        *("--batch-size", 256, "--epochs", 1, "--out", tmp_path / "run"),
    )
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "wnexplore", "train", *map(str, options)]
    subprocess.run([sys.executable, *together, *train], check=True, capture_output=True)
    row = read_log(tmp_path / "run")[-1]
    kept = open_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005.safetensors", network)
    found = evaluate(kept.network, load_data("digits", resolution=8).test, 128, "cpu")
    assert (found.top1, found.loss) == (row.top1, pytest.approx(row.test_loss, rel=1e-6))


@pytest.mark.parametrize(
    ("name", "ema"), [*FAST[:3], *(pytest.param(*case, marks=pytest.mark.slow) for case in FAST[3:]), *REST]
)
def test_a_short_training_resumes_to_the_same_bits(name: str, ema: float | None, tmp_path: Path) -> None:
    data, recipe = load_data("digits", resolution=8), Recipe(epochs=3, batch_size=256, ema=ema)

    def begun() -> Trainer:
        return Trainer(
            lambda: getattr(odd_networks, name)(num_classes=10), data, recipe, seed=1, device="cpu"
        )

    full, first, second = begun(), begun(), begun()
    full.advance(3)
    first.advance(1)
    save_state(tmp_path / "a.state", first.state())
    second.load_state(read_state(tmp_path / "a.state"))
    second.advance(3)
    assert second.figure.losses == full.figure.losses
    assert second.figure.tested_scores == full.figure.tested_scores
    alike(second.state(), full.state())
