"""Trainings that are interrupted, killed, or short of disk or images: nothing is lost, one line tells."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.commands import ended, started
from tests.examples import rest_slow
from tests.training import odd_networks
from tests.training.runs import CrashError, crash_at, curve, odd_run, wait_for_rows
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError, RunError, WnexploreError
from wnexplore.results.store import Store, read_records
from wnexplore.study.sweep import plan, remaining
from wnexplore.study.sweep import run as run_sweep
from wnexplore.training.checkpoint import read_state, save_state
from wnexplore.training.full_training import TrainRun, train_fully
from wnexplore.training.log import Row, TrainingLog, read_log
from wnexplore.training.setup import load

NETWORK = """\
import os
import sys
import time
from pathlib import Path

from torch import nn


class Leaves(nn.Sequential):
    passes = 0

    def forward(self, images):
        self.passes += self.training
        if self.passes > 3:
            sys.exit(0)
        return super().forward(images)


def leaves(num_classes):
    pool = nn.AdaptiveAvgPool2d(1)
    return Leaves(nn.Conv2d(3, 8, 3, 2, 1), pool, nn.Flatten(), nn.Linear(8, num_classes))


class SlowInTests(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        if not self.training and "TESTS_SEEN" in os.environ:
            Path(os.environ["TESTS_SEEN"]).touch()
            time.sleep(1)
        return self.head(self.norm(self.conv(images)).relu().mean((2, 3)))


def slow(num_classes):
    return SlowInTests(num_classes)


def norm_of_one_pixel(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes),
    )


class Unkept(nn.BatchNorm2d):
    def get_extra_state(self):
        return Path("a path")

    def set_extra_state(self, state):
        pass


