"""Run directories and checkpoints that an earlier version made (tests/cli/before, at commit 6372866)."""

import csv
import io
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import wnexplore.measure.environment
from tests.cli.conftest import Command
from wnexplore.design.protocol import in_words

BEFORE = Path(__file__).parent / "before"
THEN = {"task": "classification", "baseline": "trained", "allocator": "as_is", "latency_is": "measured"}
"""The only values of axes that there were not."""
NAME = "Intel(R) Xeon(R) Processor"
"""Of its processor, as it was called then."""


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that can be written to, and the working directory, from which its network is named."""
    copy = shutil.copytree(BEFORE, tmp_path / "before")
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):  # they were not set then
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(copy)
    return copy


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def check_is_that_of_before(exported: str) -> None:
    """Each cell that there was is the same to the last digit; later columns are as was done then."""
    expected = rows((BEFORE / "run/results.csv").read_text())
    found = rows(exported)
    assert [{name: row.pop(name) for name in expected[0]} for row in found] == expected
    for row in found:
        assert [row.pop(name) for name in THEN] == list(THEN.values())
    assert {*itertools.chain(*(row.values() for row in found))} == {""}


def test_a_run_directory_is_exported_to_the_last_digit(before: Path, command: Command) -> None:
    check_is_that_of_before(command("export", "run").out)


def test_a_sweep_of_before_is_done(before: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # It trained without parity of learning rates, which is another training, and timed otherwise.
    sweep = before / "run/sweep.yaml"
    text = sweep.read_text().replace("lr: 0.05,", "lr: 0.05, lr_parity: false,")
    sweep.write_text(text.replace("modes:", "baseline: trained\n  allocator: as_is\n  modes:"))
    monkeypatch.setattr(wnexplore.measure.environment, "device_name", lambda device: NAME)
    ended = command("sweep", "run/sweep.yaml", "--out", "run", "--threads", "2")
    assert ended.code == 0, ended.err
    assert "30 of 30" in ended.err
    check_is_that_of_before(command("export", "run").out)


def test_a_seed_that_is_added_has_the_figures_that_the_others_lack(before: Path, command: Command) -> None:
    text = (before / "run/sweep.yaml").read_text()
    changes = {"seeds: 2": "seeds: 3", "lr: 0.05,": "lr: 0.05, lr_parity: false,", "shufflenet_v2_x0_5, ": ""}
    for old, new in changes.items():
        text = text.replace(old, new)
    Path("more.yaml").write_text(text)
    ended = command("sweep", "more.yaml", "--out", "run", "--threads", "2")
    assert ended.code == 0, ended.err
    found = [row for row in rows(command("export", "run").out) if row["seeds"] == "3"]
    assert found
    for row in found:
        assert float(row["test_loss"]) > 0
        # Of one seed there is no interval.
        assert (row["test_loss_low"], row["test_loss_diff_low"]) == ("", "")
        assert bool(row["test_loss_diff"]) == (row["method"] != "plain")


def test_a_checkpoint_has_the_accuracy_and_the_recipe_that_it_had(before: Path, command: Command) -> None:
    path = "trained/checkpoints/best.safetensors"
    found = json.loads(command("evaluate", path, "--backbone", "net.py:make", "--json").out)
    assert found["top1"] == pytest.approx(15.0, abs=0.3)  # an image's difference between machines
    # From before there were parity of learning rates and another start, both of which it trained without.
    expected = {"lr": 0.05, "kernel_lr": 12.0, "lr_parity": False, "init": "default", "epochs": 2}
    assert {name: found["recipe"][name] for name in expected} == expected
    assert in_words(found["recipe"]) == (
        "epochs 2, batch_size 256, optimizer sgd, lr 0.05, kernel_lr 12.0, lr_parity false, init default"
    )


def test_a_training_resumes_from_the_step_it_was_stopped_at(before: Path, command: Command) -> None:
    kept = before / "trained/checkpoints"
    full = load_file(kept / "step_00000010.safetensors")
    for path in kept.glob("step_00000010.*"):
        path.unlink()
    options = ("--method", "weightnet", "--M", "2", "--G", "1", "--resolution", "16", "--data", "digits")
    resume = (
        *("train", "--backbone", "net.py:make", *options, "--epochs", "2"),
        *("--batch-size", "256", "--out", "trained"),
    )
    refused = command(*resume)
    assert refused.code == 2
    assert "lr_parity False, now True" in refused.err
    ended = command(*resume, "--no-lr-parity")
    assert ended.code == 0, ended.err
    assert "step 5 of" not in ended.out + ended.err
    again = load_file(kept / "step_00000010.safetensors")
    assert again.keys() == full.keys()
    for name, tensor in full.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
