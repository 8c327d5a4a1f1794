"""The published start as a setting of trainings: options, sweep files, resuming, records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import Command
from wnexplore.cli import main
from wnexplore.design.protocol import Recipe
from wnexplore.results.store import read_records
from wnexplore.training.checkpoint import open_checkpoint

NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--method", "weightnet", "--M", "2", "--G", "2")
# One step that changes nothing: what it leaves is the start.
TRAINING = {"steps": 1, "batch_size": 256, "lr": 1e-12, "warmup_epochs": 0, "data": "digits"}
TRAIN = (
    *("train", *NETWORK, "--stem", "small", "--resolution", "8", "--device", "cpu"),
    *(text for name, value in TRAINING.items() for text in (f"--{name.replace('_', '-')}", str(value))),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training from the published start."""
    run = tmp_path_factory.mktemp("published") / "run"
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, "--init", "published", "--out", str(run)])
    assert stop.value.code == 0
    return run


def test_a_training_starts_so_and_is_resumed_only_so(trained: Path, command: Command) -> None:
    (weights,) = (trained / "checkpoints").glob("step_*1.safetensors")
    started = load_file(weights)
    assert float(started["conv1.0.weight"].std()) == pytest.approx(0.01, rel=0.2)
    assert float(started["stage4.1.branch2.0.fc2.weight"].std()) == pytest.approx(2 / 96, rel=0.05)
    assert open_checkpoint(weights).metadata.recipe["init"] == "published"

    refused = command(*TRAIN, "--out", trained)
    assert refused.code == 2
    assert "init published, now default" in refused.err
    assert command(*TRAIN, "--init", "published", "--out", trained).code == 0
    (record,) = read_records(trained)
    assert record.protocol["init"] == "published"


@pytest.mark.slow
def test_a_sweep_file_has_it_for_the_same_training_and_another_one_than_the_default(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    grid = {"backbones": NETWORK[1:2], "methods": ["weightnet"], "stem": ["small"], "resolution": [8]}

    def swept(*options: str, **init: str) -> str:
        train = {**TRAINING, "seeds": 1, "device": "cpu", **init}
        # JSON is YAML.
        (tmp_path / "sweep.yaml").write_text(json.dumps({**grid, "latency": False, "train": train}))
        ended = command("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "run", *options)
        assert ended.code == 0, ended.err
        return ended.out + ended.err

    swept(init="published")
    (record,) = read_records(trained)
    (again,) = (found for found in read_records(tmp_path / "run") if found.key == record.key)
    assert again.samples["loss"] == record.samples["loss"]
    assert "0 measurements to make" in swept("--dry-run", init="published")
    # Those of the default, the training alone, are others.
    for init in ({"init": "default"}, {}):
        assert "1 measurements to make" in swept("--dry-run", **init)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("train", *NETWORK, "--init", "publishd"), "--init: "),
        (("train", "--backbone", "torchvision:resnet18", "--init", "published"), "has its own start"),
        (("train", "--backbone", "torchvision:resnet18", "--recipe", "published.yaml"), "has its own start"),
        (("sweep", "published.yaml", "--backbone", "torchvision:resnet18"), "has its own start"),
        (("sweep", "wrong.yaml"), "wrong.yaml, line 1: train.init"),
    ],
)
def test_an_impossible_start_is_refused_before_anything_is_written(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("published.yaml").write_text("train: {init: published}\n")
    Path("wrong.yaml").write_text("train: {init: true}\n")
    ended = command(*arguments)
    assert ended.code == 2
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published.yaml", "wrong.yaml"]


def test_the_field_belongs_to_the_identity_of_a_recipe() -> None:
    assert Recipe().init == "default"
    assert "init" not in Recipe(init="default").identity
    assert Recipe(init="published").identity["init"] == "published"
