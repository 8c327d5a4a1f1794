"""A network that takes the GPU's context with it, played by one whose pass raises what torch would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps import OWN
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.measure.failure import ContextLostError
from wnexplore.results.store import Store, read_records
from wnexplore.study.sweep import plan, remaining, run
from wnexplore.training.full_training import TrainRun, train_fully

LOST = "CUDA error: device-side assert triggered"
NETWORKS = f"""{OWN}

class Poisoned(nn.Sequential):
    def forward(self, x):
        if len(x) > 2:
            raise RuntimeError("{LOST}")
        return super().forward(x)

def poisoned(num_classes=10):
    return Poisoned(*tiny(num_classes))

def other(num_classes=10):
    return tiny(num_classes)
"""
SWEEP = """\
backbones: ['FILE:tiny', 'FILE:poisoned', 'FILE:other']
methods: [plain]
resolution: [8]
num_classes: [10]
latency: {device: cpu, batch_sizes: [4], seconds: 0.001}
train: {data: digits, device: cpu, epochs: 1, seeds: SEEDS, batch_size: 512, jobs: JOBS}
"""


def _spec(folder: Path, jobs: int) -> SweepSpec:
    networks, file = folder / "networks.py", folder / "sweep.yaml"
    networks.write_text(NETWORKS)
    file.write_text(
        SWEEP.replace("FILE", str(networks)).replace("JOBS", str(jobs)).replace("SEEDS", str(3 - jobs))
    )
    return load_sweep(file)


def _run(spec: SweepSpec, directory: Path) -> str | None:
    """The same command once more: what ended it, if it did not end by itself."""
    with Store.create(directory) as store:
        try:
            run(spec, remaining(plan(spec), store.keys()), store)
        except ContextLostError as error:
            return str(error)
    return None


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_only_the_culprit_is_recorded_and_the_same_command_measures_the_rest(
    tmp_path: Path, jobs: int
) -> None:
    spec, directory = _spec(tmp_path, jobs), tmp_path / "run"
    assert spec.train is not None
    seeds = spec.train.seeds
    # The latency of the poisoned network, and its training by each seed: processes of their own are replaced.
    ends = [_run(spec, directory) for _ in range(1 + (seeds if jobs == 1 else 0))]
    assert all(end is not None and "poisoned" in end and LOST in end for end in ends)
    before = read_records(directory)
    if jobs > 1:
        before = [record for record in before if record.figure != "training"]
        seeds = 0
    assert [(r.figure, r.point.backbone.split(":")[-1]) for r in before if r.status != "ok"] == [
        ("latency", "poisoned"),
        *[("training", "poisoned")] * seeds,
    ]
    assert _run(spec, directory) is None
    records = read_records(directory)
    assert sorted(record.key for record in records) == sorted(m.key for m in plan(spec).measurements)
    assert sum(record.status == "failed" for record in records) == 1 + spec.train.seeds


def test_a_training_alone_ends_with_one_line(tmp_path: Path) -> None:
    _spec(tmp_path, 1)
    point = DesignPoint.of(f"{tmp_path / 'networks.py'}:poisoned", resolution=8, num_classes=10)
    with pytest.raises(ContextLostError, match=r"context was lost\b.*poisoned"):
        train_fully(TrainRun(point, TrainSpec(data="digits", device="cpu", epochs=1), tmp_path / "run"))


@pytest.mark.parametrize(("given", "then"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_cublas_is_deterministic_from_the_start_of_the_command(given: str | None, then: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    code = (
        "import os, sys, wnexplore.cli as cli\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: print(os.environ['CUBLAS_WORKSPACE_CONFIG'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | ({} if given is None else {"CUBLAS_WORKSPACE_CONFIG": given}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"{then} False"
