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

from wnexplore.data.preprocessing import Preparation
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, shown
from wnexplore.files import write_whole
from wnexplore.models.weight_files import read_tensors, unwrapped
from wnexplore.training.checkpoint_header import (
    build_held,
    named,
    named_point,
    read_header,
    read_told,
    try_out,
)
from wnexplore.training.checkpoint_metadata import VERSION, DamagedError, NewerError, read_metadata
from wnexplore.training.network_state import lacks_layers, load_beside, make_writable

SUFFIX = ".safetensors"
KEY = "wnexplore"
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
    source: str | None = None
    """`source_hash` of the file that the network is in; None if it is in none, and in old checkpoints."""


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
    content = asdict(origin) | {"point": origin.point.to_dict(), "version": VERSION}
    metadata = {"format": "pt", KEY: json.dumps(content, sort_keys=True)}
    if beside:
        metadata[_BESIDE] = _as_text(beside)
    write_whole(path, save(tensors, metadata))


def open_checkpoint(path: Path, backbone: str | None = None) -> Trained:
    """The network of a file that `save_checkpoint` wrote, built anew with its weights.

    Nothing that the file names is run but what `backbone` names, as `read_origin` says. Raises `InputError`
    as that does, and if its weights are another network's or it doesn't run. No memory is taken for a network
    that its weights can't fit, as far as `build_held` can tell.
    """
    origin = read_origin(path, backbone)
    held = read_header(path).shapes
    network = build_held(path, origin.point, held)
    if lacks_layers(network, held):
        # Some are only made for the first images. If they can't be, loading says what is missing.
        with torch.no_grad(), suppress(Exception):
            network(torch.zeros(2, 3, origin.point.resolution, origin.point.resolution))
    load_checkpoint(network, path)
    try_out(path, network.eval(), origin.point)
    return Trained(network, origin)


def read_origin(path: Path, backbone: str | None = None) -> Origin:
    """What a file that `save_checkpoint` wrote says of its weights.

    A checkpoint can come from anybody, and must not run code: where it names a Python file as its backbone,
    `backbone` has to name that file (wherever it is now) and its function, and the file's hash has to be the
    one in the checkpoint.

    Raises `InputError` if it isn't, if the file can't be read, is something else, damaged or from a newer
    version.
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
    return Origin(
        point=named_point(path, found.design_point(), found.source, backbone),
        data=found.data,
        classes=found.classes,
        preparation=Preparation(how.mean, how.std, how.grey, how.crop, how.ranges),
        recipe=found.recipe,
        seed=found.seed,
        step=found.step,
        epoch=found.epoch,
        top1=found.top1,
        source=found.source,
    )


def load_checkpoint(
    network: nn.Module,
    path: Path,
    weights: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Load the weights in the file `path`: .safetensors, or what a training saved by `torch.save`.

    They may stand among other things and under a wrapper's names, as `unwrapped` says, which is told which
    `weights` to take. Raises `InputError` if
    it can't be read, or doesn't fit: then the network is not to be used.
    """
    if path.suffix != SUFFIX:
        read = read_tensors(path)
    else:
        read = read_told(path, "checkpoint", lambda: load_file(path))
        beside = _read_beside(path)
        try:
            read = load_beside(network, beside, read)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"checkpoint {path} is damaged: {_BESIDE}: {shown(error)}") from None
    state = unwrapped(read, network.state_dict().keys(), weights, tell)
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
    """Write tensors, numbers and text, in mappings and lists, to the file `path`, whole."""
    data = io.BytesIO()
    torch.save(dict(state), data)
    write_whole(path, data.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU; nothing in the file is run. Raises `InputError`."""
    return dict(read_tensors(path))


_MOST_BESIDE = 64 * 2**20
"""Bytes of what a network holds beside its state dict."""
_MOST_PICKLED = 2**19
"""Bytes of it that are no numbers of tensors."""


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
    text = read_header(path).metadata.get(_BESIDE)
    if text is None:
        return {}
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST_BESIDE)
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            names = [part for part in parts.infolist() if part.filename.endswith("data.pkl")]
        # Tensors apart: it takes a microsecond or more for each byte.
        if not names or any(part.file_size > _MOST_PICKLED for part in names):
            raise ValueError
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # bytes that are something else can fail in any way
        found = None
    if not isinstance(found, dict):
        raise InputError(f"checkpoint {path} is damaged: its '{_BESIDE}' can't be read")
    return found


def _unfit(path: Path, fault: str, found: list[str]) -> InputError:
    return InputError(
        f"{path} holds weights of another network: {len(found)} {fault}, such as {found[0].strip()}"
    )