def unkept(num_classes):
    return nn.Sequential(Unkept(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(NETWORK)
    return path


def images(folder: Path, *, train: int = 10, val: int = 10) -> Path:
    """A data set of two classes, evenly bright and evenly dark."""
    for part, count in (("train", train), ("val", val)):
        for name, value in (("dark", 40), ("light", 210)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                colour = (value, value + number % 40, value)
                Image.new("RGB", (12, 12), colour).save(folder / part / name / f"{number}.png")
    return folder


def folder_run(network: Path, function: str, data: Path, out: Path, **recipe: Any) -> TrainRun:
    point = DesignPoint.of(f"{network}:{function}", "plain", resolution=8)
    spec = TrainSpec(**{"data": f"folder:{data}", "device": "cpu", "epochs": 2, **recipe})
    return TrainRun(point, spec, out, log_every=1, save_every=2)


def damage(data: Path, count: int) -> list[Path]:
    """Break all but `count` of the training images."""
    broken = sorted((data / "train").glob("*/*.png"))[count:]
    for path in broken:
        path.write_bytes(path.read_bytes()[:45])  # what it is still shows
    return broken


@pytest.mark.slow
def test_a_batch_of_one_after_a_damaged_image_is_skipped_and_counted(network: Path, tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    run = folder_run(network, "norm_of_one_pixel", data, tmp_path / "run", batch_size=2)
    bad = data / "train" / "light" / "3.png"
    bad.write_bytes(b"no picture")
    outcome = train_fully(run)
    assert outcome.finished
    assert outcome.skipped == 2  # in each of two epochs
    assert outcome.damaged == (str(bad),)
    assert read_records(run.directory)[0].value["skipped"] == 2
    assert read_log(run.directory)[-1].step == 20


@pytest.mark.slow
@pytest.mark.parametrize("function", ["norm_of_one_pixel", "slow"])
def test_damaged_batches_do_not_shift_what_a_stopped_training_continues_with(
    network: Path, tmp_path: Path, function: str
) -> None:
    data = images(tmp_path / "data")
    # Of 20 images in batches of 2 some batches have one left and some none.
    damage(data, 12)
    full = folder_run(network, function, data, tmp_path / "whole", batch_size=2)
    broken = folder_run(network, function, data, tmp_path / "broken", batch_size=2)
    outcome = train_fully(full)
    assert outcome.skipped > 2
    steps = [row.step for row in read_log(full.directory)]
    for step in (steps[2], steps[-3]):
        with pytest.raises(CrashError):
            train_fully(broken, crash_at(step))
    assert train_fully(broken).skipped == outcome.skipped
    assert curve(broken.directory) == curve(full.directory)


def test_batches_of_one_are_refused_where_batch_norm_needs_more(network: Path, tmp_path: Path) -> None:
    data = images(tmp_path / "data", train=3, val=1)
    run = folder_run(network, "norm_of_one_pixel", data, tmp_path / "run", batch_size=1)
    with pytest.raises(InputError, match=r"batch_size 1\b.*\b2\b"):
        train_fully(run)
    assert not run.directory.exists()
    # Over space there is more than one number for each channel.
    assert train_fully(folder_run(network, "slow", data, tmp_path / "run", batch_size=1, epochs=1)).finished


def test_selective_kernels_with_a_batch_of_one(tmp_path: Path) -> None:
    data = images(tmp_path / "data", train=3, val=1)
    point = DesignPoint.of("shufflenet_v2_x0_5", "sk", stem="small", resolution=16)
    spec = TrainSpec(data=f"folder:{data}", device="cpu", epochs=1, batch_size=2, lr=1e-3)
    damage(data, 5)
    outcome = train_fully(TrainRun(point, spec, tmp_path / "two"))
    assert (outcome.finished, outcome.skipped) == (True, 1)
    one = TrainSpec(data=f"folder:{data}", device="cpu", epochs=1, batch_size=1)
    with pytest.raises(InputError, match="batch_size 1"):
        train_fully(TrainRun(point, one, tmp_path / "one"))


def test_no_training_image_at_all_is_one_line(network: Path, tmp_path: Path) -> None:
    data = images(tmp_path / "data", train=4)
    damage(data, 0)
    with pytest.raises(WnexploreError, match=r"\.png") as error:
        train_fully(folder_run(network, "slow", data, tmp_path / "run", batch_size=2))
    assert "\n" not in str(error.value)
    assert "read" in str(error.value)


def test_an_epoch_of_skipped_batches_alone_is_one_line(network: Path, tmp_path: Path) -> None:
    data = images(tmp_path / "data", train=1)
    (bad,) = damage(data, 1)
    with pytest.raises(RunError, match=rf"\b1 batch\w*\b.*{bad}"):
        train_fully(folder_run(network, "norm_of_one_pixel", data, tmp_path / "run", batch_size=2))


def test_extra_state_that_needs_code_is_refused_before_anything_is_written(
    network: Path, tmp_path: Path
) -> None:
    run = folder_run(network, "unkept", images(tmp_path / "data"), tmp_path / "run")
    with pytest.raises(InputError, match=r"get_extra_state.*'0'.*PosixPath"):
        train_fully(run)
    assert not run.directory.exists()


def test_what_killed_writes_leave_in_checkpoints_goes_at_the_next_start(tmp_path: Path) -> None:
    run = odd_run("frozen_by_train", tmp_path / "run")
    with pytest.raises(CrashError):
        train_fully(run, crash_at(3))
    left = run.directory / "checkpoints" / ".wnexplore-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    train_fully(run)
    assert not left.exists()


def test_one_that_was_killed_before_its_last_weights_writes_them(tmp_path: Path) -> None:
    run = odd_run("spectral_old", tmp_path / "run")
    train_fully(run)
    last = run.directory / "checkpoints" / "step_00000010.safetensors"
    before = load_file(last)
    last.unlink()
    train_fully(run)
    assert all(torch.equal(value, before[name]) for name, value in load_file(last).items())


def test_a_network_that_leaves_ends_its_training_with_a_line(network: Path, tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    run = folder_run(network, "leaves", data, tmp_path / "run", batch_size=2)
    with pytest.raises(RunError, match=r"mine.py:leaves plain\b.*SystemExit: 0$"):
        train_fully(run)
    assert len(read_log(run.directory)) == 3


def test_a_network_that_leaves_is_a_row_of_a_sweep(network: Path, tmp_path: Path) -> None:
    points = [
        PointSpec(backbone=f"{network}:{name}", method="plain", resolution=8) for name in ("leaves", "slow")
    ]
    train = TrainSpec(data="digits", device="cpu", steps=6, batch_size=256, seeds=1)
    spec = SweepSpec(points=tuple(points), latency=None, train=train)
    planned = plan(spec)
    with Store.create(tmp_path / "run") as store:
        run_sweep(spec, remaining(planned, store.keys()), store)
        trained = [record for record in store.records() if record.figure == "training"]
    assert [(record.status, record.error) for record in trained] == [
        ("failed", "SystemExit: 0"),
        ("ok", None),
    ]


@pytest.mark.parametrize(
    ("change", "kind"),
    rest_slow(
        [("added", "names"), ("renamed", "names"), ("class", "names"), ("swapped", "contents")],
        ("added", "names"),
        ("swapped", "contents"),
    ),
)
def test_images_that_changed_since_a_training_began_are_reported(
    network: Path, tmp_path: Path, change: str, kind: str
) -> None:
    data = images(tmp_path / "data")
    dark, light = (data / "train" / name / "0.png" for name in ("dark", "light"))
    run = folder_run(network, "slow", data, tmp_path / "run", batch_size=2)
    with pytest.raises(CrashError):
        train_fully(run, crash_at(5))
    if change == "class":
        for part in ("train", "val"):
            (data / part / "dark").rename(data / part / "night")
    elif change == "renamed":
        dark.rename(data / "train" / "dark" / "00.png")
    elif change == "swapped":
        before = dark.read_bytes(), light.read_bytes()
        light.write_bytes(before[0])
        dark.write_bytes(before[1])
    else:
        shutil.copy(data / "train" / "dark" / "0.png", data / "train" / "dark" / "z.png")
    load.cache_clear()  # another process loads the data anew
    with pytest.raises(InputError, match=rf"'folder:.*data'.*run\b.*by their .*{kind}"):
        train_fully(run)
    if change == "swapped":
        dark.write_bytes(before[0])
        light.write_bytes(before[1])
        os.utime(light, (0, 0))  # a copy is the same data set, whenever it was made
        load.cache_clear()
        assert train_fully(run).finished
    if change == "class":
        for part in ("train", "val"):
            (data / part / "night").rename(data / part / "dark")
        load.cache_clear()
        assert train_fully(run).finished


def test_a_sweep_trains_again_on_images_that_changed(network: Path, tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    point = PointSpec(backbone=f"{network}:slow", method="plain", resolution=8)
    train = TrainSpec(data=f"folder:{data}", device="cpu", epochs=1, batch_size=10, seeds=1)
    spec = SweepSpec(points=(point,), latency=None, train=train)

    def keys() -> list[str]:
        # As another process does: data are loaded once in each.
        load.cache_clear()
        return [
            measurement.key for measurement in plan(spec).measurements if measurement.figure == "training"
        ]

    before = keys()
    assert keys() == before
    (data / "val" / "dark" / "0.png").unlink()
    after = keys()
    assert not set(after) & set(before)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["training"].pop("optimizer"),
        lambda state: state["training"]["network"]["buffers"].update({"nowhere.b": torch.ones(1)}),
        lambda state: state["training"]["network"]["attributes"].update({"one": {"_modules": 1}}),
        lambda state: state["training"]["network"]["parameters"].update({"head.bias": torch.ones(3)}),
        lambda state: state.update(generators=[{"cpu": 3}]),
        lambda state: state.update(curves=None, generators=5),
        lambda state: state.update(training=7),
    ],
)
def test_a_damaged_state_is_one_line(tmp_path: Path, change: Any) -> None:
    run = odd_run("frozen_by_train", tmp_path / "run")
    with pytest.raises(CrashError):
        train_fully(run, crash_at(5))
    path = max((run.directory / "checkpoints").glob("*.state"))
    state = read_state(path)
    change(state)
    save_state(path, state)
    with pytest.raises(InputError, match=r"checkpoint .*\.state is damaged") as error:
        train_fully(run)
    assert "\n" not in str(error.value)


def test_a_state_of_another_version_is_reported(tmp_path: Path) -> None:
    run = odd_run("frozen_by_train", tmp_path / "run")
    with pytest.raises(CrashError):
        train_fully(run, crash_at(5))
    path = max((run.directory / "checkpoints").glob("*.state"))
    state = read_state(path)
    del state["training"]["version"]
    save_state(path, state)
    with pytest.raises(InputError, match="version"):
        train_fully(run)


def test_a_log_that_can_not_grow_names_its_file_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row(1, 0.1, 0.05, 2.5, 100.0, 1.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with TrainingLog(tmp_path, 0) as log:
        log.write(row)
        size = (tmp_path / "log.csv").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, before[1]))
            with pytest.raises(RunError, match=r"log\.csv': no space left"):
                log.write(row)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # The line that was not written whole is left out.
    assert read_log(tmp_path) == [row]


def command(network: str, data: str, out: Path, *more: object) -> list[str]:
    options = (
        *("--backbone", network, "--method", "plain", "--resolution", 8, "--data", data),
        *("--device", "cpu", "--log-every", 1, "--save-every", 3, "--out", out, *more),
    )
    return ["train", *map(str, options)]


@pytest.mark.slow
def test_sigterm_to_all_processes_ends_a_long_test_and_loses_nothing(network: Path, tmp_path: Path) -> None:
    data, seen = images(tmp_path / "data", val=60), tmp_path / "seen"
    options = ("--batch-size", 2, "--epochs", 2)
    full, parts = (
        command(f"{network}:slow", f"folder:{data}", tmp_path / name, *options) for name in ("whole", "parts")
    )
    ended(*full)
    # A second for each of 60 batches of the test.
    with started(*parts, environment={"TESTS_SEEN": str(seen)}, session=True) as process:
        wait_for_rows(tmp_path / "parts", 9, process)
        seen.unlink(missing_ok=True)  # counting looks at the network, too
        while not seen.exists() and process.poll() is None:
            time.sleep(0.05)
        began = time.monotonic()
        # As a batch system does it: the processes that read images get it too.
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() == 130
        message = process.err
    assert time.monotonic() - began < 40
    assert re.search(r"\b10 of 20\b", message)
    assert [row.step for row in read_log(tmp_path / "parts")] == list(range(1, 10))
    ended(*parts)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ema", "how"),
    [
        ("spectral_old", 0.9, signal.SIGKILL),
        ("frozen_by_train", None, signal.SIGTERM),
    ],
)
def test_a_process_with_an_odd_network_is_killed_and_resumes_to_the_same_bits(
    tmp_path: Path, name: str, ema: float | None, how: signal.Signals
) -> None:
    options = ("--batch-size", 128, "--epochs", 3, *(() if ema is None else ("--ema", ema)))
    network = f"{odd_networks.__file__}:{name}"
    full, parts = (command(network, "digits", tmp_path / part, *options) for part in ("whole", "parts"))
    ended(*full)
    with started(*parts) as process:
        wait_for_rows(tmp_path / "parts", 17, process)
        process.send_signal(how)
        process.wait()
    ended(*parts)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    ours, theirs = (
        load_file(tmp_path / part / "checkpoints" / "best.safetensors") for part in ("parts", "whole")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
