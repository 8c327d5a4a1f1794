"""How large a network is at least, known before anything is built."""

from __future__ import annotations

from pathlib import Path

import psutil

from wnexplore.design.axes import DESIGN_AXES
from wnexplore.design.backbones import backbone_spec
from wnexplore.design.conv_sites import generated_layers
from wnexplore.design.external_names import is_external
from wnexplore.design.generator import layer_generator
from wnexplore.design.point import DesignPoint
from wnexplore.design.stage_design import stage_design
from wnexplore.errors import InputError

_BYTES = 4
"""Of a float32 weight."""


def check_fits(point: DesignPoint) -> None:
    """Raise `InputError` if the weights of `point` alone are more than this machine's memory.

    Of a network that was brought only what its classes take is known. Asked before anything is allocated:
    an operating system may promise more than it has, and end the process that takes it at its word.
    """
    memory = machine_memory()
    needed = _BYTES * _least_params(point)
    if needed > memory:
        raise InputError(
            f"{point} with {point.num_classes:,} classes has weights of {needed / 1e9:,.0f} GB at least:"
            f" more than the {memory / 1e9:,.0f} GB of memory here"
        )


def check_images_fit(resolution: int) -> None:
    """Raise `InputError` if one image of `resolution` pixels, and what a network first makes of it, is more
    than this machine's memory, or than any network takes.
    """
    DESIGN_AXES["resolution"].check(resolution)
    # The image as it is resized and as it is normalised, and 8 channels of half its size.
    needed, memory = (2 * 3 + 8 / 4) * _BYTES * resolution**2, machine_memory()
    if needed > memory:
        raise InputError(
            f"one image of {resolution:,} pixels takes {needed / 1e9:,.1f} GB at least: more than the"
            f" {memory / 1e9:,.1f} GB of memory here"
        )


def batch_misfit(
    batch: int,
    resolution: int,
    *,
    point: DesignPoint | None = None,
    copies: int = 1,
    bytes_each: int = _BYTES,
    there: int | None = None,
) -> str | None:
    """Why `batch` images of `resolution` pixels can't be had at once; None if they may fit.

    Counted are `copies` of the images and what the first layer of the network of `point` makes of them, each
    number in `bytes_each`. `there` is the memory in bytes that the device has: that of this machine if left
    out. Known before anything is allocated, as `check_fits`.
    """
    numbers = 3.0 * copies
    if point is not None and not is_external(point.backbone):
        numbers += backbone_spec(point.backbone).stem_width / (1 if point.stem == "small" else 4)
    needed = numbers * bytes_each * batch * resolution**2
    memory = machine_memory() if there is None else there
    if needed <= memory:
        return None
    return (
        f"a batch of {batch:,} images of {resolution:,} pixels takes {needed / 1e9:,.1f} GB at least: more"
        f" than the {memory / 1e9:,.1f} GB of memory here"
    )


def machine_memory() -> int:
    """Bytes of main memory that this process may have.

    That of the machine, or the limit of its container (cgroups of version 2 or 1), if that is less.
    """
    limits = (psutil.virtual_memory().total, *(_whole(path) for path in _LIMITS))
    return min(limit for limit in limits if limit)


_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def _whole(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _least_params(point: DesignPoint) -> int:
    # No classifier here has fewer features than 8.
    if is_external(point.backbone):
        return 8 * point.num_classes
    features = getattr(backbone_spec(point.backbone), "last_width", 512)
    found = int(features) * point.num_classes
    for layer in generated_layers(point.backbone):
        design = stage_design(point, layer.stage)
        generator = layer_generator(layer, design)
        times = design.experts or (1 if generator is None else generator.inputs_per_group)
        found += times * layer.out_channels * layer.fan_in
    return found
