from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.commands import ended, started
from tests.training.runs import NETWORK, CrashError, a_run, crash_at, curve, wait_for_rows
from wnexplore.data import EpochPass, FolderSplit, load_data
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, RunError
from wnexplore.results.store import read_records
from wnexplore.training.accuracy import evaluate
from wnexplore.training.checkpoint import open_checkpoint, read_checkpoint_metadata, read_state, save_state
from wnexplore.training.full_training import train_fully
from wnexplore.training.log import read_log


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(NETWORK)
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"optimizer": "adamw", "lr": 0.01, "ema": 0.9, "clip_grad_norm": 1.0, "batch_norm": "running"},
        pytest.param({"amp": "bfloat16", "lr_schedule": "linear"}, marks=pytest.mark.slow),
    ],
    ids=["sgd", "adamw-ema-clip", "bfloat16"],
)
def test_a_training_that_was_lost_again_and_again_resumes_to_the_same_bits(
    network: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    train_fully(a_run(network, tmp_path / "whole", **recipe))
    broken = a_run(network, tmp_path / "broken", **recipe)
    for step in (2, 4, 7):  # before the first checkpoint, after one, within the second epoch
        with pytest.raises(CrashError):
            train_fully(broken, crash_at(step))
    outcome = train_fully(broken)
    assert outcome.finished
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    ours, theirs = (
        load_file(tmp_path / name / "checkpoints" / "step_00000010.safetensors")
        for name in ("broken", "whole")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_rows_between_which_a_run_was_lost_have_the_loss_of_all_their_steps(
    network: Path, tmp_path: Path
) -> None:
    separate = a_run(network, tmp_path / "each")
    train_fully(separate)
    losses = [row.loss for row in read_log(separate.directory)]
    thirds = a_run(network, tmp_path / "thirds", log_every=3, save_every=1)
    with pytest.raises(CrashError):
        train_fully(thirds, crash_at(3))
    train_fully(thirds)
    rows = {row.step: row.loss for row in read_log(thirds.directory)}
    # Five steps an epoch: rows at every third step and at the ends of the epochs.
    expected = {3: losses[0:3], 5: losses[3:5], 6: losses[5:6], 9: losses[6:9], 10: losses[9:10]}
    assert rows == {step: pytest.approx(sum(loss) / len(loss), rel=1e-6) for step, loss in expected.items()}


def test_checkpoints_are_the_last_two_and_the_best_and_say_what_they_are(
    network: Path, tmp_path: Path
) -> None:
    run = a_run(network, tmp_path / "run", epochs=4)
    outcome = train_fully(run)
    names = sorted(path.name for path in (run.directory / "checkpoints").iterdir())
    assert names == [
        "best.safetensors",
        *("step_00000018.safetensors", "step_00000018.state"),
        *("step_00000020.safetensors", "step_00000020.state"),
    ]
    tops = [row.top1 for row in read_log(run.directory) if row.top1 is not None]
    assert outcome.best_score == max(tops)
    best = open_checkpoint(outcome.best, f"{network}:make")
    assert best.metadata.top1 == max(tops)
    assert best.metadata.point == DesignPoint.of(
        f"{network}:make", "weightnet", M=2, G=1, resolution=16, num_classes=10
    )
    assert best.metadata.recipe["batch_size"] == 256
    assert best.metadata.classes == tuple("0123456789")
    # The weights give the accuracy that the log has, in another process's network too.
    found = evaluate(best.network, load_data("digits", resolution=16).test, 100, "cpu")
    assert found.top1 == pytest.approx(max(tops), abs=0.3)
    with safe_open(outcome.best, framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_finished_run_is_a_row_and_is_not_trained_again(network: Path, tmp_path: Path) -> None:
    run = a_run(network, tmp_path / "run")
    train_fully(run)
    (record,) = read_records(run.directory)
    rows = read_log(run.directory)
    assert record.value["top1"] == rows[-1].top1
    assert record.value["seconds"] == rows[-1].seconds
    assert (record.value["epochs"], record.value["dropped_at"]) == (2, None)
    assert record.samples["loss"] == pytest.approx(
        [sum(row.loss for row in rows[i : i + 5]) / 5 for i in (0, 5)], rel=1e-6
    )
    before = (run.directory / "log.csv").read_bytes()
    assert train_fully(run).finished
    assert (run.directory / "log.csv").read_bytes() == before
    assert len(read_records(run.directory)) == 1


def test_another_training_in_the_same_folder_is_refused(network: Path, tmp_path: Path) -> None:
    train_fully(a_run(network, tmp_path / "run"))
    with pytest.raises(InputError, match="run"):
        train_fully(a_run(network, tmp_path / "run", lr=0.01))


def test_a_training_that_diverges_says_so_and_keeps_its_checkpoints(network: Path, tmp_path: Path) -> None:
    run = a_run(network, tmp_path / "run", lr=1e20, batch_norm="running", warmup_epochs=0)
    with pytest.raises(RunError, match=r"loss\b.* 10 \(seed 0\)"):
        train_fully(run)


def test_a_state_that_would_run_code_is_refused(network: Path, tmp_path: Path) -> None:
    run = a_run(network, tmp_path / "run")
    train_fully(run)

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"identity": Evil()}, run.directory / "checkpoints" / "step_00000010.state")
    with pytest.raises(InputError, match=r"checkpoints|safetensors|pth"):
        train_fully(run)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_state_with_values_that_no_training_writes_is_damaged(
    network: Path, tmp_path: Path, optimizer: str
) -> None:
    """Of the optimiser's torch checks none, and writes beyond the memory of a smaller one."""
    run = a_run(network, tmp_path / "run", optimizer=optimizer)
    with pytest.raises(CrashError):
        train_fully(run, crash_at(7))
    path = max((run.directory / "checkpoints").glob("*.state"))
    figure = "momentum_buffer" if optimizer == "sgd" else "exp_avg"
    state = ("training", "optimizer", "state", 3)
    changes: list[tuple[tuple[Any, ...], Any]] = [
        *((((*state, figure), value)) for value in (None, "x", -1, torch.zeros(3), torch.zeros(()))),
        ((*state, figure), torch.zeros(1).expand(_at(read_state(path), (*state, figure)).shape)),
        (state, {}),
        (state, -1),
        (state, {"x": torch.zeros(3)}),
        (("training", "optimizer", "state"), {99: {}}),
        (("training", "optimizer", "param_groups", 0, "params", 0), 99),
        (("training", "optimizer", "param_groups", 0, "foreach"), torch.zeros(3)),
        (("training", "optimizer", "param_groups", 0, "weight_decay"), 7.0),
        (("training", "optimizer", "param_groups"), []),
        (("training", "network", "buffers", "1.num_batches_tracked"), torch.zeros(3)),
        (("training", "network", "buffers", "1.running_mean"), torch.zeros(3)),
        (("training", "network", "parameters", "1.weight"), torch.zeros(1)),
    ]
    for place, value in changes:
        whole = read_state(path)
        *above, last = place
        _at(whole, above)[last] = value
        altered = tmp_path / "altered"
        shutil.rmtree(altered, ignore_errors=True)
        shutil.copytree(run.directory, altered)
        save_state(altered / "checkpoints" / path.name, whole)
        with pytest.raises(InputError, match=r"step_\d+\.state is damaged: ValueError: ") as told:
            train_fully(replace(run, directory=altered))
        assert "\n" not in str(told.value), place


def _at(whole: Any, place: Any) -> Any:
    for key in place:
        whole = whole[key]
    return whole


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors"):
        read_checkpoint_metadata(path)


def test_a_damaged_image_is_reported_and_counted(network: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name, colour in (("black", 0), ("white", 255)):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (20, 20), (colour,) * 3).save(folder / f"{number}.png")
    bad = tmp_path / "data" / "train" / "white" / "3.png"
    bad.write_bytes(bad.read_bytes()[:30])
    run = a_run(network, tmp_path / "run", data=f"folder:{tmp_path / 'data'}", batch_size=4, epochs=1)
    outcome = train_fully(run)
    assert outcome.damaged == (str(bad),)
    assert read_records(run.directory)[0].value["damaged"] == [str(bad)]


def test_an_epoch_whose_last_batch_is_damaged_ends_all_the_same(network: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(20):
                Image.new("RGB", (20, 20), (number,) * 3).save(
                    tmp_path / "data" / part / name / f"{number}.png"
                )
    source = f"folder:{tmp_path / 'data'}"
    split = load_data(source, resolution=16).train
    assert isinstance(split, FolderSplit)
    # The images of the last batch of the first pass, in its order.
    order = torch.randperm(40, generator=EpochPass(0, 0).generator())
    for index in order[-4:].tolist():
        Path(split.folder.samples[index][0]).write_bytes(b"damaged")
    run = a_run(network, tmp_path / "run", data=source, batch_size=4, epochs=1, log_every=100)
    outcome = train_fully(run)
    assert len(outcome.damaged) == 4
    assert [(row.step, row.top1 is not None) for row in read_log(run.directory)] == [(10, True)]
    assert len(read_records(run.directory)) == 1


def command(network: Path, out: Path, *more: object, function: str = "make") -> list[str]:
    options = (
        *("--backbone", f"{network}:{function}", "--method", "plain", "--resolution", 16, "--data", "digits"),
        *("--device", "cpu", "--batch-size", 128, "--epochs", 6, "--log-every", 1, "--save-every", 4),
        *("--out", out, *more),
    )
    return ["train", *map(str, options)]


@pytest.mark.slow
def test_a_process_that_is_stopped_resumes_to_the_same_bits(network: Path, tmp_path: Path) -> None:
    ended(*command(network, tmp_path / "whole"))
    for how in (signal.SIGKILL, signal.SIGINT):
        parts = tmp_path / how.name
        with started(*command(network, parts)) as process:
            wait_for_rows(parts, 17, process)
            process.send_signal(how)
            code = process.wait()
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        ended(*command(network, parts))
        assert curve(parts) == curve(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_resume_after_a_stop(network: Path, tmp_path: Path) -> None:
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together += ["-m", "wnexplore"]
    alone, pair, stopped = (
        command(network, tmp_path / name, function="without_memory") for name in ("alone", "pair", "stopped")
    )
    ended(*alone)
    subprocess.run([*together, *pair], check=True, capture_output=True)
    ours, theirs = read_log(tmp_path / "pair"), read_log(tmp_path / "alone")
    # The mean of two halves' gradients is the whole batch's but for rounding, which steps amplify.
    assert [row.loss for row in ours[:20]] == pytest.approx([row.loss for row in theirs[:20]], rel=1e-3)
    assert [row.step for row in ours] == [row.step for row in theirs]
    with subprocess.Popen([*together, *stopped], stderr=subprocess.DEVNULL) as process:
        wait_for_rows(tmp_path / "stopped", 17, process)
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert len(read_log(tmp_path / "stopped")) < len(ours)
    subprocess.run([*together, *stopped], check=True, capture_output=True)
    assert curve(tmp_path / "stopped") == curve(tmp_path / "pair")


def test_tensorboard_reads_the_log(network: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = a_run(network, tmp_path / "run")
    train_fully(run)
    board = events.EventAccumulator(str(run.directory / "tensorboard")).Reload()
    with (run.directory / "log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [event.value for event in board.Scalars("loss")] == pytest.approx(losses)
