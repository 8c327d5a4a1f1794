"""Checkpoints: the weights of a network with the design point that they belong to, and bare state dicts."""

from __future__ import annotations

import base64
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import BEFORE
from wnexplore.errors import InputError, shown
from wnexplore.files import write_atomically
from wnexplore.models.weight_files import read_tensors, unwrapped
from wnexplore.training.checkpoint_header import (
    build_held,
    named,
    named_point,
    read_header,
    read_or_explain,
    try_out,
)
from wnexplore.training.checkpoint_metadata import VERSION, DamagedError, NewerError, read_metadata
from wnexplore.training.network_state import lacks_layers, load_side_state, make_writable

SUFFIX = ".safetensors"
KEY = "wnexplore"
"""Key of the checkpoint metadata in a file's header, as JSON."""
_SIDE_STATE = "wnexplore.beside"
"""Key of the network's state that is not in its state dict, if it has changed."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """The checkpoint metadata: the network, data and recipe of the weights."""

    point: DesignPoint
    """The network, with the number of classes of its data."""
    data: str
    """The data set, in the form of `--data`."""
    classes: tuple[str, ...]
    """The names of the classes, in the order of the logits."""
    preparation: Preprocessing
    recipe: Mapping[str, Any]
    """The fields of `Recipe`; what older versions didn't have at the values by which these trained."""
    seed: int
    step: int
    epoch: float
    top1: float | None = None
    """Top-1 accuracy in percent; None if not tested."""
    ap: float | None = None
    """Of a detector: average precision in percent; None if not tested."""
    source: str | None = None
    """`source_hash` of the network's Python file; None if there is none, and in old checkpoints."""


@dataclass(frozen=True)
class Trained:
    """A network with trained weights, in evaluation mode on the CPU."""

    network: nn.Module
    metadata: CheckpointMetadata


def save_checkpoint(
    path: Path, network: nn.Module, metadata: CheckpointMetadata, side_state: Mapping[str, Any] | None = None
) -> None:
    """Write the weights of `network` and their metadata atomically to the .safetensors file `path`.

    `side_state` is the state that is not in the state dict, from `SideState.changed`. Raises
    `InputError` if it can't be written, `RunError` if the disk is full.
    """
    # Copies: the format doesn't support weights shared by two layers, which are written twice.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, Tensor)  # a layer's extra state may have any type, and is in `side_state`
    }
    content = asdict(metadata) | {"point": metadata.point.stored(), "version": VERSION}
    if metadata.ap is None:
        # Left out, so that earlier versions read what they know.
        del content["ap"]
    header = {"format": "pt", KEY: json.dumps(content, sort_keys=True)}
    if side_state:
        header[_SIDE_STATE] = _as_text(side_state)
    write_atomically(path, save(tensors, header))


def open_checkpoint(path: Path, backbone: str | None = None) -> Trained:
    """Build the network of a file that `save_checkpoint` wrote, with its weights.

    No code named by the file is run unless `backbone` names it too, see `read_checkpoint_metadata`. Raises
    `InputError` as that does, and if the weights are of another network or it doesn't run. No memory is
    allocated for a network that the weights can't fit, as far as `build_held` can tell.
    """
    metadata = read_checkpoint_metadata(path, backbone)
    held = read_header(path).shapes
    network = build_held(path, metadata.point, held)
    if lacks_layers(network, held):
        # Some layers are only created by the first forward pass. If it fails, loading reports what is
        # missing.
        with torch.no_grad(), suppress(Exception):
            network(torch.zeros(2, 3, metadata.point.resolution, metadata.point.resolution))
    load_checkpoint(network, path)
    try_out(path, network.eval(), metadata.point)
    return Trained(network, metadata)


