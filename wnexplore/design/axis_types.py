"""The axes as typed fields, for whatever has them: design points, stages, protocols, arguments of functions.

Their values, defaults and texts are in `wnexplore.design.axes`, to which a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from wnexplore.design.stages import Stages


@dataclass(frozen=True, kw_only=True)
class NetworkAxes:
    """The axes of a plain network."""

    backbone: str
    stem: str
    resolution: int
    num_classes: int
    task: str = "classification"
    pyramid_channels: int | None = None
    """None for other tasks than detection."""


@dataclass(frozen=True, kw_only=True)
class LayerAxes:
    """The axes of methods' layers other than M and G; None where a method doesn't read one."""

    experts: int | None = None
    temperature: int | None = None
    reduction: int | None = None
    activation: str | None = None
    depthwise: str | None = None
    """The setting of depthwise convolutions, one of `wnexplore.design.axes.DEPTHWISE`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimingAxes:
    """The crossed settings of a latency's protocol."""

    dtype: str
    batch_size: int
    runtime: str = "eager"
    memory_format: str = "contiguous"
    threads: int | None = None
    """None on a GPU."""
    cache: str = "warm"
    mode: str = "inference"
    baseline: str = "deployed"
    allocator: str | None = None
    """None on a GPU."""


class GivenAxes(TypedDict, total=False):
    """The axes of a point other than backbone, method, M and G, as users write them; None: the default."""

    stages: Stages | None
    experts: int | None
    temperature: int | None
    stem: str
    resolution: int | None
    num_classes: int | None
    reduction: int | None
    activation: str | None
    depthwise: str | None
    task: str
    pyramid_channels: int | None
