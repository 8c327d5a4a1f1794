"""The table of methods: that its entries fit their layers, and that nothing else lists methods."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import wnexplore
from wnexplore.design.methods import METHODS, MethodSpec, methods_with
from wnexplore.design.stage_design import StageDesign
from wnexplore.models.method_layers import layer_class, layer_spec
from wnexplore.nn import Gate, GeneratedConv2d, MethodConv2d
from wnexplore.report.roofline_figure import KINDS

PACKAGE = Path(wnexplore.__file__).parent


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_entry_fits_its_layer(method: MethodSpec) -> None:
    axes = {field.name for field in dataclasses.fields(StageDesign)} - {"method"} | {"stages"}
    assert set(method.axes) <= axes
    assert len(set(method.axes)) == len(method.axes)
    if method.kind == "plain":
        assert method.layer == ""
        return
    layer = layer_class(method.layer)
    assert issubclass(layer, Gate) == (method.kind == "gate")
    assert issubclass(layer, GeneratedConv2d) == (method.kind == "generated")
    assert issubclass(layer, MethodConv2d) == (method.kind != "gate")
    assert layer.__name__ == method.layer_class
    # The axes that are no matter of the layer's alone are weightnet's.
    taken = set(inspect.signature(layer).parameters)
    assert set(method.axes) - {"stages", "depthwise"} <= taken
    made = layer(8) if method.kind == "gate" else layer(8, 8, 3)
    assert layer_spec(made) is method
    assert method.source[1] in (sys.modules[layer.__module__].__doc__ or ""), "its file names its paper"
    assert method.layer_kind is None or method.layer_kind in KINDS


def test_what_is_no_methods_layer_has_no_entry() -> None:
    class SqueezeExcite(nn.Module):
        """As a network of one's own may name its own."""

    assert layer_spec(nn.Conv2d(3, 3, 1)) is None
    assert layer_spec(SqueezeExcite()) is None


def test_figures_tell_methods_apart() -> None:
    for looks in ([spec.look for spec in METHODS.values()], [spec.label for spec in METHODS.values()]):
        known = [look for look in looks if look is not None]
        assert len(set(known)) == len(known)
    assert [name for name, spec in METHODS.items() if name != spec.name] == []


def test_who_reads_an_axis() -> None:
    assert methods_with("M") == methods_with("G") == ("weightnet",)
    assert methods_with("stages") == tuple(name for name in METHODS if name != "plain")


def test_no_other_file_lists_methods() -> None:
    """Of the package itself: a name of a method is written in its entry, and where it is a default."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in METHODS:
                found.add((path.relative_to(PACKAGE).as_posix(), node.value))
    others = {(path, name) for path, name in found if path != "design/methods.py"}
    assert {name for _, name in others} <= {"plain", "weightnet"}, others


def test_the_command_line_lists_them() -> None:
    message = subprocess.run(
        [sys.executable, "-m", "wnexplore", "space", "--help"], check=True, capture_output=True, text=True
    ).stdout
    *others, last = METHODS
    assert f"{', '.join(others)} and {last}." in " ".join(message.split())
