"""What the figures of generated kernels show, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wnexplore.errors import RunError
from wnexplore.report.depth import Group, by_depth
from wnexplore.results.columns import decimals
from wnexplore.results.layer_kernels import Floats, KernelAnalysis, LayerKernels, mean

ROWS = 20
"""Histograms in one figure at most; of more layers, neighbours share one."""

COLOURED = 10
"""Classes that have a colour of their own; of more, those with the most images."""

_BINS = 90
_TICKS = 6
_LEAST_SPAN = 1e-6
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
    """How alike the kernels of different images are, group by group in the order of depth."""

    title: str
    note: str
    edges: tuple[float, ...]
    """Of the bins, up to 1."""
    ridges: tuple[Ridge, ...]


@dataclass(frozen=True)
class Spread:
    """One layer's activation vectors."""

    quantiles: tuple[float, float, float, float, float]
    """Of its entries' standard deviations over the images: 5, 25, 50, 75 and 95 %."""
    dead: float
    """In percent of the entries, as is `saturated`."""
    saturated: float | None


@dataclass(frozen=True)
class AlphaInfo:
    """How the activation vectors of each layer spread over the images, in the order of depth."""

    title: str
    note: str
    layers: tuple[Spread, ...]
    groups: tuple[Group, ...]
    """Those that the axis names."""


@dataclass(frozen=True)
class Cluster:
    """The kernels of the images of one class; `look` is None of those that share one."""

    name: str
    look: int | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MapInfo:
    """The kernels of a layer in a plane, those of other classes below the others."""

    title: str
    note: str
    clusters: tuple[Cluster, ...]


def similarity_info(analysis: KernelAnalysis) -> SimilarityInfo:
    """Histograms of the cosine similarities between the kernels of different images.

    Of layers whose kernels are zeros there is none. Raises `RunError` if that is so of every layer.
    """
    layers = [layer for layer in analysis.layers if layer.cosines.size]
    if not layers:
        raise RunError("every kernel is zeros: nothing to compare")
    groups = [
        (name, [layers[number] for number in numbers])
        for name, numbers in by_depth([layer.name for layer in layers], ROWS)
    ]
    # A few pairs far from all others would leave no room for these.
    low = min(float(np.quantile(_cosines(own), _OUTSIDE)) for _, own in groups)
    edges = np.linspace(min(low, 1 - _LEAST_SPAN), 1, _BINS + 1)
    lowest = min(float(layer.cosines.min()) for layer in layers)
    said = f"{analysis.data} · {analysis.samples} images · {layers[0].cosines.size:,} pairs a layer"
    if lowest < edges[0]:
        told = f"{lowest:.{max(3, decimals(1 - lowest, 2))}f}"
        said += f"\noutside: up to {_OUTSIDE:.1%} of a row; the lowest is {told}"
    ridges = tuple(_ridge(name, own, edges) for name, own in groups)
    return SimilarityInfo(analysis.network, said, tuple(edges.tolist()), ridges)


def alpha_info(analysis: KernelAnalysis) -> AlphaInfo:
    """The spread of the activation vectors, and which of their entries don't move, layer by layer."""
    layers = analysis.layers
    entries = sum(layer.inputs for layer in layers)
    return AlphaInfo(
        analysis.network,
        f"{analysis.data} · {analysis.samples} images · {entries:,} entries in {len(layers)} layers",
        tuple(_spread(layer) for layer in layers),
        tuple(by_depth([layer.name for layer in layers], _TICKS)),
    )


def map_info(analysis: KernelAnalysis) -> MapInfo | None:
    """The kernels of one layer in a plane, coloured by class; None where the analysis has no such map."""
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


def _ridge(name: str, layers: Sequence[LayerKernels], edges: Floats) -> Ridge:
    cosines = _cosines(layers)
    counts, _ = np.histogram(cosines, bins=edges)
    within = mean(np.concatenate([layer.within for layer in layers]))
    return Ridge(name, tuple((counts / counts.max()).tolist()), float(cosines.mean()), within)


def _cosines(layers: Sequence[LayerKernels]) -> Floats:
    return np.concatenate([layer.cosines for layer in layers])


def _spread(layer: LayerKernels) -> Spread:
    low, lower, middle, upper, high = np.quantile(layer.alpha_stds, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()
    saturated = None if layer.alpha_saturated is None else 100 * layer.alpha_saturated
    return Spread((low, lower, middle, upper, high), 100 * layer.alpha_dead, saturated)


def _points(points: Floats) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in points.tolist())
