"""Weights in files of torch.save: read without running code, and unwrapped."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import torch

from wnexplore.errors import InputError, shown


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """The content of the torch.save file `path`, on the CPU, without running code from the file.

    Raises `InputError`, which names the object in the file that prevents reading it so.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint can fail in any way
        why = _reason(error, Path(path))
        raise InputError(f"can't read weights from {shown(os.fspath(path), 300)}: {why}") from None


def read_tensors(path: Path) -> Mapping[str, Any]:
    """As `load_tensors` for a mapping of names to tensors. Raises `InputError` if the file holds something
    else.
    """
    state = load_tensors(path)
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise InputError(
            f"can't read weights from {shown(path, 300)}: expected a mapping of names to tensors, as"
            " state_dict() gives"
        )
    return state


def unwrapped(
    state: Mapping[str, Any],
    names: Set[str],
    weights: str | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Mapping[str, Any]:
    """The weights in `state` under the names of a network, which are `names`.

    - A training's file holds them among other things, under "state_dict", "model" or another usual key; the
      trained weights are preferred to their moving average, which is taken where it is the only one.
      `weights` selects another key, and `notify` gets a line where there were several to choose from.
    - Wrappers prefix every name, as DataParallel with "module." and torch.compile with "_orig_mod.": the
      prefix is removed where all names have it and the network's don't. "n_averaged" of a moving average is
      removed too.

    A state dict in the network's own names is returned unchanged. Raises `InputError` if there is nothing
    under `weights`.
    """
    left, seen = weights, list[str]()
    for _ in range(_DEEPEST):  # a mapping may hold itself
        keys = [key for key in _KEYS if _is_state(state.get(key))]
        if left is not None and left not in keys and _is_state(state.get(left)):
            keys.append(left)
        if not keys or names & state.keys():
            break
        seen += keys
        taken = left if left in keys else keys[0]
        if taken == left:
            left = None
        if len(keys) > 1:
            notify(f"using the weights under '{shown(taken)}', of {_listed(keys)}")
        state = state[taken]
    if left is not None:
        held = f"those under {_listed(seen)}" if seen else "none under a name"
        raise InputError(f"no weights under '{shown(left)}': the file holds {held}")
    state = {key: value for key, value in state.items() if key != "n_averaged" or key in names}
    while prefix := _common_prefix(state, names):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f"'{shown(key)}'" for key in keys)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(key, str) for key in value)


def _common_prefix(state: Mapping[str, Any], names: Set[str]) -> str:
    """The common first component of all names in `state`, with its dot; empty if there is none or the network
    has it.
    """
    words = {key.partition(".")[0] for key in state}
    if len(words) != 1 or not all("." in key for key in state):
        return ""
    word = words.pop()
    return "" if any(name.partition(".")[0] == word for name in names) else f"{word}."


def _reason(error: Exception, path: Path) -> str:
    """Why torch.load refuses a file; its message is a page long and recommends running the file's code."""
    if isinstance(error, OSError):
        return error.strerror or "it can't be read"
    found = re.search(r"GLOBAL (\S+)|but got <class '([^']+)'>", str(error))
    if found is not None:
        name = found[1] or found[2]
        what = _KNOWN.get(name.replace("_core", "core"), "an object")
        return (
            f"{_NOT} alone: it holds {what} ({shown(name)}) too, and reading it could run code; save only"
            " the state_dict()"
        )
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return f"{_NOT}: the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return f"{_NOT}: it is a pointer of Git LFS to a file that has yet to be fetched"
    return f"{_NOT}: the file is cut off or damaged" if start.startswith(b"PK") else _NOT


_NOT = "not tensors saved by torch.save"
_DEEPEST = 4
_KNOWN = {
    "numpy.core.multiarray.scalar": "a numpy scalar",
    "numpy.core.multiarray._reconstruct": "a numpy array",
}
_KEYS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
"""The usual keys of weights in training files, the likeliest first."""
