"""A roofline plot: attained performance over arithmetic intensity of each layer, data and drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.panels import GREY, STYLE
from wnexplore.report.placement import Box, Label, leader, place, straight
from wnexplore.results.columns import COLUMNS, compact, point_title, prefixed
from wnexplore.results.network_profile import LayerProfile, LayerTable

KINDS = (
    *("convolution", "depthwise convolution", "generated convolution", "generated depthwise convolution"),
    *("context", "activation vectors", "squeeze-and-excitation", "linear", "other"),
)
"""The kinds of layers, in the order of the legend."""

_PROTOCOL = ("device_name", "threads", "dtype", "batch_size", "memory_format")
_OWN_KIND = {
    "Conv2d": "convolution",
    "ActivationVectors": "activation vectors",
    "Context": "context",
    "Linear": "linear",
    # Layers with formulations are recognised by these.
    **{
        spec.layer_class: spec.layer_kind
        for spec in METHODS.values()
        if spec.layer_kind and spec.kind != "generated"
    },
}


@dataclass(frozen=True)
class LayerMark:
    """One layer: multiply-adds per byte, multiply-adds per second, its share of a pass's time."""

    name: str
    kind: str
    """One of `KINDS`."""
    intensity: float
    attained: float
    time_share: float


@dataclass(frozen=True)
class RooflineInfo:
    """The data of a roofline plot."""

    title: str
    note: str
    """The lines below the title: protocol, and how to read the plot."""
    bytes_per_s: float
    multiply_adds_per_s: float
    layers: tuple[LayerMark, ...]
    """The layers with multiply-adds, slowest first."""

    @property
    def ridge(self) -> float:
        """Multiply-adds per byte where the two roofs meet."""
        return self.multiply_adds_per_s / self.bytes_per_s


def roofline_info(point: DesignPoint, table: LayerTable) -> RooflineInfo:
    """The plot of the layers of `point`.

    Raises `InputError` if no layer has multiply-adds.
    """
    protocol = table.protocol
    marks = [
        LayerMark(
            name=layer.name,
            kind=_kind(layer),
            intensity=layer.intensity,
            attained=protocol.batch_size * layer.flops / (layer.time_ms / 1e3),
            time_share=layer.time_share,
        )
        for layer in table.layers
        if layer.flops and layer.bytes and layer.time_ms > 0
    ]
    if not marks:
        raise InputError("nothing to draw: no layer of this network has multiply-adds")
    rest = 1 - sum(mark.time_share for mark in marks)
    settings = [COLUMNS[name].say(protocol[name]) for name in _PROTOCOL if protocol[name] is not None]
    return RooflineInfo(
        title=point_title(point.to_dict(), without=("num_classes",)),
        note=f"{' · '.join([*settings, 'eager'])}\n"
        f"area: share of the time of a pass; {rest:.0%} of it is in no layer with multiply-adds",
        bytes_per_s=table.peaks.bytes_per_s,
        multiply_adds_per_s=table.peaks.multiply_adds_per_s,
        layers=tuple(sorted(marks, key=lambda mark: -mark.time_share)),
    )


def _kind(layer: LayerProfile) -> str:
    formulated = layer.formulation is not None
    kind = "generated convolution" if formulated else _OWN_KIND.get(layer.kind, "other")
    return kind.replace("convolution", "depthwise convolution") if layer.depthwise else kind


# --- drawing -----------------------------------------------------------------------------------------

_INCHES = 5.2, 4.1
_NAMED = 6
_TEXT = 6.5
_BLACK = "#222222"
_ON_GRID = (withStroke(linewidth=2, foreground="white"),)
# Colour, marker, and whether it is filled: depthwise convolutions are hollow.
_LOOKS = {
    "convolution": ("#000000", "s", True),
    "depthwise convolution": ("#000000", "s", False),
    "generated convolution": ("#0060A8", "o", True),
    "generated depthwise convolution": ("#0060A8", "o", False),
    "activation vectors": ("#E8862E", "^", True),
    "context": ("#009E73", "v", True),
    "squeeze-and-excitation": ("#8A3B12", "P", True),
    "linear": ("#CC79A7", "D", True),
    "other": ("#9A9A9A", "X", True),
}


