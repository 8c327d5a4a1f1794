"""Explore the design space of WeightNet: networks whose kernels are generated for each image.

Public names are loaded on first use, so that `import wnexplore` (and `wnexplore --help`) don't import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wnexplore.design.point import DesignPoint
    from wnexplore.errors import InputError, RunError, WnexploreError
    from wnexplore.models import build, convert, load_published_state_dict
    from wnexplore.models.detector import build_detector
    from wnexplore.nn import CondConv2d, SqueezeExcite, WeightNetConv2d

__version__ = "0.1.0"

_HOMES = {
    "CondConv2d": "wnexplore.nn",
    "DesignPoint": "wnexplore.design.point",
    "InputError": "wnexplore.errors",
    "RunError": "wnexplore.errors",
    "SqueezeExcite": "wnexplore.nn",
    "WeightNetConv2d": "wnexplore.nn",
    "WnexploreError": "wnexplore.errors",
    "build": "wnexplore.models",
    "build_detector": "wnexplore.models.detector",
    "convert": "wnexplore.models",
    "load_published_state_dict": "wnexplore.models",
}

__all__ = [
    "CondConv2d",
    "DesignPoint",
    "InputError",
    "RunError",
    "SqueezeExcite",
    "WeightNetConv2d",
    "WnexploreError",
    "build",
    "build_detector",
    "convert",
    "load_published_state_dict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wnexplore' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
