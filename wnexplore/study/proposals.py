"""Converts Optuna's trials to design points and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wnexplore.design.axes import NETWORK_AXES
from wnexplore.design.external_names import is_external
from wnexplore.design.methods import METHODS
from wnexplore.design.multiplier import at_stage, plain_multiplier
from wnexplore.design.part_stages import stage_name
from wnexplore.design.point import DesignPoint
from wnexplore.design.stages import has_method, parse_stages
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.space.skeleton_cache import skeleton_of

if TYPE_CHECKING:
    import optuna


def decode(spec: SweepSpec, trial: optuna.Trial) -> DesignPoint:
    """The point that `trial` proposes, each axis of `spec` a categorical parameter.

    A method's own axes are named after it ("weightnet.M"), and M and G after their stage where they are
    crossed per stage ("weightnet.M.3").
    """
    network = {axis: trial.suggest_categorical(axis, values) for axis, values in _network_axes(spec)}
    method = network["method"]
    given: dict[str, Any] = {}
    for axis in METHODS[method].axes:
        if axis not in ("M", "G"):
            given[axis] = trial.suggest_categorical(f"{method}.{axis}", _choices(spec, axis))
    for axis in ("M", "G"):
        if axis in METHODS[method].axes:
            by_stage = {
                stage: trial.suggest_categorical(name, _choices(spec, axis))
                for stage, name in _names(spec, network, method, axis, given.get("stages"))
            }
            # Equal values in every stage are one number; an external backbone's stages aren't known from its
            # name.
            given[axis] = by_stage if len(set(by_stage.values())) > 1 else next(iter(by_stage.values()))
    return DesignPoint.of(**network, **given)


def encode(spec: SweepSpec, point: DesignPoint) -> dict[str, Any]:
    """The parameters of a trial that proposes `point`, which is in the grid of `spec`."""
    axes = point.to_dict()
    network = {axis: None if choices == [None] else axes[axis] for axis, choices in _network_axes(spec)}
    # A choice is named as the sweep has it, and a point's own file by its canonical path.
    names = {DesignPoint.of(name).backbone: name for name in spec.choices("backbone")}
    network["backbone"] = names[point.backbone]
    found = dict(network)
    for axis in METHODS[point.method].axes:
        if axis in ("M", "G"):
            setting = getattr(point, axis)
            for stage, name in _names(spec, network, point.method, axis, point.stages):
                found[name] = plain_multiplier(at_stage(setting, stage) if spec.per_stage else setting)
        elif axis == "stages":
            backbone = None if is_external(point.backbone) else point.backbone
            written = {one and parse_stages(one, backbone): one for one in spec.choices(axis)}
            found[f"{point.method}.{axis}"] = written[point.stages]
        else:
            found[f"{point.method}.{axis}"] = axes[axis]
    return found


def _network_axes(spec: SweepSpec) -> Iterator[tuple[str, list[Any]]]:
    for axis in (*NETWORK_AXES, "method"):
        yield axis, list(spec.choices(axis))


def _choices(spec: SweepSpec, axis: str) -> list[Any]:
    values = spec.choices(axis)
    return [plain_multiplier(value) for value in values] if axis in ("M", "G") else list(values)


def _names(
    spec: SweepSpec, network: dict[str, Any], method: str, axis: str, stages: str | None
) -> list[tuple[int, str]]:
    """The parameters of M or G, each with its stage (0: all stages)."""
    if not spec.per_stage:
        return [(0, f"{method}.{axis}")]
    plain = DesignPoint.of(**{**network, "method": "plain"})
    return [
        (stage, f"{method}.{axis}.{stage_name(stage)}")
        for stage in skeleton_of(plain).stages
        if has_method(stages, stage)
    ]
