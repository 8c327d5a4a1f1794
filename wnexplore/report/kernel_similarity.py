"""The similarity of different images' kernels: a histogram per group of layers, data and drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from wnexplore.errors import RunError
from wnexplore.report.column_figure import BLACK, BLUE, ORANGE, column_figure, legend_below
from wnexplore.report.depth import by_depth
from wnexplore.report.panels import STYLE
from wnexplore.results.columns import decimals
from wnexplore.results.layer_kernels import Floats, KernelAnalysis, LayerKernels, mean

ROWS = 20
"""Most histograms in one figure; of more layers, consecutive ones share one."""

_BINS = 90
_MIN_SPAN = 1e-6
_OUTSIDE = 0.005
"""Share of a row's pairs, the lowest ones, that the axis may leave out."""


@dataclass(frozen=True)
class Ridge:
    """The cosines of one group of layers: a histogram, its largest bin 1, and means."""

    name: str
    heights: tuple[float, ...]
    mean: float
    within: float | None
    """The mean of the pairs within a class."""


@dataclass(frozen=True)
class SimilarityInfo:
    """The similarity of different images' kernels, by group in order of depth."""

    title: str
    note: str
    edges: tuple[float, ...]
    """Edges of the bins, up to 1."""
    ridges: tuple[Ridge, ...]


def similarity_info(analysis: KernelAnalysis) -> SimilarityInfo:
    """Histograms of the cosine similarities between the kernels of different images.

    Layers with zero kernels are omitted. Raises `RunError` if there is no other.
    """
    layers = [layer for layer in analysis.layers if layer.cosines.size]
    if not layers:
        raise RunError("every kernel is zero: nothing to compare")
    groups = [
        (name, [layers[number] for number in numbers])
        for name, numbers in by_depth([layer.name for layer in layers], ROWS)
    ]
    # Otherwise a few outliers would compress the rest.
    low = min(float(np.quantile(_cosines(group), _OUTSIDE)) for _, group in groups)
    edges = np.linspace(min(low, 1 - _MIN_SPAN), 1, _BINS + 1)
    lowest = min(float(layer.cosines.min()) for layer in layers)
    said = f"{analysis.data} · {analysis.samples} images · {layers[0].cosines.size:,} pairs per layer"
    if lowest < edges[0]:
        text = f"{lowest:.{max(3, decimals(1 - lowest, 2))}f}"
        said += f"\noutside: up to {_OUTSIDE:.1%} of a row; the lowest is {text}"
    ridges = tuple(_ridge(name, group, edges) for name, group in groups)
    return SimilarityInfo(analysis.network, said, tuple(edges.tolist()), ridges)


def _ridge(name: str, layers: Sequence[LayerKernels], edges: Floats) -> Ridge:
    cosines = _cosines(layers)
    counts, _ = np.histogram(cosines, bins=edges)
    within = mean(np.concatenate([layer.within for layer in layers]))
    return Ridge(name, tuple((counts / counts.max()).tolist()), float(cosines.mean()), within)


def _cosines(layers: Sequence[LayerKernels]) -> Floats:
    return np.concatenate([layer.cosines for layer in layers])


# --- drawing -----------------------------------------------------------------------------------------

_TALLEST = 0.88
"""Height of a ridge, in rows: none covers the marks of the row above it."""
_MEAN: Any = {"color": BLACK, "linewidth": 1.1, "zorder": 4}
_WITHIN: Any = {
    "linestyle": "none",
    "marker": "^",
    "markersize": 4,
    "clip_on": False,
    "zorder": 5,
    "markerfacecolor": ORANGE,
    "markeredgecolor": BLACK,
    "markeredgewidth": 0.4,
}


def render_similarity(info: SimilarityInfo) -> Figure:
    """One ridge per group of layers, the deepest at the bottom."""
    rows = len(info.ridges)
    with matplotlib.rc_context(STYLE):
        figure = column_figure(1.35 + 0.2 * rows, info.title, info.note)
        ax = figure.subplots()
        edges = np.repeat(info.edges, 2)[1:-1]
        for row, ridge in enumerate(info.ridges):
            ground = rows - 1 - row
            top = ground + _TALLEST * np.repeat(ridge.heights, 2)
            ax.fill_between(edges, ground, top, color="#B5D3EA", linewidth=0)
            ax.plot(edges, top, color=BLUE, linewidth=0.6)
            ax.plot([ridge.mean] * 2, [ground, ground + _TALLEST], **_MEAN)
            if ridge.within is not None:
                ax.plot(ridge.within, ground + 0.18, **_WITHIN)
        ax.set_xlim(info.edges[0], 1 + 0.01 * (1 - info.edges[0]))
        ax.set_ylim(-0.15, rows - 0.02)
        ax.set_yticks(range(rows), [ridge.name for ridge in reversed(info.ridges)])
        ax.tick_params(axis="y", length=0, labelsize=6.5)
        # A narrow axis has ticks with many digits.
        ticks = 5 if info.edges[0] < 0.99 else 3
        ax.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
        ax.ticklabel_format(axis="x", style="plain", useOffset=False)
        ax.set_xlabel("Cosine similarity of two images' kernels")
        ax.grid(color="#E4E4E4", linewidth=0.5)
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        handles: list[Line2D | Patch] = [
            Patch(facecolor="#B5D3EA", edgecolor=BLUE, linewidth=0.6, label="all pairs"),
            Line2D([], [], label="their mean", **_MEAN),
        ]
        if any(ridge.within is not None for ridge in info.ridges):
            handles.append(Line2D([], [], label="mean within a class", **_WITHIN))
        legend_below(figure, handles, len(handles))
    return figure