def read_checkpoint_metadata(path: Path, backbone: str | None = None) -> CheckpointMetadata:
    """The metadata of a file that `save_checkpoint` wrote.

    Checkpoints are untrusted and must not run code: where one names a Python file as its backbone, `backbone`
    must name that file (at its current path) and its function, and the file's hash must match the
    checkpoint's.

    Raises `InputError` if they don't match, or if the checkpoint can't be read, has another format, is
    damaged or from a newer version.
    """
    text = read_header(path).metadata.get(KEY)
    if text is None:
        raise InputError(
            f"{named(path)} doesn't say which network its weights are of: expected a file of"
            " 'wnexplore train'"
        )
    try:
        found = read_metadata(text)
    except NewerError:
        raise InputError(
            f"{named(path)} was written by a newer wnexplore: upgrade with 'pip install -U wnexplore'"
        ) from None
    except DamagedError as error:
        raise InputError(f"checkpoint {named(path)} is damaged: {error}") from None
    how = found.preparation
    return CheckpointMetadata(
        point=named_point(path, found.design_point(), found.source, backbone),
        data=found.data,
        classes=found.classes,
        preparation=Preprocessing(how.mean, how.std, how.grey, how.crop, how.ranges),
        recipe=BEFORE | found.recipe,
        seed=found.seed,
        step=found.step,
        epoch=found.epoch,
        top1=found.top1,
        ap=found.ap,
        source=found.source,
    )


def load_checkpoint(
    network: nn.Module,
    path: Path,
    weights: str | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> None:
    """Load the weights in the file `path`: .safetensors, or what a training saved by `torch.save`.

    They may be among other things and under a wrapper's names, see `unwrapped`, to which `weights` is passed.
    Raises `InputError` if it can't be read or doesn't fit; then the network must not be used.
    """
    if path.suffix != SUFFIX:
        read = read_tensors(path)
    else:
        read = read_or_explain(path, "checkpoint", lambda: load_file(path))
        side_state = _read_side_state(path)
        try:
            read = load_side_state(network, side_state, read)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"checkpoint {path} is damaged: {_SIDE_STATE}: {shown(error)}") from None
    state = unwrapped(read, network.state_dict().keys(), weights, notify)
    make_writable(network)
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        wrong = str(error).splitlines()[1:] or [str(error)]
        raise _unfit(path, "of the wrong shape", wrong) from None
    for fault, names in (("missing", keys.missing_keys), ("unexpected", keys.unexpected_keys)):
        if names:
            raise _unfit(path, fault, names)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and text, in mappings and lists, atomically to the file `path`."""
    data = io.BytesIO()
    torch.save(dict(state), data)
    write_atomically(path, data.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """Read a state written by `save_state` to the CPU, without running code from it. Raises `InputError`."""
    return dict(read_tensors(path))


_MAX_SIDE_STATE = 64 * 2**20
"""Largest state outside of the state dict, in bytes."""
_MAX_PICKLED = 2**19
"""Largest part of it that isn't tensor data, in bytes."""


def _as_text(side_state: Mapping[str, Any]) -> str:
    data = io.BytesIO()
    torch.save(dict(side_state), data)
    if data.tell() > _MAX_SIDE_STATE:
        raise InputError(
            f"the network holds {data.tell() // 2**20} MiB outside its state dict: expected at most"
            f" {_MAX_SIDE_STATE // 2**20}, or buffers that are persistent"
        )
    return base64.b64encode(zlib.compress(data.getvalue())).decode("ascii")


def _read_side_state(path: Path) -> dict[str, Any]:
    """What `_as_text` wrote into the file `path`, or {}; no code in it is run."""
    text = read_header(path).metadata.get(_SIDE_STATE)
    if text is None:
        return {}
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MAX_SIDE_STATE)
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            names = [part for part in parts.infolist() if part.filename.endswith("data.pkl")]
        # Without tensors: it takes a microsecond or more per byte.
        if not names or any(part.file_size > _MAX_PICKLED for part in names):
            raise ValueError
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # other bytes can fail in any way
        found = None
    if not isinstance(found, dict):
        raise InputError(f"checkpoint {path} is damaged: its '{_SIDE_STATE}' can't be read")
    return found


def _unfit(path: Path, fault: str, found: list[str]) -> InputError:
    return InputError(
        f"{path} holds weights of another network: {len(found)} {fault}, such as {found[0].strip()}"
    )
