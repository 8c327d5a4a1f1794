"""Checkpoints: the weights of a network with the design point that they belong to, and bare state dicts."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, shown
from wnexplore.files import write_whole
from wnexplore.measure.data.preparation import Preparation
from wnexplore.measure.held import lacks_layers, load_beside
from wnexplore.models import build
from wnexplore.weight_files import read_tensors, unwrapped

SUFFIX = ".safetensors"
_KEY = "wnexplore"
"""Key of a file's metadata under which all that is known of its weights stands, as JSON."""
_BESIDE = "wnexplore.beside"
"""Key under which stands what the network holds beside its state dict, if that has changed."""


@dataclass(frozen=True)
class Origin:
    """Where weights come from."""

    point: DesignPoint
    """The network, with as many classes as its data has."""
    data: str
    """The data set, as `--data` takes it."""
    classes: tuple[str, ...]
    """The names of the classes, in the order of the logits."""
    preparation: Preparation
    recipe: Mapping[str, Any]
    seed: int
    step: int
    epoch: float
    top1: float | None = None
    """Share of the test images whose class came first, in percent; None where that was not tested."""


@dataclass(frozen=True)
class Trained:
    """A network with trained weights, in evaluation mode on the CPU."""

    network: nn.Module
    origin: Origin


def save_checkpoint(
    path: Path, network: nn.Module, origin: Origin, beside: Mapping[str, Any] | None = None
) -> None:
    """Write the weights of `network` and their origin to the .safetensors file `path`, whole.

    `beside` is what the network holds beside its state dict, as `Beside.changed` finds it. Raises
    `InputError` if it can't be written, `RunError` if the disk is full.
    """
    # Copies: weights that two layers share, for which the format has no word, are written twice.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, Tensor)  # a layer's extra state may be anything, and is in `beside`
    }
    content = asdict(origin) | {"point": origin.point.to_dict(), "version": _VERSION}
    metadata = {"format": "pt", _KEY: json.dumps(content, sort_keys=True)}
    if beside:
        metadata[_BESIDE] = _as_text(beside)
    write_whole(path, save(tensors, metadata))


def open_checkpoint(path: Path) -> Trained:
    """The network of a file that `save_checkpoint` wrote, built anew with its weights.

    Raises `InputError` if the file can't be read, is something else or from a newer version, or holds
    weights of another network.
    """
    origin = read_origin(path)
    network = build(origin.point)
    if lacks_layers(network, _names(path)):
        # Some are only made for the first images. If they can't be, loading says what is missing.
        with torch.no_grad(), suppress(Exception):
            network(torch.zeros(2, 3, origin.point.resolution, origin.point.resolution))
    load_checkpoint(network, path)
    return Trained(network.eval(), origin)


def read_origin(path: Path) -> Origin:
    """What a file that `save_checkpoint` wrote says of its weights; raises as `open_checkpoint`."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError) as error:
        raise InputError(f"can't read checkpoint {path}: {_reason(error)}") from None
    if text is None:
        raise InputError(
            f"{path} doesn't say which network its weights are of: expected a file of 'wnexplore train'"
        )
    try:
        content = json.loads(text)
        if content.pop("version") > _VERSION:
            raise InputError(
                f"{path} was written by a newer wnexplore: upgrade with 'pip install -U wnexplore'"
            )
        point = DesignPoint.from_dict(content.pop("point"))
        how = content.pop("preparation")
        mean, std = tuple(how.pop("mean")), tuple(how.pop("std"))
        # Files of before 16-bit images were scaled have none.
        how["ranges"] = {kind: (low, high) for kind, (low, high) in how.get("ranges", {}).items()}
        classes = tuple(content.pop("classes"))
        return Origin(point=point, classes=classes, preparation=Preparation(mean, std, **how), **content)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"checkpoint {path} is damaged: {error}") from None


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Load the weights in the file `path`: .safetensors, or what a training saved by `torch.save`.

    They may stand among other things and under a wrapper's names, as `unwrapped` says. Raises `InputError` if
    it can't be read, or doesn't fit: then the network is not to be used.
    """
    read = _read_safetensors(path) if path.suffix == SUFFIX else read_tensors(path)
    if path.suffix == SUFFIX:
        try:
            read = load_beside(network, _read_beside(path), read)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"checkpoint {path} is damaged: {_BESIDE}: {shown(error)}") from None
    state = unwrapped(read, network.state_dict().keys())
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        wrong = str(error).splitlines()[1:] or [str(error)]
        raise _unfit(path, "of the wrong shape", wrong) from None
    for fault, names in (("missing", keys.missing_keys), ("unexpected", keys.unexpected_keys)):
        if names:
            raise _unfit(path, fault, names)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and text, in mappings and lists, to the file `path`, whole."""
    data = io.BytesIO()
    torch.save(dict(state), data)
    write_whole(path, data.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU; nothing in the file is run. Raises `InputError`."""
    return dict(read_tensors(path))


_VERSION = 1
_MOST_BESIDE = 64 * 2**20
"""Bytes of what a network holds beside its state dict."""


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"can't read weights from {path}: {_reason(error)}") from None


def _as_text(beside: Mapping[str, Any]) -> str:
    data = io.BytesIO()
    torch.save(dict(beside), data)
    if data.tell() > _MOST_BESIDE:
        raise InputError(
            f"the network holds {data.tell() // 2**20} MiB beside its state dict: expected at most"
            f" {_MOST_BESIDE // 2**20}, or buffers that are persistent"
        )
    return base64.b64encode(zlib.compress(data.getvalue())).decode("ascii")


def _read_beside(path: Path) -> dict[str, Any]:
    """What `_as_text` wrote into the file `path`; {} if nothing. Nothing in it is run."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_BESIDE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"can't read weights from {path}: {_reason(error)}") from None
    if text is None:
        return {}
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST_BESIDE)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # bytes that are something else can fail in any way
        found = None
    if not isinstance(found, dict):
        raise InputError(f"checkpoint {path} is damaged: its '{_BESIDE}' can't be read")
    return found


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "it can't be read"
    return "not a whole .safetensors file"


def _unfit(path: Path, fault: str, found: list[str]) -> InputError:
    return InputError(
        f"{path} holds weights of another network: {len(found)} {fault}, such as {found[0].strip()}"
    )
