"""The options of trainings: one table for train, sweep and search, checked like the sweep file's fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

from tests.cli.conftest import Command
from tests.sweeps import TINY, write_sweep
from wnexplore.cli import app
from wnexplore.cli.recipe import RECIPE_OPTIONS, SCHEDULE_OPTIONS, with_replaced
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.sweep_file import Overrides, load_sweep


@pytest.fixture
def file(tmp_path: Path) -> Path:
    train = "train: {data: digits, device: cpu, epochs: 1, seeds: 1, batch_size: 512, lr_parity: true}\n"
    text = TINY.replace("M: [1, 2]", "M: [1]").replace("G: [1, 2]", "G: [1]").replace("latency: {", "#")
    return write_sweep(tmp_path, text + "latency: false\n" + train)


def options(command: str) -> dict[str, Any]:
    return {option.name: option for option in get_command(app).commands[command].params}  # type: ignore[attr-defined]


def test_every_option_is_a_field_with_its_names() -> None:
    def names(annotation: Any) -> tuple[Any, ...]:
        return tuple(name for part in get_args(annotation) for name in names(part) or (part,))

    for name, option in (RECIPE_OPTIONS | SCHEDULE_OPTIONS).items():
        field = TrainSpec.model_fields[option.field or name]
        texts = tuple(value for value in names(field.annotation) if isinstance(value, str))
        assert option.names == texts, name
        assert option.switch == (field.annotation is bool), name


@pytest.mark.parametrize("command", ["sweep", "search", "train"])
def test_they_are_completed(command: str) -> None:
    found = options(command)
    assert {"init", "lr_parity", "optimizer", "kernel_lr"} <= found.keys()
    assert found["lr_parity"].secondary_opts == ["--no-lr-parity"]
    for name, option in RECIPE_OPTIONS.items():
        if option.names and name in found:
            completed = found[name].shell_complete(None, option.names[1][:3])
            assert option.names[1] in [item.value for item in completed]


@pytest.mark.slow
def test_they_override_the_file_and_are_kept_with_the_run(
    tmp_path: Path, command: Command, file: Path
) -> None:
    run = tmp_path / "run"
    ended = command(
        *("search", file, "--no-lr-parity", "--kernel-lr", "3", "--steps", "1"),
        *("--trials", "1", "--objectives", "test_loss", "--out", run),
    )
    assert ended.code == 0, ended.err
    kept = load_sweep(run / "sweep.yaml").train
    assert kept is not None
    assert (kept.lr_parity, kept.kernel_lr, kept.steps, kept.epochs) == (False, 3.0, 1, None)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--init", "publishd"), "option --init: train.init is 'publishd'"),
        (("--lr", "fast"), "option --lr: "),
        (("--optimizer", "adam"), "option --optimizer: "),
        (("--init", "published"), "has its own start"),
        (("--eta", "3"), "eta is for 'schedule: halving'"),
        (("--max-seeds", "5"), "max_seeds is for seeds until it is known"),
        (("--schedule", "halving"), "schedule 'halving' needs max_epochs"),
    ],
)
def test_a_wrong_one_is_one_line_before_anything_is_written(
    option: tuple[str, str], line: str, file: Path, command: Command
) -> None:
    ended = command("sweep", file, *option, "--out", file.parent / "run")
    assert ended.code == 2
    assert line in ended.err
    assert ended.err.count("\n") == 1
    assert not (file.parent / "run").exists()


def test_a_length_replaces_the_other_one_and_a_schedule_what_is_the_others(tmp_path: Path) -> None:
    def read(text: str, **given: str) -> TrainSpec:
        path = tmp_path / "s.yaml"
        path.write_text(f"train: {{{text}}}\n")
        overrides: Overrides = {("train", name): (f"--{name}", value) for name, value in given.items()}
        train = load_sweep(path, with_replaced(overrides)).train
        assert train is not None
        return train

    assert read("epochs: 2", steps="7").steps == 7
    assert read("steps: 2", epochs="7").epochs == 7
    assert read("epochs: 2", schedule="halving", max_epochs="9").epochs == 9
    full = read("schedule: halving, max_epochs: 9, eta: 2", schedule="full")
    assert (full.schedule, full.epochs, full.max_epochs) == ("full", 5, None)
