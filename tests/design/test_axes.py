"""The table of axes: that what holds axes by name has these, and that nothing else lists them."""

from __future__ import annotations

import ast
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import wnexplore
from wnexplore import DesignPoint
from wnexplore.cli import app
from wnexplore.design.axes import (
    DESIGN_AXES,
    LAYER_AXES,
    NETWORK_AXES,
    POINT_AXES,
    TIMING_AXES,
    TIMING_ORDER,
    Axis,
)
from wnexplore.design.axis_types import GivenAxes, LayerAxes, NetworkAxes, TimingAxes
from wnexplore.design.latency_protocol import LatencyProtocol, TimingDevice, latency_protocols
from wnexplore.design.methods import METHODS
from wnexplore.design.protocol import DEVICES, LatencySpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, point_title

PACKAGE = Path(wnexplore.__file__).parent
OF_POINT = ("profile", "race", "train", "export-onnx")
OF_GRID = ("sweep", "space", "search")

_every = pytest.mark.parametrize("axis", DESIGN_AXES.values(), ids=DESIGN_AXES)


def test_the_types_are_those_of_the_table() -> None:
    assert _fields(DesignPoint) == set(POINT_AXES)
    assert _fields(NetworkAxes) == set(NETWORK_AXES)
    assert _fields(LayerAxes) == set(LAYER_AXES) - {"M", "G", "stages"}
    assert set(GivenAxes.__annotations__) == set(POINT_AXES) - {"backbone", "method", "M", "G"}
    assert set(PointSpec.model_fields) == set(POINT_AXES)
    keys = [axis.sweep_key for axis in DESIGN_AXES.values()]
    assert list(SweepSpec.model_fields)[: len(keys)] == keys
    assert list(COLUMNS)[: len(POINT_AXES)] == list(POINT_AXES)


def test_methods_read_axes_of_the_table_and_each_is_read() -> None:
    read = [axis for method in METHODS.values() for axis in method.axes]
    assert set(read) == set(LAYER_AXES)


@pytest.mark.parametrize("axis", LAYER_AXES)
def test_what_is_left_out_is_the_same_everywhere(axis: str) -> None:
    method = next(name for name, spec in METHODS.items() if axis in spec.axes)
    point = DesignPoint.of("resnet18", method)
    assert getattr(point, axis) == DESIGN_AXES[axis].default
    assert SweepSpec(methods=(method,)).choices(axis) == (getattr(point, axis),)
    assert PointSpec.model_validate({"backbone": "resnet18", "method": method}).point() == point
    assert point_title(point.to_dict()) == point_title(DesignPoint.from_dict(point.to_dict()).to_dict())


def test_protocols_have_the_axes_of_the_table() -> None:
    crossed = {field.name: field for field in dataclasses.fields(TimingAxes)}
    assert set(crossed) == {name for name, axis in TIMING_AXES.items() if axis.part == "timing"}
    for name, field in crossed.items():
        # Only a CPU has an allocator.
        assert field.default in (dataclasses.MISSING, TIMING_AXES[name].default) or name == "allocator"
    assert set(TIMING_ORDER) == set(TIMING_AXES)
    assert _fields(LatencyProtocol) - {"source"} == set(TIMING_AXES)
    assert set(LATENCY_PROTOCOL) <= set(TIMING_AXES) & set(COLUMNS)
    keys = {axis.sweep_key for axis in TIMING_AXES.values() if axis.part != "machine"}
    assert set(LatencySpec.model_fields) == keys
    assert TIMING_AXES["device"].names == DEVICES
    (protocol,) = latency_protocols(LatencySpec(), TimingDevice("cpu", "a CPU", 4, settles=True))
    for name in crossed:
        assert protocol[name] == (4 if name == "threads" else TIMING_AXES[name].default)


@pytest.mark.parametrize("axis", [axis for axis in TIMING_AXES.values() if axis.part != "machine"])
@pytest.mark.parametrize(("command", "sweep"), [("profile", False), ("sweep", True)])
def test_an_axis_of_protocols_is_an_option(command: str, sweep: bool, axis: Axis) -> None:
    option = {option.name: option for option in _command(command).params}[axis.name]
    assert option.help == axis.said(many=sweep)
    if sweep or axis.default is None:
        assert option.default is None
    else:
        assert str(option.default) == str(axis.default)


@_every
def test_an_axis_says_what_it_is(axis: Axis) -> None:
    assert axis.meaning
    assert axis.said(many=True).endswith(".")
    if axis.of_point:
        assert axis.said().endswith(".")
        assert axis.heading
        assert COLUMNS[axis.name].label
        assert COLUMNS[axis.name].say(3)


@_every
@pytest.mark.parametrize("command", [*OF_POINT, *OF_GRID])
def test_an_axis_is_an_option(command: str, axis: Axis) -> None:
    options = {option.name: option for option in _command(command).params}
    many = command in OF_GRID
    if not many and (not axis.of_point or (command, axis.name) == ("train", "num_classes")):
        assert axis.name not in options
        return
    option = options[axis.name]
    assert option.opts == [f"--{axis.name.replace('_', '-')}"]
    if (command, axis.name) != ("export-onnx", "backbone"):
        assert option.help == axis.said(many)
    if axis.names:
        found = [item.value for item in option.shell_complete(None, "")]
        assert found == list(axis.names)
        first, *others = axis.names
        after = [item.value for item in option.shell_complete(None, f"{first},")]
        assert after == ([f"{first},{name}" for name in others] if many else [])


@pytest.mark.parametrize("axis", ["temperature", "experts"])
def test_no_other_file_lists_axes(axis: str) -> None:
    """Of the package itself: an axis is named in its entry, in methods' entries and in what reads it."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, field, None) for field in ("value", "arg", "id")]
            if axis in [name for name in names if isinstance(name, str)]:
                found.add(path.relative_to(PACKAGE).as_posix())
    declared = {"design/axes.py", "design/axis_types.py", "design/methods.py"}
    # CondConv's published networks and start are about its experts.
    published = {"design/published_accuracy.py", "models/published_start.py", "report/published_order.py"}
    declared |= published if axis == "experts" else set()
    assert {path for path in found if not path.startswith("nn/")} <= declared


def _fields(made: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(made)}


@cache
def _command(name: str) -> Any:
    return get_command(app).commands[name]  # type: ignore[attr-defined]
