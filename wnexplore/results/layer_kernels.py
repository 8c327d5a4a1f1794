"""Statistics of the kernels that a network generates for different images, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerKernels:
    """One layer with generated kernels, over many images."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    """g, of the convolution."""
    inputs: int
    """Entries of an activation vector, M·C_out."""
    inputs_per_group: int
    """lambda."""
    samples: int
    """Number of images whose activation vectors were analysed."""
    cosines: Floats
    """Similarity of the kernels of each pair of images, -1 to 1; pairs with a kernel of zeros left out."""
    same_class: NDArray[np.bool_]
    """For each of these pairs whether its images have the same class."""
    alpha_mean: float
    """Mean over entries and images."""
    alpha_stds: Floats
    """Each entry's standard deviation over the images."""
    alpha_dead: float
    """Share of the entries that are constant over the images."""
    alpha_saturated: float | None
    """Share of the entries whose mean is at an end of the activation's range; None if it is unbounded."""

    @property
    def within(self) -> Floats:
        """The cosines of the pairs within a class."""
        return self.cosines[self.same_class]

    @property
    def between(self) -> Floats:
        """The cosines of the pairs of two classes."""
        return self.cosines[~self.same_class]

    def to_dict(self) -> dict[str, Any]:
        """The row of a table: None where there is no pair."""
        return {
            "layer": self.name,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": _by(self.kernel_size),
            "stride": _by(self.stride),
            "groups": self.groups,
            "inputs": self.inputs,
            "lambda": self.inputs_per_group,
            "samples": self.samples,
            "cosine_mean": mean(self.cosines),
            "cosine_std": float(self.cosines.std()) if self.cosines.size else None,
            "cosine_min": float(self.cosines.min()) if self.cosines.size else None,
            "cosine_within_class": mean(self.within),
            "cosine_between_classes": mean(self.between),
            "alpha_mean": self.alpha_mean,
            "alpha_std": float(self.alpha_stds.mean()),
            "alpha_dead": self.alpha_dead,
            "alpha_saturated": self.alpha_saturated,
        }


@dataclass(frozen=True, eq=False)
class KernelMap:
    """A two-dimensional map of a layer's kernels, in which similar kernels are near each other."""

    layer: str
    points: Floats
    """(N, 2), without a unit."""
    labels: NDArray[np.int64]
    """(N,), the classes."""


@dataclass(frozen=True, eq=False)
class KernelAnalysis:
    """The result of `wnexplore analyze`."""

    network: str
    """The design point, as text."""
    data: str
    """The data set whose test images were used."""
    classes: tuple[str, ...]
    layers: tuple[LayerKernels, ...]
    """In the order in which they run."""
    map: KernelMap | None
    """None if there is no map: see `wnexplore.training.kernel_statistics.kernel_map`."""
    device: str = "cpu"
    precision: str = "float32"
    """The precision of activation vectors and kernels."""

    @property
    def samples(self) -> int:
        """Images seen."""
        return self.layers[0].samples


def mean(values: Floats) -> float | None:
    """The mean; None of no values."""
    return float(values.mean()) if values.size else None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
