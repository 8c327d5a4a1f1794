"""The design point: one network to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from wnexplore.design.backbones import STEMS, backbone_spec
from wnexplore.design.external_names import check_name, is_brought, settled_name
from wnexplore.design.methods import ACTIVATIONS, DEFAULTS, DEPTHWISE, METHODS
from wnexplore.design.multiplier import Setting, Written, parse_setting, plain_multiplier
from wnexplore.design.stages import Stages, parse_stages, settled
from wnexplore.errors import InputError, shown, unknown


@dataclass(frozen=True)
class DesignPoint:
    """One network: hashable, comparable, exact.

    Axes that the method doesn't read are None, so that equal networks are equal points. Build one
    with `DesignPoint.of`, which fills in defaults and checks every value.
    """

    backbone: str
    method: str
    M: Setting | None
    """One number, "4/C" (in every layer over its channels), or a value for each stage."""
    G: Setting | None
    stages: str | None
    """Those that get the method, "3+4"; None: all of them."""
    experts: int | None
    temperature: int | None
    stem: str
    resolution: int
    num_classes: int
    reduction: int | None
    activation: str | None
    depthwise: str | None
    """What a depthwise convolution gets, one of `DEPTHWISE`."""

    @classmethod
    def of(
        cls,
        backbone: str,
        method: str = "plain",
        M: Written | None = None,
        G: Written | None = None,
        *,
        stages: Stages | None = None,
        experts: int | None = None,
        temperature: int | None = None,
        stem: str = "imagenet",
        resolution: int | None = None,
        num_classes: int = 1000,
        reduction: int | None = None,
        activation: str | None = None,
        depthwise: str | None = None,
    ) -> DesignPoint:
        """The point with these axes, those left out at their defaults (M = G = 2, as published).

        `resolution` is in pixels and defaults to what the stem is made for. Raises `InputError` for
        an unknown name, a value out of range, or an axis that the method doesn't read; whether
        (M, G) is legal in every layer is `wnexplore.design.legality.check_legal`'s to say.
        """
        for name, text in {"backbone": backbone, "method": method, "stem": stem}.items():
            if not isinstance(text, str):
                raise InputError(f"{name} is '{shown(text)}': expected a name")
        if is_brought(backbone):
            check_name(backbone)
            backbone = settled_name(backbone)
        else:
            backbone_spec(backbone)
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        if is_brought(backbone) and stem != "imagenet":
            raise InputError(
                f"stem is '{stem}': {shown(backbone)} has the stem that it came with, leave it out"
            )
        written = {"M": M, "G": G, "stages": stages, "experts": experts, "temperature": temperature}
        written |= {"reduction": reduction, "activation": activation, "depthwise": depthwise}
        given = method_axes(method, written, None if is_brought(backbone) else backbone)
        for name, size in {"resolution": resolution, "num_classes": num_classes}.items():
            _check_size(name, size)
        return cls(
            backbone=backbone,
            method=method,
            stem=stem,
            resolution=STEMS[stem] if resolution is None else resolution,
            num_classes=num_classes,
            **given,
        )

    def baseline(self) -> DesignPoint:
        """The plain network of the same backbone, stem, resolution and classes."""
        return DesignPoint.of(
            self.backbone,
            stem=self.stem,
            resolution=self.resolution,
            num_classes=self.num_classes,
        )

    def to_dict(self) -> dict[str, str | int | None]:
        """The axes as plain values that JSON can hold; M and G exact: 2, or a text such as "1/48"."""
        axes = {name: getattr(self, name) for name in AXES}
        return {k: plain_multiplier(v) if isinstance(v, Setting) else v for k, v in axes.items()}

    @classmethod
    def from_dict(cls, axes: Mapping[str, Any]) -> DesignPoint:
        """The point that `to_dict` described."""
        return cls.of(**axes)

    def __str__(self) -> str:
        axes = [shown(self.backbone, 200), self.method]
        always = ("M", "G", "stages", "experts")
        for axis, value in self.to_dict().items():
            usual = axis not in METHODS[self.method].axes or value == DEFAULTS.get(axis)
            if value is not None and (axis in always or not usual):
                axes.append(f"{axis}={value}")
        return " ".join(axes)


def method_axes(method: str, written: Mapping[str, Any], backbone: str | None = None) -> dict[str, Any]:
    """All axes of methods, as a design point holds them, from what a person wrote for those of `method`.

    The stages of `backbone` are known, those of a network of one's own (None) are not. Raises `InputError`
    for an unknown method, axis or name, a value out of range, or an axis that the method doesn't read.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    every: dict[str, None] = dict.fromkeys(axis for spec in METHODS.values() for axis in spec.axes)
    for name in written:
        if name not in every:
            raise unknown("axis", name, every)
    given = {axis: written.get(axis) for axis in every}
    for axis, value in given.items():
        if axis not in METHODS[method].axes:
            if value is not None:
                raise InputError(f"method '{method}' has no {axis}: leave {axis} out")
        elif value is None:
            given[axis] = DEFAULTS.get(axis)
    if given["stages"] is not None:
        given["stages"] = parse_stages(given["stages"], backbone)
    for name in ("M", "G"):
        if given[name] is not None:
            given[name] = settled(parse_setting(given[name], name), backbone, given["stages"], name)
    for name, known in (("activation", ACTIVATIONS), ("depthwise", DEPTHWISE)):
        if given[name] is not None and (not isinstance(given[name], str) or given[name] not in known):
            raise unknown(name, given[name], known)
    for name in ("experts", "temperature", "reduction"):
        _check_size(name, given[name])
    return given


LARGEST = {
    "resolution": 10_000_000,
    "num_classes": 10_000_000,
    "experts": 10_000,
    "temperature": 10**9,
    "reduction": 10**9,
}
"""How large a size may be: what no machine could hold is refused before anything is made."""


def _check_size(name: str, size: object) -> None:
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"{name} is '{shown(size)}': expected a whole number of at least 1")
    if size > LARGEST[name]:
        raise InputError(f"{name} is {shown(size)}: expected at most {LARGEST[name]:,}")


AXES = tuple(field.name for field in fields(DesignPoint))
"""The names of a point's axes, in the order in which tables and exports show them."""
