"""Draw the figures of generated kernels with matplotlib, as wide as a column of a paper."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from wnexplore.report.kernel_info import (
    AlphaInfo,
    MapInfo,
    SimilarityInfo,
    alpha_info,
    map_info,
    similarity_info,
)
from wnexplore.report.render import STYLE
from wnexplore.results.layer_kernels import KernelAnalysis

_WIDTH = 3.5
"""Inches: a column of a two-column page."""
_GREY, _BLACK, _BLUE, _ORANGE = "#595959", "#222222", "#0060A8", "#E8862E"
_OTHERS = "#C8C8C8"
_TALLEST = 0.88
"""Height of a ridge, in rows: none covers the marks of the row above it."""
# In greyscale they still differ, and so do the markers.
_LOOKS = (
    *(("#0060A8", "o"), ("#E8862E", "^"), ("#000000", "s"), ("#F2D74E", "D"), ("#009E73", "v")),
    *(("#8CC9F0", "P"), ("#CC79A7", "X"), ("#8A3B12", "<"), ("#9A9A9A", ">"), ("#C9E4A0", "p")),
)


def kernel_figures(analysis: KernelAnalysis) -> dict[str, Figure]:
    """The figures by file name without suffix: similarity, alpha, and tsne where there is a map."""
    figures = {
        "similarity": render_similarity(similarity_info(analysis)),
        "alpha": render_alpha(alpha_info(analysis)),
    }
    shown = map_info(analysis)
    return figures if shown is None else figures | {"tsne": render_map(shown)}


def render_similarity(info: SimilarityInfo) -> Figure:
    """A ridge for each group of layers, the deepest at the bottom."""
    rows = len(info.ridges)
    with matplotlib.rc_context(STYLE):
        figure = _figure(1.35 + 0.2 * rows, info.title, info.note)
        ax = figure.subplots()
        edges = np.repeat(info.edges, 2)[1:-1]
        for row, ridge in enumerate(info.ridges):
            ground = rows - 1 - row
            top = ground + _TALLEST * np.repeat(ridge.heights, 2)
            ax.fill_between(edges, ground, top, color="#B5D3EA", linewidth=0)
            ax.plot(edges, top, color=_BLUE, linewidth=0.6)
            ax.plot([ridge.mean] * 2, [ground, ground + _TALLEST], **_MEAN)
            if ridge.within is not None:
                ax.plot(ridge.within, ground + 0.18, **_WITHIN)
        ax.set_xlim(info.edges[0], 1 + 0.01 * (1 - info.edges[0]))
        ax.set_ylim(-0.15, rows - 0.02)
        ax.set_yticks(range(rows), [ridge.name for ridge in reversed(info.ridges)])
        ax.tick_params(axis="y", length=0, labelsize=6.5)
        # Of a narrow axis, ticks have many digits.
        ticks = 5 if info.edges[0] < 0.99 else 3
        ax.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
        ax.ticklabel_format(axis="x", style="plain", useOffset=False)
        ax.set_xlabel("Cosine similarity of two images' kernels")
        ax.grid(color="#E4E4E4", linewidth=0.5)
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        handles: list[Line2D | Patch] = [
            Patch(facecolor="#B5D3EA", edgecolor=_BLUE, linewidth=0.6, label="all pairs"),
            Line2D([], [], label="their mean", **_MEAN),
        ]
        if any(ridge.within is not None for ridge in info.ridges):
            handles.append(Line2D([], [], label="mean within a class", **_WITHIN))
        _legend(figure, handles, len(handles))
    return figure


def render_alpha(info: AlphaInfo) -> Figure:
    """Above, how far each layer's entries move; below, how many don't."""
    places = range(len(info.layers))
    with matplotlib.rc_context(STYLE):
        figure = _figure(3.4, info.title, info.note)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        lows, lowers, middles, uppers, highs = zip(*(own.quantiles for own in info.layers), strict=True)
        above.vlines(places, lows, highs, color="#8CC9F0", linewidth=_bar(info, 2.2))
        above.vlines(places, lowers, uppers, color=_BLUE, linewidth=_bar(info, 2.2))
        above.plot(places, middles, zorder=3, **_MIDDLE)
        above.set_ylim(0, max(1.06 * max(highs), 1e-3))
        above.set_ylabel("Std of alpha's entries\nover images")
        dead = [own.dead for own in info.layers]
        below.plot(places, dead, **_DEAD)
        known = [(place, own.saturated) for place, own in zip(places, info.layers, strict=True)]
        if any(value is not None for _, value in known):
            below.plot(places, [math.nan if value is None else value for _, value in known], **_SATURATED)
        below.set_ylim(-4, 104)
        below.set_yticks((0, 50, 100))
        below.set_ylabel("Share of\nentries (%)")
        _name_depth(below, info)
        for ax in (above, below):
            _separate(ax, info)
            ax.grid(axis="y", color="#E4E4E4", linewidth=0.5)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(axis="x", length=0)
        handles: list[Line2D | Patch] = [
            Line2D([], [], label="median", **_MIDDLE),
            Line2D([], [], color=_BLUE, linewidth=2.2, label="middle 50 %"),
            Line2D([], [], color="#8CC9F0", linewidth=2.2, label="middle 90 %"),
            Line2D([], [], label="dead", **_DEAD),
        ]
        if any(value is not None for _, value in known):
            handles.append(Line2D([], [], label="saturated", **_SATURATED))
        _legend(figure, handles, 3)
    return figure


def render_map(info: MapInfo) -> Figure:
    """A point for each image's kernel; axes without a scale, which they don't have."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(3.9, info.title, info.note)
        ax = figure.subplots()
        for cluster in info.clusters:
            xs, ys = zip(*cluster.points, strict=True)
            ax.plot(xs, ys, linestyle="none", zorder=2 if cluster.look is None else 3, **_look(cluster.look))
        ax.set(xticks=(), yticks=())
        ax.margins(0.04)
        for spine in ax.spines.values():
            spine.set_color("#BBBBBB")
        handles = [
            Line2D([], [], linestyle="none", label=cluster.name, **_look(cluster.look))
            for cluster in sorted(info.clusters, key=lambda own: own.look is None)
        ]
        longest = max(len(cluster.name) for cluster in info.clusters)
        # A letter of the legend is 0.055 inches wide on average, a marker and its gaps 0.35.
        _legend(figure, handles, max(1, min(5, int(_WIDTH / (0.055 * longest + 0.35)))))
    return figure


