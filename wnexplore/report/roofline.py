"""The layers of a network on its device's roofline: what they attain over how much they reuse."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from wnexplore.errors import InputError
from wnexplore.report.columns import COLUMNS, prefixed
from wnexplore.report.placement import Box, Label, leader, place
from wnexplore.report.render import STYLE

_LABELLED = 6
_TITLE = ("backbone", "method", "M", "G", "experts", "stem", "resolution")
_PROTOCOL = ("device_name", "threads", "dtype", "batch_size", "memory_format")
_GREY = "#595959"
_KINDS = {
    "convolution": ("#000000", "s"),
    "generated convolution": ("#0060A8", "o"),
    "generator": ("#E8862E", "^"),
    "linear": ("#009E73", "v"),
    "other": ("#9A9A9A", "D"),
}


@dataclass(frozen=True)
class LayerMark:
    """One layer: multiply-adds a byte, multiply-adds a second, its share of the time of a pass."""

    name: str
    kind: str
    intensity: float
    attained: float
    time_share: float


@dataclass(frozen=True)
class RooflineInfo:
    """What a roofline plot shows."""

    title: str
    note: str
    bytes_per_s: float
    multiply_adds_per_s: float
    layers: tuple[LayerMark, ...]
    """Those with multiply-adds, the ones that take longest first."""


def check_target(path: Path) -> None:
    """Raise `InputError` if no figure can be written to `path`, as far as that shows beforehand."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"can't draw to {str(path)!r}: its name must end in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise InputError(f"can't write {path}: its folder does not exist")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(
            f"can't write {path}: " + ("it is a folder" if path.is_dir() else "permission denied")
        )


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
        note=" · ".join([*told, "eager"])
        + f" · area: share of the time; {rest:.0%} of a pass is in no layer with multiply-adds",
        bytes_per_s=protocol["bytes_per_s"],
        multiply_adds_per_s=protocol["multiply_adds_per_s"],
        layers=tuple(sorted(marks, key=lambda mark: -mark.time_share)),
    )


def render_roofline(info: RooflineInfo) -> Figure:
    """The figure: both roofs, a mark for each layer, names beside the ones that take longest."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.9), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        ax.set(xscale="log", yscale="log")
        _set_limits(ax, info)
        _draw_roofs(ax, info)
        for mark in reversed(info.layers):
            colour, marker = _KINDS[mark.kind]
            ax.scatter(
                mark.intensity,
                mark.attained,
                s=8 + 900 * mark.time_share,
                marker=marker,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.5,
                alpha=0.8,
                zorder=3,
            )
        ax.set_xlabel("Arithmetic intensity (multiply-adds / byte)")
        ax.set_ylabel("Attained (multiply-adds / s)")
        ax.set_title(info.title)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: prefixed(value).replace(".00", "")))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.grid(color="#E4E4E4", linewidth=0.5)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        figure.suptitle("\n".join(textwrap.wrap(info.note, 92)), fontsize=7, color=_GREY)
        kinds = [kind for kind in _KINDS if any(mark.kind == kind for mark in info.layers)]
        handles = [
            Line2D([], [], linestyle="none", marker=_KINDS[kind][1], color=_KINDS[kind][0], label=kind)
            for kind in kinds
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        figure.draw_without_rendering()
        _name_layers(ax, info)
    return figure


def _kind(layer: Mapping[str, Any]) -> str:
    if layer["part"] != "layer":
        return "generated convolution" if layer["part"] == "convolution" else "generator"
    return {"Conv2d": "convolution", "Linear": "linear", "Context": "linear"}.get(layer["kind"], "other")


def _set_limits(ax: Axes, info: RooflineInfo) -> None:
    ridge = info.multiply_adds_per_s / info.bytes_per_s
    across = [ridge, *(mark.intensity for mark in info.layers)]
    up = [info.multiply_adds_per_s, *(mark.attained for mark in info.layers)]
    ax.set_xlim(min(across) / 2, max(across) * 3)
    ax.set_ylim(min(up) / 2, max(up) * 2.5)


def _draw_roofs(ax: Axes, info: RooflineInfo) -> None:
    (left, right), ridge = ax.get_xlim(), info.multiply_adds_per_s / info.bytes_per_s
    roof = [left * info.bytes_per_s, info.multiply_adds_per_s, info.multiply_adds_per_s]
    ax.plot([left, ridge, right], roof, color="#222222", linewidth=1.0, zorder=2)
    ax.annotate(
        f"{prefixed(info.multiply_adds_per_s)} multiply-adds/s",
        (right, info.multiply_adds_per_s),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
        color="#222222",
    )
    # Along the slope, from a third of it on.
    at = math.exp(math.log(left) + (math.log(ridge) - math.log(left)) / 3)
    ax.annotate(
        f"{prefixed(info.bytes_per_s)}B/s",
        (at, at * info.bytes_per_s),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
        color="#222222",
    )


def _name_layers(ax: Axes, info: RooflineInfo) -> None:
    """Names where they cover no mark; a layer that has no room for one stays without."""
    scale = 72 / ax.figure.dpi
    marks = [(mark, ax.transData.transform((mark.intensity, mark.attained)) * scale) for mark in info.layers]
    hard = [_box(x, y, math.sqrt(8 + 900 * mark.time_share) / 2) for mark, (x, y) in marks]
    labels = [Label(x, y, 0.56 * 6 * len(mark.name), 6.5) for mark, (x, y) in marks[:_LABELLED]]
    window = ax.get_window_extent()
    area = Box(window.x0 * scale, window.y0 * scale, window.x1 * scale, window.y1 * scale)
    for (mark, (x, y)), label, box in zip(marks, labels, place(labels, hard, [], area), strict=False):
        if box is None:
            continue
        end = leader(label, box)
        ax.annotate(
            mark.name,
            (mark.intensity, mark.attained),
            xytext=(box.left - x, box.bottom - y + 1),
            textcoords="offset points",
            fontsize=6,
            color="#222222",
            zorder=4,
        )
        if end is not None:
            ax.annotate(
                "",
                (mark.intensity, mark.attained),
                xytext=(end[0] - x, end[1] - y),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": _GREY},
            )


def _box(x: float, y: float, radius: float) -> Box:
    return Box(x - radius, y - radius, x + radius, y + radius)
