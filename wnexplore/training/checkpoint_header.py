"""The header of a .safetensors file, and whether a network fits it, checked before tensors are read."""

from __future__ import annotations

import math
import shlex
import stat
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wnexplore.design.external_names import LIBRARIES, is_external, source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, shown
from wnexplore.models import build
from wnexplore.models.bounded_build import NumbersAtMost
from wnexplore.training.network_state import Snapshot

_Shape = tuple[int, ...]
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Header:
    """The header before the tensors."""

    metadata: Mapping[str, str]
    shapes: Mapping[str, _Shape]

    @property
    def numbers(self) -> int:
        """Elements of all tensors; the format guarantees that the file holds as many."""
        return sum(map(math.prod, self.shapes.values()))


def read_header(path: Path) -> Header:
    """The header of the file `path`. Raises `InputError` if it can't be read or is invalid."""

    def read() -> Header:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return Header(file.metadata() or {}, shapes)

    return read_or_explain(path, "checkpoint", read)


def read_or_explain(path: Path, what: str, read: Callable[[], _Read]) -> _Read:
    """The result of `read`, with errors translated into an `InputError` that names the file."""
    try:
        check_regular(path)
        return read()
    except OSError as error:
        raise InputError(f"can't read {what} {named(path)}: {error.strerror or shown(error)}") from None
    except MemoryError:
        raise InputError(f"can't read {what} {named(path)}: it doesn't fit in memory") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} {named(path)} is damaged: not a complete .safetensors file") from None


def check_regular(path: Path) -> None:
    """Raise `OSError` for a pipe or device: reading one may never end."""
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL in the name
        raise OSError(0, "it is not a file name") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(0, "it is not a regular file")


def named(path: Path) -> str:
    """`path` for messages."""
    return shown(path, 4096)


def named_point(path: Path, point: DesignPoint, source: str | None, backbone: str | None) -> DesignPoint:
    """`point` with the backbone that the user names, who alone decides which file is run.

    Raises `InputError` if the backbone of `point` is in a Python file and `backbone` doesn't name that
    function in a file with the hash `source`, or if `backbone` is a different one.
    """
    recorded = point.backbone
    if not is_in_file(recorded):
        if backbone not in (None, recorded):
            raise InputError(
                f"checkpoint {named(path)} is of backbone '{shown(recorded)}', not '{shown(backbone)}': leave"
                " --backbone out"
            )
        return point
    function = recorded.rpartition(":")[2]
    if backbone is None:
        raise InputError(
            f"checkpoint {named(path)} is of a network in a Python file, which is run only where you name it:"
            f" add --backbone {shlex.quote(shown(recorded, 4096))}"
        )
    if not is_in_file(backbone) or backbone.rpartition(":")[2] != function:
        raise InputError(
            f"checkpoint {named(path)} is of '{shown(recorded)}', not '{shown(backbone)}': expected"
            f" --backbone path/to/file.py:{shown(function)}"
        )
    if source is None:
        raise InputError(
            f"checkpoint {named(path)} doesn't hold the hash of {shown(recorded)}, so it is unknown whether"
            " this is the file that it was trained with: train again, or load its weights into"
            " wnexplore.build's network in Python"
        )
    if source_hash(backbone) != source:
        raise InputError(
            f"{shown(backbone.rpartition(':')[0], 4096)} is not the file that checkpoint {named(path)} was"
            f" trained with: its hash is {source_hash(backbone)}, and the checkpoint's {source}"
        )
    return replace(point, backbone=backbone)


def is_in_file(backbone: str) -> bool:
    """Whether `backbone` is a function of a Python file, which is run to build the network."""
    return is_external(backbone) and backbone.rpartition(":")[0] not in LIBRARIES


def build_held(path: Path, point: DesignPoint, shapes: Mapping[str, _Shape]) -> nn.Module:
    """Build the network of `point`. Raises `InputError` if it can't have tensors of `shapes`.

    No network much larger than its file is built. For an external backbone only the classifier can be checked
    before, and for timm's and torchvision's the number of elements.
    """
    if point.resolution > _LARGEST_TRAINED:
        raise InputError(
            f"checkpoint {named(path)} is damaged: point: resolution is {point.resolution}: expected at most"
            f" {_LARGEST_TRAINED:,}"
        )
    # A detector has nine anchors at each place.
    outputs = point.num_classes * (9 if point.task == "detection" else 1)
    if not any(outputs in shape for shape in shapes.values()):
        raise _unfit(path, f"no tensor has the size of {point.num_classes:,} classes")
    times = _TIMES if is_external(point.backbone) else 1
    bounds = NumbersAtMost(times * sum(map(math.prod, shapes.values())) + _SLACK)
    try:
        with nullcontext() if is_in_file(point.backbone) else bounds:
            network = build(point)
    except Exception as error:
        if bounds.exceeded:
            raise _unfit(path, f"its network is much larger than its {len(shapes)} tensors") from None
        if isinstance(error, InputError):
            raise InputError(f"checkpoint {named(path)} is damaged: point: {error}") from None
        raise
    if is_external(point.backbone):
        return network
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        if shapes.get(name) != shape:
            found = "is missing" if name not in shapes else f"has the shape {list(shapes[name])}"
            raise _unfit(path, f"{shown(name)} {found}, expected {list(shape)}")
    return network


def try_out(path: Path, network: nn.Module, point: DesignPoint) -> None:
    """Run `network` once, without changing it. Raises `InputError` if it fails, or has other classes.

    Large images are avoided: they would take seconds.
    """
    size = point.resolution
    if size > _TRIED:
        return
    before = Snapshot(network)
    try:
        with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=()):
            logits = network(torch.zeros(1, 3, size, size))
    except Exception as error:  # arbitrary code, or a network from a damaged file
        raise InputError(
            f"checkpoint {named(path)} is damaged: point: its network can't run on images of {size} pixels:"
            f" {shown(error)}"
        ) from None
    before.put_back()
    if point.task == "detection":
        fits = isinstance(logits, Tensor) and logits.dim() == 3 and logits.shape[2] == point.num_classes + 4
    else:
        fits = isinstance(logits, Tensor) and logits.shape == (1, point.num_classes)
    if not fits:
        raise _unfit(path, f"its network doesn't give {point.num_classes:,} values for an image")


_LARGEST_TRAINED = 4096
"""Largest resolution: a larger image takes half a gigabyte before the first layer."""
_TRIED = 640
_TIMES = 8
"""Largest ratio of elements that an external backbone allocates to those in its file: parts may be built
twice."""
_SLACK = 2**22
"""Elements that a network may allocate beyond those of its file, which are too few to matter."""


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(f"checkpoint {named(path)} is damaged: tensors: {reason}")
