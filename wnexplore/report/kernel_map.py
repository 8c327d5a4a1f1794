"""The t-SNE map of one layer's kernels, one point per image: data and drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wnexplore.report.column_figure import BLACK, WIDTH, column_figure, legend_below
from wnexplore.report.panels import STYLE
from wnexplore.results.layer_kernels import Floats, KernelAnalysis

COLOURED = 10
"""Most classes with their own colour; of more, those with the most images."""


@dataclass(frozen=True)
class Cluster:
    """The kernels of the images of one class; `look` is None for classes without their own."""

    name: str
    look: int | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MapInfo:
    """The map of a layer's kernels, classes without their own colour first."""

    title: str
    note: str
    clusters: tuple[Cluster, ...]


def map_info(analysis: KernelAnalysis) -> MapInfo | None:
    """The map of one layer's kernels, coloured by class; None where the analysis has no map."""
    if analysis.map is None:
        return None
    labels, points = analysis.map.labels, analysis.map.points
    present, counts = np.unique(labels, return_counts=True)
    largest = present[np.argsort(-counts, kind="stable")][:COLOURED]
    coloured = [
        Cluster(analysis.classes[label], look, _points(points[labels == label]))
        for look, label in enumerate(sorted(largest.tolist()))
    ]
    rest = ~np.isin(labels, largest)
    others = [Cluster(f"{len(present) - len(largest)} other classes", None, _points(points[rest]))]
    return MapInfo(
        analysis.map.layer,
        f"{analysis.network}\n{analysis.data} · {len(labels)} images · t-SNE of their kernels",
        (*(others if rest.any() else ()), *coloured),
    )


def _points(points: Floats) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in points.tolist())


# --- drawing -----------------------------------------------------------------------------------------

_OTHERS = "#C8C8C8"
# They differ in greyscale too, and by marker.
_LOOKS = (
    *(("#0060A8", "o"), ("#E8862E", "^"), ("#000000", "s"), ("#F2D74E", "D"), ("#009E73", "v")),
    *(("#8CC9F0", "P"), ("#CC79A7", "X"), ("#8A3B12", "<"), ("#9A9A9A", ">"), ("#C9E4A0", "p")),
)


def render_map(info: MapInfo) -> Figure:
    """One point per image's kernel; the axes have no scale."""
    with matplotlib.rc_context(STYLE):
        figure = column_figure(3.9, info.title, info.note)
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
            for cluster in sorted(info.clusters, key=lambda series: series.look is None)
        ]
        longest = max(len(cluster.name) for cluster in info.clusters)
        # A letter of the legend is 0.055 inches wide on average, a marker and its gaps 0.35.
        legend_below(figure, handles, max(1, min(5, int(WIDTH / (0.055 * longest + 0.35)))))
    return figure


def _look(look: int | None) -> dict[str, Any]:
    colour, marker = (_OTHERS, ".") if look is None else _LOOKS[look]
    return {
        "marker": marker,
        "markersize": 3.6,
        "markerfacecolor": colour,
        "markeredgecolor": _OTHERS if look is None else BLACK,
        "markeredgewidth": 0.3,
    }
