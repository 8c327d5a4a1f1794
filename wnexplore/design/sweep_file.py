"""Sweep files: a set of design points and their measurements, declared in YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    ValidationError,
    create_model,
    model_validator,
)

from wnexplore.design.axes import DESIGN_AXES, Axis, Choice, Whole
from wnexplore.design.backbone_family import at_width
from wnexplore.design.backbones import BACKBONES, FAMILIES, backbone_spec
from wnexplore.design.external_names import check_name, is_external
from wnexplore.design.multiplier import PerStage, Setting, parse_multiplier, parse_setting, plain_multiplier
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import BEFORE, DEVICES, MAX_VALUES, LatencySpec, Positive, TrainSpec
from wnexplore.design.stages import parse_stages, settled
from wnexplore.design.vision_tasks import TASKS
from wnexplore.design.yaml_file import Places, dump_yaml, parse_yaml, read_yaml
from wnexplore.errors import InputError, shown, unknown


def _one_of(what: str, valid: Iterable[str]) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or value not in valid:
            raise unknown(what, value, valid)
        return value

    return BeforeValidator(check)


def _known_backbone(value: object) -> object:
    if not isinstance(value, str):
        raise unknown("backbone", value, BACKBONES)
    if is_external(value):
        check_name(value)
    elif value not in FAMILIES:
        backbone_spec(value)
    return value


def _one_setting(value: object) -> object:
    """`M: {2: 1, 3: 2, 4: 8}` is one choice, as `M: [{2: 1, 3: 2, 4: 8}]` is."""
    return (value,) if isinstance(value, Mapping) else value


def _switch(value: object) -> object:
    """`train: true` uses the defaults, `latency: false` doesn't measure at all."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _stages_text(value: object) -> object:
    """[3, 4, "head"] as "3+4+head"; checked against the backbone later."""
    if isinstance(value, (list, tuple)) and value and all(type(stage) in (int, str) for stage in value):
        value = "+".join(map(str, value))
    return str(value) if type(value) is int else value


def _one_choice(value: object) -> object:
    """`stages: [3, 4]` is one choice of stages, `stages: [[3, 4], [4], null]` three."""
    if value is None or isinstance(value, (int, str)):
        return (value,)
    if isinstance(value, list) and value and all(type(stage) is int for stage in value):
        return (value,)
    return value


_ALONE = {"multiplier": _one_setting, "stages": _one_choice}
"""The types for which one choice may be given instead of a list."""

_plainly = PlainSerializer(lambda value: value and plain_multiplier(value), when_used="json")
_Length = Field(min_length=1, max_length=MAX_VALUES)


def _value(axis: Axis) -> Any:
    """The type of one value of `axis`."""
    match axis.values:
        case Whole():
            return Positive
        case Choice(names):
            return Annotated[str, _one_of(axis.name, names)]
        case "backbone":
            return Annotated[str, BeforeValidator(_known_backbone)]
        case "multiplier":
            return Annotated[Setting, BeforeValidator(partial(parse_setting, name=axis.name)), _plainly]
        case "stages":
            return Annotated[str, BeforeValidator(_stages_text)]
        case "width":
            return Annotated[Fraction, BeforeValidator(partial(parse_multiplier, name=axis.name)), _plainly]
        case "switch":
            return StrictBool


def _values(axis: Axis) -> tuple[Any, Any]:
    """The type of `axis` in a grid, and its default there."""
    one: Any = _value(axis)
    if axis.values == "switch":
        return Annotated[one, Field(description=axis.meaning)], axis.default
    default = (axis.default,) if axis.grid == () else axis.grid
    if default is not None and None in default:
        one = one | None
    several: Any = tuple[one, ...]
    if isinstance(axis.values, str) and axis.values in _ALONE:
        several = Annotated[several, BeforeValidator(_ALONE[axis.values])]
    several = Annotated[several, _Length]
    return Annotated[several if default else several | None, Field(description=axis.meaning)], default


def _one(axis: Axis) -> tuple[Any, Any]:
    """The type of `axis` in a listed point, and its default there."""
    if axis.name == "backbone":
        return _value(axis), ...
    if axis.part == "layer" or axis.default is None:
        return _value(axis) | None, None
    return _value(axis), axis.default


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


if TYPE_CHECKING:

    class _Point(_Spec):
        pass

    class _Grid(_Spec):
        backbones: tuple[str, ...] = ()
        width: tuple[Fraction, ...] | None = None
        methods: tuple[str, ...] = ()
        M: tuple[Setting, ...] = ()
        G: tuple[Setting, ...] = ()
        per_stage: bool = False
        num_classes: tuple[int, ...] | None = None
        stages: tuple[str | None, ...] = ()
        task: tuple[str, ...] = ()