def render_roofline(info: RooflineInfo) -> Figure:
    """The figure that `info` describes, laid out and with its labels placed."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        _draw_axes(ax, info)
        _draw_roofs(ax, info)
        for mark in reversed(info.layers):
            ax.scatter(mark.intensity, mark.attained, s=_area(mark), zorder=3, **_look(mark.kind))
        figure.suptitle(info.note, fontsize=7, color=GREY)
        handles = [
            Line2D([], [], linestyle="none", label=kind, **_handle(kind))
            for kind in KINDS
            if any(mark.kind == kind for mark in info.layers)
        ]
        columns = len(handles) if len(handles) <= 3 else math.ceil(len(handles) / 2)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
        figure.draw_without_rendering()
        _name_layers(ax, info)
    return figure


def _draw_axes(ax: Axes, info: RooflineInfo) -> None:
    ax.set(xscale="log", yscale="log", title=info.title)
    across = [info.ridge, *(mark.intensity for mark in info.layers)]
    up = [info.multiply_adds_per_s, *(mark.attained for mark in info.layers)]
    # The ridge is always visible, with room for both roofs' labels.
    ax.set_xlim(min(across) / 2, max(across) * 3)
    ax.set_ylim(min(up) / 2, max(up) * 2.5)
    ax.set_xlabel("Arithmetic intensity (multiply-adds / byte)")
    ax.set_ylabel("Attained (multiply-adds / s)")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    ax.grid(color="#E4E4E4", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_roofs(ax: Axes, info: RooflineInfo) -> None:
    left, right = ax.get_xlim()
    roof = [left * info.bytes_per_s, info.multiply_adds_per_s, info.multiply_adds_per_s]
    ax.plot([left, info.ridge, right], roof, color=_BLACK, linewidth=1.0, zorder=2)
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": _TEXT}
    text = f"{prefixed(info.multiply_adds_per_s)} multiply-adds/s"
    ax.annotate(text, (right, info.multiply_adds_per_s), xytext=(-2, 3), color=_BLACK, **style)
    # Halfway up the visible slope.
    low = max(left, ax.get_ylim()[0] / info.bytes_per_s)
    at = math.sqrt(low * info.ridge)
    text = f"{prefixed(info.bytes_per_s)}B/s"
    ax.annotate(text, (at, at * info.bytes_per_s), xytext=(-4, 4), color=_BLACK, **style)


def _name_layers(ax: Axes, info: RooflineInfo) -> None:
    """Names in the colours of their marks, without overlap; omitted where there is no room."""
    scale = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]

    def at(x: float, y: float) -> tuple[float, float]:
        pixel = ax.transData.transform((x, y))
        return float(pixel[0]) * scale, float(pixel[1]) * scale

    places = [at(mark.intensity, mark.attained) for mark in info.layers]
    hard = [_box(*where, math.sqrt(_area(mark)) / 2) for mark, where in zip(info.layers, places, strict=True)]
    texts = [f"{mark.name} {mark.time_share:.0%}" for mark in info.layers[:_NAMED]]
    # A letter of matplotlib's font is 0.56 em wide on average.
    labels = [
        Label(x, y, 0.56 * _TEXT * len(text), _TEXT) for text, (x, y) in zip(texts, places, strict=False)
    ]
    edges = [float(edge) * scale for edge in ax.get_window_extent().extents]
    boxes = place(labels, hard, _roof_boxes(ax, info, at), Box(*edges))
    for text, mark, label, box in zip(texts, info.layers, labels, boxes, strict=False):
        if box is not None:
            _write(ax, text, mark, label, box)


def _write(ax: Axes, text: str, mark: LayerMark, label: Label, box: Box) -> None:
    point, end = (mark.intensity, mark.attained), leader(label, box)
    if end is not None:
        line = {"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 2}
        offset = end[0] - label.x, end[1] - label.y
        ax.annotate("", point, xytext=offset, textcoords="offset points", arrowprops=line, zorder=4)
    ax.annotate(
        text,
        point,
        xytext=(box.left - label.x, box.bottom - label.y + 1),
        textcoords="offset points",
        fontsize=_TEXT,
        color=_LOOKS[mark.kind][0],
        path_effects=_ON_GRID,
        zorder=5,
    )


def _roof_boxes(ax: Axes, info: RooflineInfo, at: Any) -> list[Box]:
    """Small boxes along both roofs, which labels avoid."""
    (left, right), steps = ax.get_xlim(), 40
    found = []
    for step in range(steps):
        x = left * (right / left) ** (step / steps)
        start = at(x, min(x * info.bytes_per_s, info.multiply_adds_per_s))
        found.append(straight(start, (start[0] + 4, start[1])))
    return found


def _area(mark: LayerMark) -> float:
    """In square points; a mark without time is still visible."""
    return 8 + 900 * mark.time_share


def _look(kind: str) -> dict[str, Any]:
    colour, marker, filled = _LOOKS[kind]
    # A white rim separates overlapping marks.
    face, edge = (colour, "white") if filled else ("white", colour)
    return {
        "marker": marker,
        "facecolor": face,
        "edgecolor": edge,
        "linewidth": 0.5 if filled else 0.9,
        "alpha": 0.85,
    }


def _handle(kind: str) -> dict[str, Any]:
    colour, marker, filled = _LOOKS[kind]
    return {
        "marker": marker,
        "markersize": 5.5,
        "markeredgecolor": colour,
        "markerfacecolor": colour if filled else "white",
    }


def _box(x: float, y: float, radius: float) -> Box:
    return Box(x - radius, y - radius, x + radius, y + radius)
