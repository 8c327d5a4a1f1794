"""The spread of each layer's activation vectors alpha over the images: data and drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from wnexplore.report.column_figure import BLACK, BLUE, ORANGE, column_figure, legend_below
from wnexplore.report.depth import Group, by_depth
from wnexplore.report.panels import STYLE
from wnexplore.results.layer_kernels import KernelAnalysis, LayerKernels

_TICKS = 6


@dataclass(frozen=True)
class Spread:
    """One layer's activation vectors."""

    quantiles: tuple[float, float, float, float, float]
    """Quantiles of its entries' standard deviations over the images: 5, 25, 50, 75 and 95 %."""
    dead: float
    """In percent of the entries, like `saturated`."""
    saturated: float | None


@dataclass(frozen=True)
class AlphaInfo:
    """The spread of each layer's activation vectors over the images, in order of depth."""

    title: str
    note: str
    layers: tuple[Spread, ...]
    groups: tuple[Group, ...]
    """The groups of layers named on the axis."""


def alpha_info(analysis: KernelAnalysis) -> AlphaInfo:
    """The spread of the activation vectors and their shares of dead and saturated entries, by layer."""
    layers = analysis.layers
    entries = sum(layer.inputs for layer in layers)
    return AlphaInfo(
        analysis.network,
        f"{analysis.data} · {analysis.samples} images · {entries:,} entries in {len(layers)} layers",
        tuple(_spread(layer) for layer in layers),
        tuple(by_depth([layer.name for layer in layers], _TICKS)),
    )


def _spread(layer: LayerKernels) -> Spread:
    low, lower, middle, upper, high = np.quantile(layer.alpha_stds, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()
    saturated = None if layer.alpha_saturated is None else 100 * layer.alpha_saturated
    return Spread((low, lower, middle, upper, high), 100 * layer.alpha_dead, saturated)


# --- drawing -----------------------------------------------------------------------------------------

_MIDDLE: Any = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3,
    "markerfacecolor": "white",
    "markeredgecolor": BLACK,
    "markeredgewidth": 0.6,
}
_DEAD: Any = {"color": BLUE, "linewidth": 0.8, "marker": "o", "markersize": 2.6}
_SATURATED: Any = {
    "color": ORANGE,
    "linewidth": 0.8,
    "marker": "^",
    "markersize": 3,
    "linestyle": (0, (3, 1.5)),
}


def render_alpha(info: AlphaInfo) -> Figure:
    """Above, the spread of each layer's entries; below, the shares of dead and saturated ones."""
    places = range(len(info.layers))
    with matplotlib.rc_context(STYLE):
        figure = column_figure(3.4, info.title, info.note)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        lows, lowers, middles, uppers, highs = zip(*(layer.quantiles for layer in info.layers), strict=True)
        above.vlines(places, lows, highs, color="#8CC9F0", linewidth=_bar(info, 2.2))
        above.vlines(places, lowers, uppers, color=BLUE, linewidth=_bar(info, 2.2))
        above.plot(places, middles, zorder=3, **_MIDDLE)
        above.set_ylim(0, max(1.06 * max(highs), 1e-3))
        above.set_ylabel("Std of alpha's entries\nover images")
        dead = [layer.dead for layer in info.layers]
        below.plot(places, dead, **_DEAD)
        known = [(place, layer.saturated) for place, layer in zip(places, info.layers, strict=True)]
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
            Line2D([], [], color=BLUE, linewidth=2.2, label="middle 50 %"),
            Line2D([], [], color="#8CC9F0", linewidth=2.2, label="middle 90 %"),
            Line2D([], [], label="dead", **_DEAD),
        ]
        if any(value is not None for _, value in known):
            handles.append(Line2D([], [], label="saturated", **_SATURATED))
        legend_below(figure, handles, 3)
    return figure


def _bar(info: AlphaInfo, largest: float) -> float:
    """Width of a bar in points, with a gap to the next one."""
    return min(largest, 130 / len(info.layers))


def _name_depth(ax: Axes, info: AlphaInfo) -> None:
    """The names of the groups, centred below their layers."""
    middles = [(numbers[0] + numbers[-1]) / 2 for _, numbers in info.groups]
    ax.set_xticks(middles, [name for name, _ in info.groups])
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlim(-0.7, len(info.layers) - 0.3)
    ax.set_xlabel("Layers in the order in which they run")


def _separate(ax: Axes, info: AlphaInfo) -> None:
    for _, numbers in info.groups[1:]:
        ax.axvline(numbers[0] - 0.5, color="#BBBBBB", linewidth=0.5, linestyle=(0, (1, 2)), zorder=0)