else:
    _points = {axis.name: _one(axis) for axis in DESIGN_AXES.values() if axis.of_point}
    _grids = {axis.sweep_key: _values(axis) for axis in DESIGN_AXES.values()}
    _Point = create_model("_Point", __base__=_Spec, **_points)
    _Grid = create_model("_Grid", __base__=_Spec, **_grids)


class PointSpec(_Point):
    """One listed point, in addition to or instead of a grid."""

    if TYPE_CHECKING:

        def __init__(self, **axes: Any) -> None: ...

    @model_validator(mode="after")
    def _is_a_point(self) -> PointSpec:
        self.point()
        return self

    def point(self) -> DesignPoint:
        """The design point."""
        return DesignPoint.of(**dict(self))


class SweepSpec(_Grid):
    """A sweep: the axes of the space, each a list, and the measurements of each point.

    The grid is crossed from the axes, those of `wnexplore.design.axes`, unless only `points` are given; a
    method reads only its own axes.
    """

    if TYPE_CHECKING:

        def __init__(self, **given: Any) -> None: ...

    where: str | None = None
    """A condition on the points, as on rows of a table: checked on counts before anything is built, and on
    latencies before training."""
    points: Annotated[tuple[PointSpec, ...], _Length] | None = None
    """Listed design points, in addition to or instead of the grid."""
    latency: Annotated[LatencySpec | None, BeforeValidator(_switch)] = LatencySpec()
    """The latencies, see their table below; false: none."""
    train: Annotated[TrainSpec | None, BeforeValidator(_switch)] = None
    """The trainings, see their table below; left out: none."""

    @model_validator(mode="after")
    def _has_classes(self) -> SweepSpec:
        """The default number of classes follows from the task, if there is one."""
        if self.num_classes is None and len(set(self.task)) == 1:
            # It stays a default: what was given tells whether there is a grid.
            self.__dict__["num_classes"] = (TASKS[self.task[0]].classes,)
        return self

    @model_validator(mode="after")
    def _fits_these_backbones(self) -> SweepSpec:
        for network, stages in product(self.networks, self.stages):
            backbone = None if is_external(network) else network
            within = None if stages is None else parse_stages(stages, backbone)
            for name, values in (("M", self.M), ("G", self.G)):
                for value in values:
                    settled(value, backbone, within, name)
                    if self.per_stage and isinstance(value, PerStage):
                        raise InputError(
                            f"{name} is '{shown(value)}', and per_stage crosses one number for each stage"
                        )
        return self

    @property
    def networks(self) -> tuple[str, ...]:
        """The backbones, each family at each width."""
        found = []
        for backbone in self.backbones:
            if backbone in FAMILIES and self.width is not None:
                found += [at_width(backbone, width) for width in self.width]
            elif backbone in FAMILIES and backbone not in BACKBONES:
                raise InputError(
                    f"backbone '{backbone}' is a family: say which width, such as 'width: [0.5]'"
                )
            else:
                found.append(backbone)
        if self.width is not None and not set(self.backbones) & set(FAMILIES):
            raise InputError(f"width is for backbones of any width: {', '.join(FAMILIES)}")
        return tuple(found)

    def choices(self, axis: str) -> tuple[Any, ...]:
        """The values of a point's axis in the grid; (None,) where it depends on other axes."""
        if axis == "backbone":
            return self.networks
        values: tuple[Any, ...] | None = getattr(self, DESIGN_AXES[axis].sweep_key)
        return values or (None,)

    @property
    def has_grid(self) -> bool:
        """Whether there is a grid: always, unless `points` and no axis were given."""
        return self.points is None or bool(self.model_fields_set - NO_AXES)

    def on_device(self, device: str) -> SweepSpec:
        """This sweep with all measurements on `device` (auto, cpu, cuda)."""
        if device not in DEVICES:
            raise unknown("device", device, DEVICES)
        figures = {"latency": self.latency, "train": self.train}
        moved = {k: s.model_copy(update={"device": device}) for k, s in figures.items() if s is not None}
        return self.model_copy(update=moved)

    def to_yaml(self) -> str:
        """This sweep as a sweep file, every default written out."""
        content = self.model_dump(mode="json", include=None if self.has_grid else NO_AXES)
        if content.get("task") == ["classification"]:
            # As earlier versions wrote it.
            del content["task"]
        # null could mean "measure nothing" or the default: false means the former.
        content |= {figure: content[figure] or False for figure in ("latency", "train")}
        if content["train"]:
            # Left out, so that sweeps without them are written as by earlier versions.
            usual = {"target": None, "max_seeds": None, "hours": None, "by": None, "test_every": 1}
            content["train"] = {
                key: value for key, value in content["train"].items() if usual.get(key, ...) != value
            }
        if content["points"] is not None:
            content["points"] = [
                {key: value for key, value in point.items() if value is not None}
                for point in content["points"]
            ]
        return dump_yaml({key: value for key, value in content.items() if value is not None})


