"""Skeletons of plain networks, cached on disk, so that counting again needs no torch."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wnexplore.design.axes import NETWORK_AXES
from wnexplore.design.backbones import backbone_spec
from wnexplore.design.external_names import is_external
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import Skeleton
from wnexplore.errors import InputError, WnexploreError
from wnexplore.files import cache_folder, write_atomically


def skeleton_of(point: DesignPoint) -> Skeleton:
    """The skeleton of the plain network of `point` at the point's resolution.

    Cached in `cache_folder()`, keyed by everything it depends on, including the backbones' code; a file that
    can't be read or written is ignored. Raises `InputError` if the network can't run on such images.
    """
    return _skeleton_of(point.baseline())


@cache
def _skeleton_of(baseline: DesignPoint) -> Skeleton:
    of = _cache_key(baseline)
    if of is None:
        return _make(baseline)
    path = cache_folder() / "walks" / f"{hashlib.sha256(json.dumps(of).encode()).hexdigest()[:32]}.json"
    known = _read(path, of)
    if known is not None:
        return known
    skeleton = _make(baseline)
    with suppress(OSError, WnexploreError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"of": of, "walk": skeleton.to_dict()}).encode())
    return skeleton


def _make(baseline: DesignPoint) -> Skeleton:
    from wnexplore.models.trace_skeleton import skeleton

    try:
        return skeleton(baseline)
    except RuntimeError as error:
        # The first line is the reason, the rest are internals of the library.
        reason = str(error).strip().partition("\n")[0]
        where = f"{baseline.backbone} can't run on images of {baseline.resolution} pixels"
        raise InputError(f"{where}: {reason}") from None


def _cache_key(baseline: DesignPoint) -> list[Any] | None:
    """The cache key of a skeleton; None for a file's network, which may import other files that change."""
    network = [getattr(baseline, axis) for axis in NETWORK_AXES]
    library, _, _ = baseline.backbone.partition(":")
    if not is_external(baseline.backbone):
        made_of = repr(backbone_spec(baseline.backbone))
    elif library in ("timm", "torchvision"):
        try:
            made_of = version(library)
        except PackageNotFoundError:
            return None
    else:
        return None
    return [*network, made_of, _code()]


@cache
def _code() -> str:
    """A hash of the code that makes skeletons."""
    here = Path(__file__).parents[1]
    design = here / "design"
    files = [*sorted((here / "models").glob("*.py")), design / "skeleton.py", design / "part_stages.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _read(path: Path, of: list[Any]) -> Skeleton | None:
    try:
        content = json.loads(path.read_bytes())
        return Skeleton.from_dict(content["walk"]) if content["of"] == of else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