_MEAN: Any = {"color": _BLACK, "linewidth": 1.1, "zorder": 4}
_WITHIN: Any = {
    "linestyle": "none",
    "marker": "^",
    "markersize": 4,
    "clip_on": False,
    "zorder": 5,
    "markerfacecolor": _ORANGE,
    "markeredgecolor": _BLACK,
    "markeredgewidth": 0.4,
}
_MIDDLE: Any = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3,
    "markerfacecolor": "white",
    "markeredgecolor": _BLACK,
    "markeredgewidth": 0.6,
}
_DEAD: Any = {"color": _BLUE, "linewidth": 0.8, "marker": "o", "markersize": 2.6}
_SATURATED: Any = {
    "color": _ORANGE,
    "linewidth": 0.8,
    "marker": "^",
    "markersize": 3,
    "linestyle": (0, (3, 1.5)),
}


def _figure(height: float, title: str, note: str) -> Figure:
    """An empty figure of one column; `title` and `note` stand above all, each folded to its width."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [line for part in (title, *note.splitlines()) for line in textwrap.wrap(part, 62)]
    figure.suptitle("\n".join(lines), fontsize=7, color=_GREY)
    return figure


def _legend(figure: Figure, handles: list[Any], columns: int) -> None:
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=7,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def _bar(info: AlphaInfo, most: float) -> float:
    """Width of a bar in points that leaves a gap to the next one."""
    return min(most, 130 / len(info.layers))


def _name_depth(ax: Axes, info: AlphaInfo) -> None:
    """The names of the groups, each below the middle of its layers."""
    middles = [(numbers[0] + numbers[-1]) / 2 for _, numbers in info.groups]
    ax.set_xticks(middles, [name for name, _ in info.groups])
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlim(-0.7, len(info.layers) - 0.3)
    ax.set_xlabel("Layers in the order in which they run")


def _separate(ax: Axes, info: AlphaInfo) -> None:
    for _, numbers in info.groups[1:]:
        ax.axvline(numbers[0] - 0.5, color="#BBBBBB", linewidth=0.5, linestyle=(0, (1, 2)), zorder=0)


def _look(look: int | None) -> dict[str, Any]:
    colour, marker = (_OTHERS, ".") if look is None else _LOOKS[look]
    return {
        "marker": marker,
        "markersize": 3.6,
        "markerfacecolor": colour,
        "markeredgecolor": _OTHERS if look is None else _BLACK,
        "markeredgewidth": 0.3,
    }
