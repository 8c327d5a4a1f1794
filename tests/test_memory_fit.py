"""Batches that can't fit are refused by their sizes, before anything is allocated."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bounds import bounded
from tests.cli.conftest import Command, command
from tests.sweeps import TRAINED, write_sweep
from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.point import DesignPoint
from wnexplore.design.size_limits import batch_misfit, container_limit, machine_memory
from wnexplore.design.sweep_file import load_sweep
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.results.store import read_records
from wnexplore.study.sweep import plan
from wnexplore.training.checkpoint import CheckpointMetadata, save_checkpoint

__all__ = ["command"]

SMALL = DesignPoint.of("mobilenet_v2_x0_1", stem="small", resolution=8, num_classes=10)


def test_the_sizes_are_those_of_arithmetic() -> None:
    point = DesignPoint.of("resnet18", resolution=224)
    # 3 channels, and 64 of half the size.
    needed = 16 * 4 * (3 * 224**2 + 64 * 112**2)
    assert batch_misfit(16, 224, point=point, there=needed) is None
    told = batch_misfit(16, 224, point=point, there=needed - 1)
    assert told is not None
    assert re.search(r"\b16\b.*\b224\b.*\b0\.1 GB", told)
    assert batch_misfit(16, 224, bytes_each=2, there=16 * 2 * 3 * 224**2) is None
    assert batch_misfit(16, 224, bytes_each=2, there=16 * 2 * 3 * 224**2 - 1) is not None


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a small network."""
    how = Preprocessing((0.5,) * 3, (0.5,) * 3)
    path = tmp_path / "best.safetensors"
    save_checkpoint(
        path, build(SMALL), CheckpointMetadata(SMALL, "digits", tuple("0123456789"), how, {}, 0, 1, 1.0)
    )
    return path


HUGE = ("--batch-size", 1_000_000, "--resolution", 8192)


