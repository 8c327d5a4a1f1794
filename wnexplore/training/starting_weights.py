"""The start of a detector's backbone: the weights of a classification network that was trained before."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from wnexplore.design.axes import LAYER_AXES
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import START
from wnexplore.errors import InputError, shown
from wnexplore.models.build import backbone_of
from wnexplore.training.checkpoint import read_checkpoint_metadata
from wnexplore.training.checkpoint_header import read_or_explain

_BODY = "backbone.body.body"


def start_file(start: str, point: DesignPoint) -> Path:
    """The checkpoint with which the backbone of `point` starts.

    `start` is its path, in which {method}, {M} and others stand for the axes of the point's backbone:
    {method} is plain where the method is in the head alone. Raises `InputError` if there is none, if it is
    of another network or if `point` is no detector.
    """
    if point.task != "detection":
        raise InputError("start_from is for the backbone of a detector: leave it out")
    backbone: dict[str, Any] = backbone_of(point).to_dict()
    axes = point.to_dict() | {axis: backbone[axis] for axis in ("method", *LAYER_AXES)}
    for axis, value in axes.items():
        start = start.replace(f"{{{axis}}}", str(value))
    path = Path(start)
    metadata = read_checkpoint_metadata(path)
    found = metadata.point.to_dict()
    for axis in ("backbone", "stem", "method", *LAYER_AXES):
        if found[axis] != axes[axis]:
            raise InputError(
                f"start_from {shown(path, 300)} is of {metadata.point}: expected the backbone of {point}, and"
                f" its {axis} is another"
            )
    return path


def start_hash(start: str | None, point: DesignPoint) -> dict[str, str]:
    """What the protocol of a training says of its `start_file`: the first 12 hex digits of its SHA-256.

    {} without one. Raises `InputError` as that.
    """
    if start is None:
        return {}
    path = start_file(start, point)
    return {START: _hash(path, path.stat().st_mtime_ns)}


def check_start(start: str | None, point: DesignPoint, planned: str | None) -> None:
    """Raise `InputError` unless the `start_file` has the hash that was `planned`."""
    now = start_hash(start, point).get(START)
    if planned is not None and now != planned:
        raise InputError(
            f"the checkpoint of start_from has changed since this was planned (SHA-256 {shown(planned)}, now"
            f" {now}): put it back, or start the command again"
        )


@lru_cache(maxsize=256)
def _hash(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def load_start(network: nn.Module, start: str, point: DesignPoint) -> None:
    """Load the weights of `start_file` into the backbone of `network`, the detector of `point`.

    The classifier's, which it lacks, are left out. Raises `InputError` as that, and if they don't fit.
    """
    path = start_file(start, point)
    body = network.get_submodule(_BODY)
    held = read_or_explain(path, "checkpoint", lambda: load_file(path))
    wanted = body.state_dict()
    missing = [name for name in wanted if name not in held or held[name].shape != wanted[name].shape]
    if missing:
        raise InputError(
            f"start_from {shown(path, 300)} doesn't fit the backbone: {len(missing)} tensors, such as"
            f" {missing[0]}"
        )
    with torch.no_grad():
        body.load_state_dict({name: held[name] for name in wanted})
