"""The machine and the software that a figure was measured with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from wnexplore.design.axes import ADAPTIVE
from wnexplore.design.latency_protocol import TimingDevice
from wnexplore.design.protocol import DEVICES
from wnexplore.design.size_limits import machine_memory
from wnexplore.errors import InputError, Notice, unknown
from wnexplore.measure.allocator import can_settle
from wnexplore.measure.processor import processor_name
from wnexplore.nn.precision import convolutions_use_tf32, products_use_tf32


def resolve_device(name: str) -> str:
    """Resolve "auto", "cpu" or "cuda" on this machine; auto is the GPU where torch can use one.

    With a GPU that this build of torch has no code for, auto warns and takes the CPU. Raises
    `InputError` for another name, or for cuda where torch sees no GPU that it can use.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA GPU"
        raise InputError(f"device 'cuda' isn't available: {why}; use 'cpu', or 'auto'")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    lacking = _no_code()
    if lacking is None:
        return "cuda"
    if name == "cuda":
        raise InputError(
            f"device 'cuda' isn't available: {lacking}; use 'cpu', or a build of torch that has it"
        )
    warnings.warn(f"{lacking}: using the CPU", Notice, stacklevel=1)
    return "cpu"


def has_code_for(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a build of torch for `architectures` ("sm_90", "compute_90") runs on a GPU of `capability`.

    Machine code (sm) runs on the same major version from its own minor version on, PTX (compute) is compiled
    for later capabilities; a suffix "a" restricts code to that capability, "f" to its family, the same major
    version. A build without a list is assumed to have code for everything. Source: CUDA C++ Programming
    Guide, 3.1, binary and PTX compatibility.
    """
    found = [_ARCHITECTURE.fullmatch(name) for name in architectures]
    known = [match for match in found if match is not None]
    return not known or any(_runs(match, capability) for match in known)


@cache
def device_name(device: str) -> str:
    """The model of the GPU (device "cuda"), or of the processor (device "cpu") as `processor_name` has it."""
    return torch.cuda.get_device_name() if device == "cuda" else processor_name()


def usable_cores() -> int:
    """The number of processor cores this process may run on."""
    # The affinity mask reflects a container or taskset; not every system has one.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_policy() -> str:
    """How torch's threads wait: "adaptive", or the OpenMP settings of the process's environment."""
    given = {name: os.environ[name] for name in _WAIT_SETTINGS if os.environ.get(name)}
    return " ".join(f"{name}={value}" for name, value in given.items()) or ADAPTIVE


def timing_device(device: str) -> TimingDevice:
    """What a latency's protocol says of `device`, "cpu" or "cuda", as it is now."""
    on_cpu = device == "cpu"
    return TimingDevice(
        device,
        device_name(device),
        torch.get_num_threads() if on_cpu else None,
        wait_policy() if on_cpu else None,
        on_cpu and can_settle(),
    )


def free_memory(device: str) -> int:
    """Bytes of memory free on the device for this process.

    On a CPU the memory that Linux calls available, or the rest of the container's limit if that is less. On a
    GPU torch's cached memory counts as free, except that of recorded graphs.
    """
    if device == "cuda":
        free: int = torch.cuda.mem_get_info()[0]
        return free + unused_bytes(torch.cuda.memory_snapshot(), torch.cuda.current_device())
    available = psutil.virtual_memory().available
    limit, used = (_integer(_CGROUP / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, limit - used)


def total_memory(device: str) -> int | None:
    """Bytes of memory of the device, or the limit of a process on it; None where unknown."""
    if device == "cuda":
        total: int = torch.cuda.mem_get_info()[1]
        return total
    return machine_memory()


def unused_bytes(segments: Iterable[Mapping[str, Any]], device: int) -> int:
    """Bytes in `torch.cuda.memory_snapshot()` that torch has cached for any tensor on GPU `device`.

    Free memory in a recorded graph's private pool is not available to other tensors: the graph writes there
    when it is replayed.
    """
    return sum(
        segment["total_size"] - segment["active_size"]
        for segment in segments
        if segment["device"] == device and tuple(segment.get("segment_pool_id", (0, 0))) == (0, 0)
    )


def environment(device: str) -> dict[str, Any]:
    """Software versions, hardware, and the current switches of torch, as JSON values.

    `device` is "cpu" or "cuda"; unknown entries are None. `commit` is `source_commit` of wnexplore's source,
    read once per process.
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
        "matmul_tf32": products_use_tf32(),
        "cudnn_tf32": convolutions_use_tf32(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


_WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@cache
def source_commit(source: Path) -> str | None:
    """The git commit that the file `source` is checked out from, or None.

    "-dirty" follows it if tracked files of that checkout were changed.
    """
    git = ("git", "-C", str(source.resolve().parent))
    # A virtual environment inside another project's checkout: that project must not track the file.
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
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


def _no_code() -> str | None:
    """Why torch can't use the current visible GPU; None if it can."""
    capability, built_for = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
    if has_code_for(capability, built_for):
        return None
    return (
        f"this torch ({torch.__version__}, for {' '.join(built_for)}) has no code for"
        f" {torch.cuda.get_device_name()} (sm_{capability[0]}{capability[1]})"
    )


def _runs(architecture: re.Match[str], capability: tuple[int, int]) -> bool:
    kind, major, minor, only = architecture.groups()
    built = int(major), int(minor)
    if only == "a":
        return capability == built
    if kind == "compute" and not only:
        return capability >= built
    return capability[0] == built[0] and capability[1] >= built[1]


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


@cache
def _driver() -> str | None:
    answer = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return answer.splitlines()[0] if answer else None


def _output(*command: str) -> str | None:
    """The output of a program; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
