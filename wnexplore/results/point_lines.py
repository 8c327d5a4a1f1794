"""The lines that build or profile the network of a design point."""

from __future__ import annotations

import json
import shlex

from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint


def build_line(point: DesignPoint) -> str:
    """A line of Python that builds the network of `point`: M and G, and all axes not at their defaults."""
    shown = [json.dumps(point.backbone, ensure_ascii=False)]
    for axis, value in _given(point):
        text = json.dumps(value, ensure_ascii=False)
        shown.append(text if axis == "method" else f"{axis}={text}")
    return f"wnexplore.build({', '.join(shown)})"


def profile_line(point: DesignPoint) -> str:
    """A command line that profiles the network of `point`: the axes that `build_line` gives."""
    words = ["wnexplore", "profile", f"--backbone={point.backbone}", f"--method={point.method}"]
    words += [f"--{axis.replace('_', '-')}={value}" for axis, value in _given(point) if axis != "method"]
    return shlex.join(words)


def _given(point: DesignPoint) -> list[tuple[str, str | int | None]]:
    """M and G, and all axes not at their defaults, without the backbone."""
    usual = DesignPoint.of(point.backbone, point.method, stem=point.stem).to_dict()
    usual |= {"method": "plain", "stem": "imagenet"}
    always = {"M", "G"} & set(METHODS[point.method].axes)
    return [
        (axis, value)
        for axis, value in point.to_dict().items()
        if axis != "backbone" and (axis in always or value != usual[axis])
    ]
