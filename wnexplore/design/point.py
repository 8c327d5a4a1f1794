"""The design point: one network to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from wnexplore.design.axes import (
    DESIGN_AXES,
    DETECTION_RESOLUTION,
    LAYER_AXES,
    NETWORK_AXES,
    POINT_AXES,
    PYRAMID_CHANNELS,
    STEMS,
)
from wnexplore.design.axis_types import GivenAxes, LayerAxes, NetworkAxes
from wnexplore.design.backbones import backbone_spec
from wnexplore.design.external_names import check_name, is_external, settled_name
from wnexplore.design.methods import METHODS
from wnexplore.design.multiplier import Setting, Written, at_stage, parse_setting, plain_multiplier
from wnexplore.design.part_stages import PART_STAGES
from wnexplore.design.stage_design import PLAIN, StageDesign
from wnexplore.design.stages import has_method, parse_stages, settled
from wnexplore.design.vision_tasks import TASKS
from wnexplore.errors import InputError, shown, unknown


@dataclass(frozen=True, kw_only=True)
class DesignPoint(NetworkAxes, LayerAxes):
    """One network: hashable, comparable, exact.

    Its axes are those of `wnexplore.design.axes`; axes that the method doesn't read are None, so that equal
    networks are equal points. `DesignPoint.of` builds one, fills in defaults and checks every value.
    """

    method: str
    M: Setting | None
    """One number, "4/C" (in every layer over its channels), or a value for each stage."""
    G: Setting | None
    stages: str | None
    """The stages with the method, "3+4"; None: all of the backbone."""

    @classmethod
    def of(
        cls,
        backbone: str,
        method: str = "plain",
        M: Written | None = None,
        G: Written | None = None,
        **axes: Unpack[GivenAxes],
    ) -> DesignPoint:
        """The point with these axes, those left out at their defaults (M = G = 2, as published).

        `axes` are those of `GivenAxes`, such as stages, experts and resolution, which is in pixels and
        defaults to what the stem is made for, for detection to 800. Raises `InputError` for an unknown name,
        a value out of range, or an axis that the method or the task doesn't read;
        `wnexplore.design.legality.check_legal` checks whether (M, G) is legal in every layer.
        """
        given: dict[str, Any] = {"backbone": backbone, "M": M, "G": G, **axes}
        for name in given:
            if name not in POINT_AXES:
                raise TypeError(f"DesignPoint.of() got an unexpected keyword argument '{name}'")
        names = {"backbone": backbone, "method": method, "stem": given.get("stem", "imagenet")}
        for name, text in names.items():
            if not isinstance(text, str):
                raise InputError(f"{name} is '{shown(text)}': expected a name")
        if is_external(backbone):
            check_name(backbone)
            given["backbone"] = settled_name(backbone)
        else:
            backbone_spec(backbone)
        network = {axis: _checked(axis, given.get(axis)) for axis in NETWORK_AXES}
        if is_external(backbone) and network["stem"] != "imagenet":
            raise InputError(
                f"stem is '{network['stem']}': {shown(given['backbone'])} has its own stem: leave it out"
            )
        written = {axis: given.get(axis) for axis in LAYER_AXES}
        layers = method_axes(method, written, None if is_external(backbone) else backbone)
        parts = [name for name, stage in PART_STAGES.items() if has_method(layers["stages"], stage)]
        if parts and network["task"] != "detection":
            raise InputError(f"stages is '{layers['stages']}': task '{network['task']}' has no {parts[0]}")
        return cls(method=method, **_with_defaults(network), **layers)

    def baseline(self) -> DesignPoint:
        """The plain network of the same backbone, stem, resolution and classes."""
        return DesignPoint.of(**{axis: getattr(self, axis) for axis in NETWORK_AXES})

    def to_dict(self) -> dict[str, str | int | None]:
        """The axes as JSON values; M and G exact: 2, or a text such as "1/48"."""
        axes = {name: getattr(self, name) for name in AXES}
        return {k: plain_multiplier(v) if isinstance(v, Setting) else v for k, v in axes.items()}

    def stored(self) -> dict[str, str | int | None]:
        """As `to_dict`, without those of detection where it doesn't detect: as earlier versions wrote it."""
        axes = self.to_dict()
        if self.task == "classification":
            del axes["task"], axes["pyramid_channels"]
        return axes

    @classmethod
    def from_dict(cls, axes: Mapping[str, Any]) -> DesignPoint:
        """The point that `to_dict` or `stored` described."""
        return cls.of(**axes)

    def __str__(self) -> str:
        said = [shown(self.backbone, 200), self.method]
        for name, value in self.to_dict().items():
            axis = DESIGN_AXES[name]
            if axis.part == "layer" and value is not None and (axis.always or value != axis.default):
                said.append(f"{name}={value}")
        return " ".join(said)


AXES = POINT_AXES
"""The names of a point's axes, in the order in which tables and exports show them."""


def method_axes(method: str, written: Mapping[str, Any], backbone: str | None = None) -> dict[str, Any]:
    """All axes of methods, as stored in a design point, from those that the user gave for `method`.

    Stages are checked against `backbone`; those of an external backbone (None) are unknown. Raises
    `InputError` for an unknown method, axis or name, a value out of range, or an axis that the method doesn't
    read.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    for name in written:
        if name not in LAYER_AXES:
            raise unknown("axis", name, LAYER_AXES)
    given = {axis: written.get(axis) for axis in LAYER_AXES}
    for axis, value in given.items():
        if axis in METHODS[method].axes:
            given[axis] = _checked(axis, value)
        elif value is not None:
            raise InputError(f"method '{method}' has no {axis}: leave {axis} out")
    if given["stages"] is not None:
        given["stages"] = parse_stages(given["stages"], backbone)
    for name in ("M", "G"):
        if given[name] is not None:
            given[name] = settled(parse_setting(given[name], name), backbone, given["stages"], name)
    return given


def stage_design(point: DesignPoint, stage: int) -> StageDesign:
    """The design of `stage`. Raises `InputError` if M or G has values for other stages only."""
    if not has_method(point.stages, stage):
        return PLAIN
    axes = {axis: getattr(point, axis) for axis in METHODS[point.method].axes if axis != "stages"}
    for axis in ("M", "G"):
        if axis in axes:
            axes[axis] = at_stage(axes[axis], stage, axis)
    return StageDesign(point.method, **axes)


def _with_defaults(network: Mapping[str, Any]) -> dict[str, Any]:
    """The axes of a plain network with those defaults that depend on others."""
    detects = network["task"] == "detection"
    usual = {
        "resolution": DETECTION_RESOLUTION if detects else STEMS[network["stem"]],
        "num_classes": TASKS[network["task"]].classes,
        "pyramid_channels": PYRAMID_CHANNELS if detects else None,
    }
    if network["pyramid_channels"] is not None and not detects:
        raise InputError(f"task '{network['task']}' has no pyramid_channels: leave pyramid_channels out")
    return {axis: usual.get(axis) if value is None else value for axis, value in network.items()}


def _checked(name: str, value: Any) -> Any:
    """`value` of the axis called `name`, its default for None."""
    axis = DESIGN_AXES[name]
    if value is None:
        return axis.default
    axis.check(value)
    return value
