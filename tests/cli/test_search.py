"""Searches that can't be made are refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.examples import rest_slow
from tests.sweeps import write_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.study.search import Search

ODD = """
from own import convolution, nn

class Two(nn.Sequential):
    def forward(self, x):
        y = super().forward(x)
        return (y, y) if self.training else y

def two(num_classes=10):
    return Two(*convolution(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))

def seven():
    return nn.Sequential(*convolution(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))
"""
TRAINED_SPACE = "methods: [plain, se]\nresolution: [8, 16]\nnum_classes: [10]\nlatency: false\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("backbones: [odd.py:two]\ntrain: {data: digits}", "tuple of 2"),
        ("backbones: [own.py:tiny, odd.py:seven]\ntrain: {data: digits}", "7 classes"),
        ("backbones: [own.py:tiny]\ntrain: {data: 'folder:nowhere'}", "nowhere"),
        ("backbones: [own.py:tiny]\nlatency: {device: cpu, dtypes: [tf32]}", "'tf32'"),
    ],
)
@pytest.mark.parametrize(
    "points", rest_slow(["", "per_stage: true\nM: [1, 2]\nG: [1, 2]\nwhere: method != 'none'\n"], "")
)
def test_what_can_not_be_measured_leaves_no_run_directory(
    command: Command, tmp_path: Path, lines: str, message: str, points: str
) -> None:
    space = TRAINED_SPACE.replace("latency: false\n", "") if "latency:" in lines else TRAINED_SPACE
    (tmp_path / "odd.py").write_text(ODD)
    text = (space + points + lines).replace("odd.py", str(tmp_path / "odd.py"))
    run = tmp_path / "run"
    done = command("search", write_sweep(tmp_path, text), "--objectives", "params", "--out", run)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not run.exists()


def test_a_network_that_no_point_within_the_budgets_has_may_be_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    text = TRAINED_SPACE + f"backbones: [own.py:tiny, '{tmp_path}/odd.py:seven']\ntrain: {{data: digits}}\n"
    wanted = Search(load_sweep(write_sweep(tmp_path, text)), ("params",), ("params > 5k",))
    assert {plain.backbone.split(":")[-1] for plain in wanted.within.baselines()} == {"tiny"}
    wanted.check()