NO_AXES = {"where", "points", "latency", "train"}
"""The fields of a sweep other than its grid."""

Overrides = Mapping[tuple[str, ...], tuple[str, Any]]
"""Path in the sweep file -> (option that sets it, value): how flags override a file."""


def load_sweep(path: Path | None, overrides: Overrides | None = None) -> SweepSpec:
    """The sweep of a file (None: all defaults), with `overrides` on top.

    Raises `InputError` naming file and line (or the option) and what was expected, for a file that
    can't be read or isn't YAML, an unknown or repeated key, an illegal value, an empty axis.
    """
    content, where = ({}, {}) if path is None else _read(path)
    for key_path, (option, value) in (overrides or {}).items():
        target: dict[str, Any] = content
        for key in key_path[:-1]:
            # A copy: an alias may have put the same keys elsewhere too.
            target[key] = dict(target[key]) if isinstance(target.get(key), dict) else {}
            target = target[key]
        if value is True and isinstance(target.get(key_path[-1]), dict):
            continue
        target[key_path[-1]] = value
        for stale in [p for p in where if p[: len(key_path)] == key_path]:
            del where[stale]
        where[key_path] = f"option {option}"
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, where, "sweep" if path is None else str(path))) from None


def written_before(text: str) -> tuple[SweepSpec, frozenset[str]]:
    """The sweep that an earlier version's `SweepSpec.to_yaml` wrote, and the fields of its trainings' recipe
    that it lacks, which are at the values by which that version trained.

    Raises `InputError` if it isn't one.
    """
    content = parse_yaml(text, "an earlier sweep")
    lacking: frozenset[str] = frozenset()
    if isinstance(content, dict) and isinstance(content.get("train"), dict):
        lacking = frozenset(BEFORE.keys() - content["train"].keys())
        content["train"] = BEFORE | content["train"]
    try:
        return SweepSpec.model_validate(content), lacking
    except ValidationError as error:
        raise InputError(_explain(error, {}, "an earlier sweep")) from None


def _read(path: Path) -> tuple[dict[str, Any], Places]:
    """A YAML mapping, and the place ("file, line 3") of each of its keys and values."""
    content, where = read_yaml(path, "sweep file")
    if content is None:
        return {}, where
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{shown(path)}, line 1: expected keys such as 'backbones: [shufflenet_v2_x0_5]'")
    return content, where


def _explain(error: ValidationError, where: Places, file: str) -> str:
    # A list with only invalid values is also reported as too short: report it once.
    errors = [e for e in error.errors() if e["type"] != "too_short" or not e["input"]]
    first = errors[0]
    location = first["loc"]
    place = next((where[location[:n]] for n in range(len(location), -1, -1) if location[:n] in where), file)
    name = shown(".".join(str(part) for part in location if not isinstance(part, int))) or "the file"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {_what_is_wrong(first, name)}{more}"


def _what_is_wrong(error: Any, name: str) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        owner = _OWNERS.get(error["loc"][0], SweepSpec) if len(error["loc"]) > 1 else SweepSpec
        return str(unknown("key", error["loc"][-1], owner.model_fields))
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "too_short":
        return f"{name} is empty: expected at least one value"
    if kind == "too_long":
        return f"{name} has {error['ctx']['actual_length']} values: expected at most {MAX_VALUES:,}"
    if kind == "tuple_type":
        return f"{name} is '{shown(given)}': expected a list, such as [{shown(given)}]"
    if kind in ("model_type", "model_attributes_type"):
        return f"{name} is '{shown(given)}': expected keys with values{_SWITCH.get(name, '')}"
    if kind == "missing":
        return f"{name} is missing"
    expected = error["msg"].replace("Input should be", "expected")
    return f"{name} is '{shown(given)}': {expected[0].lower()}{expected[1:]}"


_SWITCH = {"latency": ", true or false", "train": ", true or false"}

_OWNERS: dict[Any, type[BaseModel]] = {"latency": LatencySpec, "train": TrainSpec, "points": PointSpec}
