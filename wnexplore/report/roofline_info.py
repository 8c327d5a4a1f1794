"""What a roofline plot shows, as plain data: what each layer attains over how much it reuses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wnexplore.design.methods import METHODS
from wnexplore.errors import InputError
from wnexplore.results.columns import COLUMNS

KINDS = (
    *("convolution", "depthwise convolution", "generated convolution", "generated depthwise convolution"),
    *("context", "activation vectors", "squeeze-and-excitation", "linear", "other"),
)
"""The kinds of layers that a plot tells apart, in the order of its legend."""

_TITLE = ("backbone", "method", "M", "G", "stages", "experts", "stem", "resolution")
_PROTOCOL = ("device_name", "threads", "dtype", "batch_size", "memory_format")
_OWN_KIND = {
    "Conv2d": "convolution",
    "ActivationVectors": "activation vectors",
    "Context": "context",
    "Linear": "linear",
    # Layers with formulations are known by these.
    **{
        own.layer_class: own.layer_kind
        for own in METHODS.values()
        if own.layer_kind and own.kind != "generated"
    },
}


@dataclass(frozen=True)
class LayerMark:
    """One layer: multiply-adds a byte, multiply-adds a second, its share of the time of a pass."""

    name: str
    kind: str
    """One of `KINDS`."""
    intensity: float
    attained: float
    time_share: float


@dataclass(frozen=True)
class RooflineInfo:
    """What a roofline plot shows."""

    title: str
    note: str
    """Its lines: how it was measured, and how to read it."""
    bytes_per_s: float
    multiply_adds_per_s: float
    layers: tuple[LayerMark, ...]
    """Those with multiply-adds, the ones that take longest first."""

    @property
    def ridge(self) -> float:
        """Multiply-adds a byte where the two roofs meet."""
        return self.multiply_adds_per_s / self.bytes_per_s


def roofline_info(profile: Mapping[str, Any]) -> RooflineInfo:
    """The plot of a profile with layers, as `wnexplore profile --layers --json` has it.

    Raises `InputError` if no layer has multiply-adds.
    """
    protocol = profile["layers_protocol"]
    marks = [
        LayerMark(
            name=layer["name"],
            kind=_kind(layer),
            intensity=layer["intensity"],
            attained=protocol["batch_size"] * layer["flops"] / (layer["time_ms"] / 1e3),
            time_share=layer["time_share"],
        )
        for layer in profile["layers"]
        if layer["flops"] and layer["bytes"] and layer["time_ms"] > 0
    ]
    if not marks:
        raise InputError("nothing to draw: no layer of this network has multiply-adds")
    rest = 1 - sum(mark.time_share for mark in marks)
    told = [COLUMNS[name].say(protocol[name]) for name in _PROTOCOL if protocol[name] is not None]
    return RooflineInfo(
        title=" · ".join(COLUMNS[name].say(profile[name]) for name in _TITLE if profile[name] is not None),
        note=f"{' · '.join([*told, 'eager'])}\n"
        f"area: share of the time of a pass; {rest:.0%} of it is in no layer with multiply-adds",
        bytes_per_s=protocol["bytes_per_s"],
        multiply_adds_per_s=protocol["multiply_adds_per_s"],
        layers=tuple(sorted(marks, key=lambda mark: -mark.time_share)),
    )


def check_target(path: Path) -> None:
    """Raise `InputError` if no figure can be written to `path`, as far as that shows beforehand."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"can't save a figure as {str(path)!r}: its name must end in .png, .svg or .pdf")
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long
        raise InputError(f"can't write {str(path)!r}: {error.strerror}") from None
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif not path.parent.is_dir():
        why = "its folder does not exist"
    elif not all(os.access(part, os.W_OK) for part in ([path.parent, path] if there else [path.parent])):
        why = "permission denied"
    if why:
        raise InputError(f"can't write {str(path)!r}: {why}")


def _kind(layer: Mapping[str, Any]) -> str:
    formulated = layer["formulation"] is not None
    kind = "generated convolution" if formulated else _OWN_KIND.get(layer["kind"], "other")
    return kind.replace("convolution", "depthwise convolution") if layer["depthwise"] else kind
