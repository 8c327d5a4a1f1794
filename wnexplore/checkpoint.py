"""Weights of a network that were saved by torch.save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wnexplore.errors import InputError


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Load the state dict in the file `path`, saved by `torch.save(network.state_dict(), path)`.

    Raises `InputError` if it can't be read, or doesn't fit: then the network is not to be used.
    """
    state = _read(path)
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        wrong = str(error).splitlines()[1:] or [str(error)]
        raise _unfit(path, "of the wrong shape", wrong) from None
    for fault, names in (("missing", keys.missing_keys), ("unexpected", keys.unexpected_keys)):
        if names:
            raise _unfit(path, fault, names)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint can fail in any way
        reason = error.strerror if isinstance(error, OSError) else "not tensors saved by torch.save"
        raise InputError(f"can't read weights from {path}: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise InputError(
            f"can't read weights from {path}: expected a mapping of names to tensors, as state_dict() gives"
        )
    return state


def _unfit(path: Path, fault: str, found: list[str]) -> InputError:
    return InputError(
        f"{path} holds weights of another network: {len(found)} {fault}, such as {found[0].strip()}"
    )
