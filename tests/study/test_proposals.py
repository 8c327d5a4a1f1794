"""Design points as Optuna's trials and back."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tests.sweeps import write_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.space.expansion import expand
from wnexplore.study.proposals import decode, encode

AXES = "methods: [plain, se, dynamic, weightnet]\nexperts: [2, 3]\nresolution: [8, 16]\nreduction: [8, 16]\n"


@pytest.mark.parametrize("backbones", ["own.py:tiny", "shufflenet_v2_x0_5, resnet18"])
@pytest.mark.parametrize(
    "pairs",
    [
        "M: [1, 2, 4/C]\nG: [1, 1/C]\nstages: [null, [3, 4]]\nactivation: [sigmoid, tanh]\n",
        "M: [1, 2]\nG: [1]\nstages: [[3, 4], null]\nper_stage: true\n",
    ],
)
def test_every_point_of_a_space_can_be_proposed(tmp_path: Path, backbones: str, pairs: str) -> None:
    spec = load_sweep(write_sweep(tmp_path, f"backbones: [{backbones}]\n{AXES}{pairs}"))
    points = expand(spec).points
    assert len(points) > 30
    study = optuna.create_study()
    for point in points:
        study.enqueue_trial(encode(spec, point))
        assert decode(spec, study.ask()) == point


def test_every_detector_of_a_space_can_be_proposed(tmp_path: Path) -> None:
    axes = "task: [detection]\nmethods: [plain, se, weightnet]\nresolution: [64]\npyramid_channels: [8]\n"
    pairs = "M: [1, 2]\nG: [1]\nstages: [all, [3, 4, head], pyramid+head]\nper_stage: true\n"
    spec = load_sweep(write_sweep(tmp_path, f"backbones: [shufflenet_v2_x0_5]\n{axes}{pairs}"))
    points = expand(spec).points
    assert len(points) == 1 + 3 + 2**3 + 2**3 + 2**2
    study = optuna.create_study()
    for point in points:
        study.enqueue_trial(encode(spec, point))
        assert decode(spec, study.ask()) == point
