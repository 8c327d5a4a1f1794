"""The names of external backbones: from torchvision, timm, or a Python file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from wnexplore.errors import InputError, unknown

LIBRARIES = ("torchvision", "timm")

_EXPECTED = "expected torchvision:NAME, timm:NAME or path/to/file.py:function"


def is_external(name: str) -> bool:
    """Whether `name` is that of an external backbone: "timm:NAME", "path/to/file.py:function"."""
    return ":" in name


def check_name(name: str) -> None:
    """Raise `InputError` unless `name` is well-formed; whether the network exists is checked on loading."""
    source, _, network = name.rpartition(":")
    if not source or not network:
        raise InputError(f"backbone is '{name}': {_EXPECTED}")
    if source in LIBRARIES:
        return
    if not source.endswith(".py"):
        raise unknown(f"source of backbone '{name}'", source, [*LIBRARIES, "path/to/file.py"])
    if not network.isidentifier():
        raise InputError(f"backbone is '{name}': '{network}' can't be a function's name; {_EXPECTED}")


def settled_name(name: str) -> str:
    """`name` with the canonical path of its file, so that a file has one name.

    Relative to the working directory if below it, with links resolved: net.py for ./net.py and its absolute
    path.
    """
    source, _, network = name.rpartition(":")
    if source in LIBRARIES:
        return name
    try:
        path, here = Path(os.path.realpath(source)), Path(os.path.realpath("."))
    except (OSError, ValueError):  # not a valid file name: reported when it is read
        return name
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{network}"


def source_hash(name: str) -> str | None:
    """The first 12 hex digits of SHA-256 of the file that `name` names; None for a library's network.

    Raises `InputError` if the file can't be read.
    """
    source, _, _ = name.rpartition(":")
    if source in LIBRARIES:
        return None
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"can't read {source}, the file of backbone '{name}': {error.strerror}") from None
    return hashlib.sha256(content).hexdigest()[:12]
