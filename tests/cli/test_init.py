"""The published start as a setting of trainings: options, sweep files, resuming, records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import Command
from wnexplore.design.protocol import Recipe
from wnexplore.results.store import read_records
from wnexplore.training.checkpoint import open_checkpoint

NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--method", "weightnet", "--M", "2", "--G", "2")
# Two steps that change nothing: what they leave is the start.
TRAINING = {"steps": 2, "batch_size": 128, "lr": 1e-12, "warmup_epochs": 0, "data": "digits"}
SIZE = ("--stem", "small", "--resolution", "8")


def test_a_training_starts_so_and_is_resumed_only_so(command: Command, tmp_path: Path) -> None:
    options = [text for name, value in TRAINING.items() for text in (f"--{name.replace('_', '-')}", value)]
    train = ("train", *NETWORK, *SIZE, *options, "--device", "cpu", "--out", tmp_path / "run")
    assert command(*train, "--init", "published").code == 0
    (weights,) = (tmp_path / "run/checkpoints").glob("step_*2.safetensors")
    started = load_file(weights)
    assert float(started["conv1.0.weight"].std()) == pytest.approx(0.01, rel=0.2)
    assert float(started["stage4.1.branch2.0.fc2.weight"].std()) == pytest.approx(2 / 96, rel=0.05)
    assert open_checkpoint(weights).metadata.recipe["init"] == "published"

    refused = command(*train)
    assert refused.code == 2
    assert "init published, now default" in refused.err
    assert command(*train, "--init", "published").code == 0
    (record,) = read_records(tmp_path / "run")
    assert record.protocol["init"] == "published"


def test_a_sweep_file_has_it_and_its_trainings_are_others(command: Command, tmp_path: Path) -> None:
    def swept(init: str) -> None:
        grid = {"backbones": NETWORK[1:2], "methods": ["plain"], "stem": ["small"], "resolution": [8]}
        content: dict[str, Any] = {
            **grid,
            "latency": False,
            "train": {**TRAINING, "seeds": 1, "device": "cpu"},
        }
        content["train"]["init"] = init
        # JSON is YAML.
        (tmp_path / "sweep.yaml").write_text(json.dumps(content))
        ended = command("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "run")
        assert ended.code == 0, ended.err

    for init in ("default", "published"):
        swept(init)
    records = [record for record in read_records(tmp_path / "run") if record.figure == "training"]
    # The default is the start of before there was the field.
    assert [record.protocol.get("init") for record in records] == [None, "published"]
    losses = [record.samples["loss"] for record in records]
    assert losses[0] != losses[1]
    train = [text for name, value in TRAINING.items() for text in (f"--{name.replace('_', '-')}", value)]
    again = ("train", *NETWORK[:2], *SIZE, *train, "--device", "cpu", "--init", "published")
    assert command(*again, "--out", tmp_path / "again").code == 0
    (record,) = read_records(tmp_path / "again")
    assert (record.key, record.samples["loss"]) == (records[1].key, losses[1])


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
