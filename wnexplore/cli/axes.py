"""The options of axes, made from the table for points and grids, and how they override a sweep file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wnexplore.cli.options import comma_list
from wnexplore.design.axes import DESIGN_AXES, POINT_AXES, TIMING_AXES, Number, Whole
from wnexplore.errors import InputError

if TYPE_CHECKING:
    from wnexplore.design.point import DesignPoint
    from wnexplore.design.protocol import LatencySpec
    from wnexplore.design.sweep_file import Overrides, SweepSpec

Command = Callable[..., None]

PointsWhere = Annotated[
    str | None,
    typer.Option(help='What points must satisfy: "params < 2.5M and flops < 150M and latency_ratio < 1.2".'),
]


def point_options(
    *,
    after: str = "context",
    without: Collection[str] = (),
    **defaults: str,
) -> Callable[[Command], Command]:
    """An option for each axis of one design point, inserted after the command's parameter `after`.

    The command reads them from its `context.params`. `defaults` override the table's; the backbone has none
    and is required.
    """
    made = []
    for axis in DESIGN_AXES.values():
        if axis.of_point and axis.name not in without:
            # The defaults of methods' axes depend on the method.
            usual = None if axis.part == "layer" else axis.default
            if axis.name == "backbone":
                usual = inspect.Parameter.empty
            default = defaults.get(axis.name, usual)
            kind: Any = int if isinstance(axis.values, Whole) else str
            complete = one_of(axis.names) if axis.names else None
            made.append(
                make_option(
                    axis.name, kind | None if default is None else kind, axis.said(), complete, default
                )
            )
    return with_options(made, after)


def grid_options(*, after: str) -> Callable[[Command], Command]:
    """An option for each axis of a sweep, inserted after the command's parameter `after`.

    The command reads them from its `context.params`.
    """
    made = []
    for axis in DESIGN_AXES.values():
        kind: Any = bool if axis.values == "switch" else str
        complete = _some_of(axis.names) if axis.names else None
        made.append(make_option(axis.name, kind | None, axis.said(many=True), complete, None))
    return with_options(made, after)


def timing_options(
    *,
    after: str,
    sweep: bool = False,
    only: Collection[str] = (),
    helps: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """An option for each axis of a latency's protocol, or some, put behind the command's parameter `after`.

    The command reads them from its `context.params`. Those of a `sweep` override its file, with no defaults.
    """
    made = []
    for axis in TIMING_AXES.values():
        if axis.part != "machine" and (not only or axis.name in only):
            kind: Any = float if isinstance(axis.values, Number) else str
            default = None if sweep or axis.default is None else axis.default
            if default is not None and axis.listed:
                default = str(default)
            said = (helps or {}).get(axis.name, axis.said(many=sweep))
            complete = (_some_of if axis.listed else one_of)(axis.names) if axis.names else None
            made.append(
                make_option(axis.name, kind | None if default is None else kind, said, complete, default)
            )
    return with_options(made, after)


def latency_spec(given: Mapping[str, Any]) -> LatencySpec:
    """What latency to measure, by those of a command's parameters `given` that are axes of protocols.

    Raises `InputError` naming the option of a wrong value.
    """
    from wnexplore.design.sweep_file import load_sweep

    overrides: dict[tuple[str, ...], tuple[str, Any]] = {}
    for name, axis in TIMING_AXES.items():
        if name in given:
            value = given[name]
            listed = axis.listed and isinstance(value, str)
            overrides["latency", axis.sweep_key] = (_flag(name), comma_list(value) if listed else value)
    spec = load_sweep(None, overrides).latency
    assert spec is not None
    return spec


def legal_point(given: Mapping[str, Any]) -> DesignPoint:
    """The design point of a command's parameters `given`, which include one for each axis.

    Raises `InputError` if there is no such point.
    """
    from wnexplore.design.legality import check_legal
    from wnexplore.design.point import DesignPoint
    from wnexplore.design.size_limits import check_fits

    point = DesignPoint.of(**{axis: given[axis] for axis in POINT_AXES})
    check_legal(point)
    check_fits(point)
    return point


AXIS_PLACES: dict[str, tuple[str, ...]] = {
    **{name: (axis.sweep_key,) for name, axis in DESIGN_AXES.items()},
    "where": ("where",),
}
"""Parameter of a command -> the path in the sweep file that it sets."""

TIMING_PLACES: dict[str, tuple[str, ...]] = {
    name: ("latency", axis.sweep_key)
    for name, axis in TIMING_AXES.items()
    if axis.part != "machine" and name != "device"
}
"""The same of a latency's protocol, but its device, which is that of trainings too."""


def overrides_of(given: Mapping[str, Any], places: Mapping[str, tuple[str, ...]] = AXIS_PLACES) -> Overrides:
    """The overrides of a sweep file by a command's parameters `given`, without those left out."""
    overrides: dict[tuple[str, ...], tuple[str, Any]] = {}
    for name, path in places.items():
        value = given[name]
        if value is None:
            continue
        lists = path != ("where",) and (len(path) == 1 or path[0] == "latency")
        overrides[path] = (_flag(name), comma_list(value) if lists and isinstance(value, str) else value)
    if ("backbones",) in overrides:
        # A grid replaces a file's listed points.
        overrides[("points",)] = ("--backbone", None)
    return overrides


def refuse_axes_with_points(spec: SweepSpec, overrides: Overrides) -> None:
    """Raise `InputError` for an axis option on a sweep of listed points: it can only change a grid."""
    from wnexplore.design.sweep_file import NO_AXES

    axes = [option for path, (option, _) in overrides.items() if path[0] not in NO_AXES]
    if spec.points is not None and axes:
        raise InputError(f"this sweep lists its points: {axes[0]} needs --backbone, for a grid")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def make_option(
    name: str,
    kind: Any,
    said: str,
    complete: Callable[[str], list[str]] | None,
    default: Any,
    *,
    negated: bool = False,
) -> inspect.Parameter:
    """The option of a command's parameter `name`; `negated`: and --no-`name`."""
    flags = f"{_flag(name)}/--no-{_flag(name)[2:]}" if negated else _flag(name)
    option = typer.Option(flags, help=said, autocompletion=complete)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def one_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """The completion of one of `names`."""

    def complete(incomplete: str) -> list[str]:
        return list(names)

    return complete


def _some_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Completions of a comma-separated list of `names`."""

    def complete(incomplete: str) -> list[str]:
        before = incomplete.rpartition(",")[0]
        return [f"{before},{name}" if before else name for name in names if name not in comma_list(before)]

    return complete


def with_options(made: Sequence[inspect.Parameter], after: str) -> Callable[[Command], Command]:
    """Add options to a command's signature for Typer; the command is called without them."""
    names = {option.name for option in made}

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            command(**{name: value for name, value in given.items() if name not in names})

        signature = inspect.signature(command, eval_str=True)
        kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
        place = [p.name for p in kept].index(after) + 1
        parameters = [*kept[:place], *made, *kept[place:]]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate
