"""Processes of this machine: which die, lose their GPU, or take the GPUs in turn."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch

from tests.sweeps import OWN
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.errors import Notice, print_notices
from wnexplore.results.record import Record
from wnexplore.study import processes as module
from wnexplore.study.dispatch import Dispatcher, Fault
from wnexplore.study.executor import ending
from wnexplore.study.processes import Processes
from wnexplore.study.remote import perform_there
from wnexplore.study.tasks import FullDiskError, TrainingTask, perform
from wnexplore.training.training_record import training_protocol

NETWORKS = f"""import errno
{OWN}

class Poisoned(nn.Sequential):
    def forward(self, x):
        raise RuntimeError("CUDA error: device-side assert triggered")

def poisoned(num_classes=10):
    return Poisoned(*tiny(num_classes))

class Hanging(nn.Sequential):
    def forward(self, x):
        import time
        if len(x) > 2:
            time.sleep(1000)
        return super().forward(x)

def hanging(num_classes=10):
    return Hanging(*tiny(num_classes))

class Full(nn.Sequential):
    def forward(self, x):
        if len(x) > 2:
            raise RuntimeError("can't cache") from OSError(errno.ENOSPC, "No space left on device")
        return super().forward(x)

def full(num_classes=10):
    return Full(*tiny(num_classes))
"""
SPEC = TrainSpec(data="digits", device="cpu", epochs=1, batch_size=512)


def _training(file: Path, network: str, seed: int) -> TrainingTask:
    point = DesignPoint.of(f"{file}:{network}", resolution=8, num_classes=10)
    return TrainingTask(SPEC, Record("training", point, training_protocol(SPEC, "cpu", 1, seed)))


@pytest.mark.slow
def test_processes_that_lost_their_gpu_or_died_idle_cost_others_no_attempt(tmp_path: Path) -> None:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    processes = Processes(2)
    with ending(Dispatcher(processes)) as dispatcher:
        tasks = [_training(file, "poisoned", 0), _training(file, "poisoned", 1), _training(file, "tiny", 0)]
        records = [outcome.record for outcome in dispatcher.run(tasks)]
        assert [record.status for record in records].count("ok") == 1
        (good,) = (record for record in records if record.status == "ok")
        assert good.environment["attempts"] == 1
        # One that has nothing to do is killed.
        (idle,) = processes._free
        os.kill(idle._pid.result(), signal.SIGKILL)
        time.sleep(0.5)
        (outcome,) = dispatcher.run([_training(file, "tiny", 1)])
        assert (outcome.record.status, outcome.record.environment["attempts"]) == ("ok", 1)


@pytest.mark.slow
def test_a_hung_task_is_killed_at_its_time_and_its_place_taken_again(tmp_path: Path) -> None:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    with ending(Dispatcher(Processes(1), task_hours=30 / 3600)) as dispatcher:
        hung, good = (
            outcome.record
            for outcome in dispatcher.run([_training(file, name, 0) for name in ("hanging", "tiny")])
        )
    assert (hung.status, hung.error) == ("failed", "not done after 0.00833 hours on this machine")
    assert good.status == "ok"


def test_a_full_disk_is_the_machines_fault_and_no_record(tmp_path: Path) -> None:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    with pytest.raises(FullDiskError, match="No space left on device"):
        list(perform(_training(file, "full", 0)))
    fault = perform_there(_training(file, "full", 0))
    assert isinstance(fault, Fault)
    assert fault.kind == "disk"


def test_processes_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(module, "ignore_stops_and_follow_parent", lambda: None)
    for gpu in (*Processes(5, "cuda")._numbers, None):
        module._begin(gpu, frozenset())
    assert taken == [0, 1, 2, 0, 1]


def test_a_notice_is_printed_by_one_process(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back in the end
    print_notices()
    _warn("3 images without boxes")
    process = module._Process(None)
    for text in ("3 images without boxes", "4 images without boxes"):
        process.pool.submit(_warn, text).result()
    process.pool.shutdown()
    assert capfd.readouterr().err.splitlines() == [
        "wnexplore: 3 images without boxes",
        "wnexplore: 4 images without boxes",
    ]


def _warn(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=1)
