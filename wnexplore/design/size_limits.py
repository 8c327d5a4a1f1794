"""Lower bounds of memory, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from wnexplore.design.axes import DESIGN_AXES
from wnexplore.design.backbones import backbone_spec
from wnexplore.design.conv_sites import known_convs
from wnexplore.design.external_names import is_external
from wnexplore.design.generator import layer_generator
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.errors import InputError

_BYTES = 4
"""Bytes of a float32 weight."""


def check_fits(point: DesignPoint) -> None:
    """Raise `InputError` if the weights of `point` exceed this machine's memory.

    Of an external backbone only the classifier is known. Checked before allocating: an operating system may
    overcommit memory and kill the process later.
    """
    memory = machine_memory()
    needed = _BYTES * _least_params(point)
    if needed > memory:
        raise InputError(
            f"{point} with {point.num_classes:,} classes has weights of {needed / 1e9:,.0f} GB at least:"
            f" more than the {memory / 1e9:,.0f} GB of memory here"
        )


def check_images_fit(resolution: int) -> None:
    """Raise `InputError` if one image of `resolution` pixels with its first feature map exceeds this
    machine's memory, or the largest supported size.
    """
    DESIGN_AXES["resolution"].check(resolution)
    # The resized and the normalised image, and 8 channels of half its size.
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
    """Why a batch of `batch` images of `resolution` pixels doesn't fit; None if it may fit.

    It counts `copies` of the images and the output of the first layer of the network of `point`, with
    `bytes_each` bytes per element. `there` is the device's memory in bytes: by default that of this machine.
    Checked before allocating, as in `check_fits`.
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
    """Bytes of main memory available to this process.

    That of the machine, or the container's limit (cgroups version 2 or 1), if that is less.
    """
    limit = container_limit()
    return psutil.virtual_memory().total if limit is None else limit


def container_limit() -> int | None:
    """The memory limit in bytes of this process's control group: its container, or its job in a batch system.

    None if there is no group, or if its limit exceeds the machine's memory.
    """
    found = [limit for limit in map(_integer, _limit_files()) if limit]
    return min(found) if found and min(found) < psutil.virtual_memory().total else None


_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def _limit_files() -> Iterator[Path]:
    """The limit files of this process's group and its parents (cgroups, versions 1 and 2).

    In a container the group is the root; elsewhere it is read from the process.
    """
    tops = {"": (_CGROUPS, "memory.max"), "memory": (_CGROUPS / "memory", "memory.limit_in_bytes")}
    yield from (top / name for top, name in tops.values())
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, folder = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in tops:
                top, name = tops[controller]
                group = PurePosixPath(folder.lstrip("/"))
                yield from (top / above / name for above in (group, *group.parents))


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # missing, or "max"
        return None


def _least_params(point: DesignPoint) -> int:
    spec = None if is_external(point.backbone) else backbone_spec(point.backbone)
    # Every classifier here has at least 8 features.
    features = 8 if spec is None else getattr(spec, "last_width", 512)
    found = 0 if point.task == "detection" else int(features) * point.num_classes
    # Of a detector's head: 3x3 filters for nine anchors.
    found += 81 * (point.pyramid_channels or 0) * point.num_classes
    for layer in known_convs(point.backbone, point.pyramid_channels):
        design = stage_design(point, layer.stage)
        generator = layer_generator(layer, design)
        times = design.experts or (1 if generator is None else generator.inputs_per_group)
        found += times * layer.out_channels * layer.fan_in
    return found