def test_what_never_fits_is_one_line(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    point = ("--backbone", "mobilenet_v2_x0_1", "--device", "cpu")
    run = tmp_path / "run"
    command("space", *point[:2], "--count")  # what is loaded takes more than any of these
    for arguments in (
        ("profile", *point, *HUGE),
        ("race", *point, "--method", "weightnet", *HUGE),
        ("sweep", *point, *HUGE, "--no-train", "--out", run),
        ("sweep", *point, *HUGE, "--no-train", "--dry-run", "--out", run),
        ("sweep", *point, *HUGE[2:], "--no-latency", "--train", "--data", "shapes:10x999999", "--out", run),
        ("train", *point, *HUGE, "--data", "digits", "--out", run),
        ("evaluate", checkpoint, "--device", "cpu", *HUGE),
    ):
        with bounded(30):
            done = command(*arguments)
        if arguments[0] == "sweep" and "--train" in arguments:
            # 32 images of that size are 26 GB: some machines have them.
            continue
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert re.search(r"\d GB", done.err)
        assert not run.exists()


def test_what_does_not_fit_with_what_does_becomes_a_record(command: Command, tmp_path: Path) -> None:
    text = "backbones: [mobilenet_v2_x0_1]\nmethods: [plain]\nstem: [small]\nresolution: [60000, 8]\n"
    file = tmp_path / "sizes.yaml"
    file.write_text(f"{text}latency: {{device: cpu, batch_sizes: [100000], seconds: 0.01}}\n")
    # No batch of 8 pixels is timed here: it would take long.
    planned = plan(load_sweep(file))
    assert len(planned.measurements) == 4
    file.write_text(f"{text}latency: {{device: cpu, batch_sizes: [100], seconds: 0.01}}\n")
    done = command("sweep", file, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    latencies = [r for r in read_records(tmp_path / "run") if r.figure == "latency"]
    assert [(r.point.resolution, r.status) for r in latencies] == [(60_000, "out_of_memory"), (8, "ok")]
    assert latencies[0].error is not None
    assert re.search(r"\b100\b.*\b60,000\b", latencies[0].error)


def test_many_seeds_are_planned_at_once(command: Command, tmp_path: Path) -> None:
    command("sweep", "quickstart", "--no-latency", "--dry-run", "--out", tmp_path / "run")
    with bounded():
        done = command(
            "sweep", "quickstart", "--no-latency", "--seeds", 10_000, "--dry-run", "--out", tmp_path / "run"
        )
    assert done.code == 0, done.err
    assert re.search(r"\bdigits\b.*\b0 to 9999\b", done.out)
    # Seven networks: a count and 10,000 trainings of each.
    assert "70007" in done.err


def test_more_measurements_than_can_be_listed_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    many = ", ".join(map(str, range(1, 2001)))
    file.write_text(f"methods: [plain]\nlatency: {{device: cpu, batch_sizes: [{many}], threads: [{many}]}}\n")
    with bounded(), pytest.raises(InputError, match=r"\b4,000,000\b.*\b1,000,000\b"):
        plan(load_sweep(file))


@pytest.mark.slow
def test_what_was_measured_on_a_larger_machine_is_shown(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_sweep(tmp_path, TRAINED.replace("M: [1, 2]", "M: [1]").replace("G: [1, 2]", "G: [1]"))
    run = ("sweep", file, "--out", tmp_path / "run")
    assert command(*run).code == 0
    # A machine of a thousand bytes.
    monkeypatch.setattr("wnexplore.measure.memory_fit.total_memory", lambda device: 1000)
    shown = command(*run)
    assert shown.code == 0, shown.err
    assert "measurements are done already" in shown.err
    assert "plain" in shown.out
    assert command(*run, "--dry-run").code == 0
    # What is left to do is asked about, and of the rest nothing.
    for more in (("--batch-size", "1,2,4"), ("--seeds", 3)):
        left = command(*run, *more)
        assert (left.code, left.err.count("\n")) == (2, 1)
        assert "a batch of " in left.err
        assert ("a batch of 4 images" in left.err) == ("--batch-size" in more)


ONE = """\
resolution: [8]
num_classes: [10]
latency: {device: cpu, batch_sizes: [1, 3], seconds: 0.001}
"""
HUNGRY = """
import torch
from own import nn, tiny

class Hungry(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        own = torch.ones(700_000_000 if len(x) == 3 else 1, device=x.device).sum()
        return self.network(x) + 0 * own

def hungry(num_classes=10):
    return Hungry(tiny(num_classes))
"""
"""A network that takes 2.8 GB for a batch of 3."""


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (".", "memory.max"),
        ("job_1", "memory.max"),
        ("memory", "memory.limit_in_bytes"),
        ("memory/slurm", "memory.limit_in_bytes"),
        ("memory/slurm/step", "memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_group_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, name: str
) -> None:
    (tmp_path / "own").write_text("5:memory,x:/slurm/step\n4:cpu:/job_2\n0::/job_1/step\n")
    monkeypatch.setattr("wnexplore.design.size_limits._CGROUPS", tmp_path)
    monkeypatch.setattr("wnexplore.design.size_limits._OWN_GROUPS", tmp_path / "own")
    for part in ("memory/slurm/step", "job_1/step", "job_2"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "job_2" / "memory.max").write_text("1\n")
    assert container_limit() is None
    (tmp_path / group / name).write_text("2000000000\n")
    assert container_limit() == machine_memory() == 2_000_000_000


@pytest.mark.slow
def test_what_a_container_does_not_have_is_refused_and_no_process_ended(tmp_path: Path) -> None:
    """A file stands in for the system's: without the bound the process takes the memory and goes on."""
    file = write_sweep(tmp_path, f"backbones: ['{tmp_path}/hungry.py:hungry']\nmethods: [plain]\n" + ONE)
    (tmp_path / "hungry.py").write_text(HUNGRY)
    groups = tmp_path / "cgroup"
    groups.mkdir()
    (groups / "memory.max").write_text("2000000000\n")
    script = f"""
import sys
from pathlib import Path
from wnexplore.cli import main
from wnexplore.design import size_limits
size_limits._CGROUPS = Path({str(groups)!r})
main(["sweep", {str(file)!r}, "--out", {str(tmp_path / "run")!r}])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [record.status for record in read_records(tmp_path / "run")] == ["ok", "ok", "out_of_memory"]
    assert done.stderr.count("you tried to allocate 2800000000 bytes") == 1
