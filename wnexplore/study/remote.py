"""What runs in the processes and on the nodes that tasks are handed to."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

import wnexplore
from wnexplore.design.external_names import is_external, source_hash
from wnexplore.design.latency_protocol import TimingDevice
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import STOPS, InputError, RunError
from wnexplore.measure.environment import resolve_device, timing_device, usable_cores
from wnexplore.measure.failure import ContextLostError
from wnexplore.study.dispatch import Fault, Returned
from wnexplore.study.tasks import FullDiskError, Outcome, Task, TimingTask, perform
from wnexplore.training.determinism import require_cublas_workspace
from wnexplore.training.setup import load

SMALL = 32
"""Resolution at which data is loaded to see whether it is there."""


@dataclass(frozen=True)
class Needs:
    """What a node must have as the machine of the command has it."""

    folder: str
    """The working folder, from which paths are read if the node has it."""
    sources: Mapping[str, str | None] = field(default_factory=dict)
    """Brought backbone -> the hash of its file; None for a library's network."""
    data: TrainSpec | None = None
    """The trainings, whose data must be there."""
    listing: str | None = None
    """The hash of the data set's list of images; None for those that are no files in folders."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: SweepSpec) -> Needs:
        """Those of a sweep begun in this process. Raises `InputError` if something isn't here either."""
        names = {listed.point().backbone for listed in spec.points or ()}
        names |= set(spec.networks) if spec.has_grid else set()
        sources = {name: source_hash(name) for name in sorted(names) if is_external(name)}
        listing = None if spec.train is None else load(spec.train, SMALL).listing
        return cls(os.getcwd(), sources, spec.train, listing, installed())


@dataclass(frozen=True)
class Survey:
    """What a node is, and what it lacks."""

    host: str
    machine: str
    cores: int
    devices: Mapping[str, TimingDevice]
    lacks: str | None
    """One line; None if nothing."""


def perform_there(task: Task, folder: str | None = None) -> Returned | Fault:
    """Do a task in this process, which was started for that; paths are read from `folder`, if it is there.

    After an outcome that is `lost` this process can do nothing more on its GPU: whoever started it ends it.
    """
    require_cublas_workspace()
    if folder is not None:
        with suppress(OSError):
            os.chdir(folder)
    outcomes: list[Outcome] = []
    try:
        if isinstance(task, TimingTask):
            _check_hardware(task)
        # One by one: those before a lost context count.
        for outcome in perform(task):
            outcomes.append(outcome)
    except ContextLostError:
        pass
    except FullDiskError as error:
        return Fault("disk", str(error))
    except Exception as error:
        return Fault("raised", f"{type(error).__name__}: {error}")
    return Returned(tuple(outcomes))


def survey(needs: Needs) -> Survey:
    """What this node is, and what of `needs` it lacks."""
    with suppress(OSError):
        os.chdir(needs.folder)
    devices = {"cpu": timing_device("cpu")}
    if torch.cuda.is_available():
        with suppress(InputError):
            devices["cuda"] = timing_device(resolve_device("cuda"))
    # Torch's own default, which Ray's settings hide.
    threads = min(usable_cores(), psutil.cpu_count(logical=False) or usable_cores())
    devices["cpu"] = replace(devices["cpu"], threads=threads)
    return Survey(socket.gethostname(), machine_id(), usable_cores(), devices, _lacking(needs))


@cache
def installed() -> dict[str, str]:
    """What must be alike for records to be alike: wnexplore, by its files, torch and torchvision, Python."""
    from importlib.metadata import version

    package = Path(wnexplore.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return {
        "wnexplore": f"{wnexplore.__version__} ({digest.hexdigest()[:8]})",
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def machine_id() -> str:
    """The same in all processes of a machine since its start."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


def ignore_stops_and_follow_parent() -> None:
    """Leave Ctrl-C and similar signals to the process that started this one, and end with it, however it
    ends."""
    import multiprocessing

    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _lacking(needs: Needs) -> str | None:
    """What is missing or differs here, in a line."""
    here = installed()
    differs = [
        f"{name} {here[name]}, not {wanted}"
        for name, wanted in needs.versions.items()
        if here[name] != wanted
    ]
    if differs:
        return "it has " + "; ".join(differs)
    for backbone, wanted in needs.sources.items():
        try:
            found = source_hash(backbone)
        except InputError as error:
            return str(error)
        if found != wanted:
            return f"the file of backbone '{backbone}' differs there"
    if needs.data is None:
        return None
    try:
        listing = load(needs.data, SMALL).listing
    except (InputError, RunError) as error:
        return str(error)
    return None if listing == needs.listing else f"the images of {needs.data.source.text} differ there"


def _check_hardware(task: TimingTask) -> None:
    """Raise `RunError` if this process has other hardware than the protocol of `task` names."""
    wanted: Any = task.protocol
    here = timing_device(wanted.device).name
    if here != wanted.device_name:
        raise RunError(f"it has {here}, and the latency is of {wanted.device_name}")
