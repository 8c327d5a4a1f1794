"""The machine and the software that a figure was measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wnexplore.design.protocol import ADAPTIVE, DEVICES
from wnexplore.errors import InputError, unknown


def resolve_device(name: str) -> str:
    """The device that "auto", "cpu" or "cuda" means here; auto takes the GPU where torch sees one.

    Raises `InputError` for another name, or for cuda where torch sees no GPU.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA GPU"
        raise InputError(f"device 'cuda' asked for, but {why} here: use 'cpu', or 'auto' for what there is")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


@cache
def device_name(device: str) -> str:
    """The model name of the GPU (device "cuda") or of the processor (device "cpu")."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return _cpu_model() or platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many processor cores this process may run on."""
    # The affinity mask is what a container or taskset leaves; not every system has one.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_policy() -> str:
    """How torch's threads wait: "adaptive", or the settings of OpenMP that the process was started with."""
    given = {name: os.environ[name] for name in _WAIT_SETTINGS if os.environ.get(name)}
    return " ".join(f"{name}={value}" for name, value in given.items()) or ADAPTIVE


def free_memory(device: str) -> int | None:
    """Bytes of memory that are free on the device, for this process; None where nothing tells.

    On a CPU what Linux calls available, or what the container's limit leaves, if that is less.
    """
    if device == "cuda":
        free: int = torch.cuda.mem_get_info()[0]
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    available = _kilobytes(Path("/proc/meminfo"), "MemAvailable:")
    limit, used = (_whole(_CGROUP / name) for name in ("memory.max", "memory.current"))
    left = [n for n in (available, None if limit is None or used is None else limit - used) if n is not None]
    return min(left, default=None)


def environment(device: str) -> dict[str, Any]:
    """Software versions, hardware, and the switches of torch as they are now, as JSON can hold them.

    `device` is "cpu" or "cuda"; what this machine doesn't have is None. `commit` is `source_commit`
    of wnexplore's own source, taken once a process.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "wnexplore": _installed("wnexplore"),
        "commit": source_commit(Path(__file__)),
        "torch": torch.__version__,
        "torchvision": _installed("torchvision"),
        "fvcore": _installed("fvcore"),
        "numpy": _installed("numpy"),
        "onnxruntime": _installed("onnxruntime") or _installed("onnxruntime-gpu"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
        "device_name": device_name(device),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "wait_policy": wait_policy(),
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


_WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@cache
def source_commit(source: Path) -> str | None:
    """The git commit that the file `source` is checked out from, or None.

    "-dirty" follows it if tracked files of that checkout were changed.
    """
    git = ("git", "-C", str(source.resolve().parent))
    # An environment inside somebody's checkout would give that project's commit: it must track the file.
    if _output(*git, "ls-files", "--error-unmatch", source.name) is None:
        return None
    return _output(*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


@cache
def _installed(package: str) -> str | None:
    # Not `package.__version__`: fvcore and torchvision take long to import.
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_CGROUP = Path("/sys/fs/cgroup")


def _kilobytes(path: Path, name: str) -> int | None:
    """The line `name` of a file such as /proc/meminfo, in bytes."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _whole(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


@cache
def _driver() -> str | None:
    answer = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return answer.splitlines()[0] if answer else None


def _output(*command: str) -> str | None:
    """What a program prints; None if it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
