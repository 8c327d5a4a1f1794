"""The eight networks that the latency benchmarks time: ShuffleNetV2 0.5x, plain and with other kernels."""

from collections.abc import Callable, Iterable

from torch import nn

from wnexplore.design.point import DesignPoint
from wnexplore.models import build

BASELINE = "plain"
RESOLUTION = 224

POINTS = {
    BASELINE: DesignPoint.of("shufflenet_v2_x0_5"),
    "se": DesignPoint.of("shufflenet_v2_x0_5", "se"),
    **{
        f"weightnet {M},{G}": DesignPoint.of("shufflenet_v2_x0_5", "weightnet", M, G)
        for M, G in ((1, 1), (2, 1), (2, 2), (4, 2), (8, 1), (8, 2))
    },
}


def builders(names: Iterable[str] = tuple(POINTS)) -> dict[str, Callable[[], nn.Module]]:
    """Name -> a function that builds the network."""
    chosen = [(name, POINTS[name]) for name in names]
    return {name: (lambda point=point: build(point)) for name, point in chosen}  # type: ignore[misc]
