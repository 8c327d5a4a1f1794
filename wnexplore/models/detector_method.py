"""A method in the pyramid and in the head of a detector.

Each convolution takes its context from its own input, as `wnexplore.convert` does it. Those of the head's
towers run once a level with one generator: each level of each image has its own kernels.
"""

from __future__ import annotations

from torch import nn

from wnexplore.design.part_stages import PART_STAGES
from wnexplore.design.point import DesignPoint
from wnexplore.design.stages import has_method
from wnexplore.models.convert import replacement
from wnexplore.models.detector_parts import method_convs
from wnexplore.models.method_layers import MethodByStage


def put_method(detector: nn.Module, point: DesignPoint) -> None:
    """Replace the convolutions of the pyramid and the head of `detector`, in place, where `point` says so.

    Weights are kept where that is exact (see `wnexplore.convert`). Raises `IllegalPointError` naming the
    layer.
    """
    for part, stage in PART_STAGES.items():
        if not has_method(point.stages, stage):
            continue
        method = MethodByStage(point).at(stage)
        for name, conv in method_convs(detector, part):
            new = replacement(name, conv, method)
            if new is not None:
                parent, _, leaf = name.rpartition(".")
                setattr(detector.get_submodule(parent), leaf, new[0])
