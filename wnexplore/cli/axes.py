"""The options of a sweep's axes, which several commands share, and how they override a sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wnexplore.cli.options import comma_list, listed
from wnexplore.design.methods import METHODS, methods_with
from wnexplore.errors import InputError

if TYPE_CHECKING:
    from wnexplore.design.sweep_file import Overrides, SweepSpec


def _next_method(incomplete: str) -> list[str]:
    """What a comma-separated list of methods may go on with."""
    before = incomplete.rpartition(",")[0]
    return [f"{before},{name}" if before else name for name in METHODS if name not in comma_list(before)]


Backbones = Annotated[
    str | None,
    typer.Option(help="Backbones, comma-separated; timm:NAME, torchvision:NAME, file.py:function."),
]
Widths = Annotated[str | None, typer.Option(help="Widths of families such as shufflenet_v2.")]
Methods = Annotated[
    str | None,
    typer.Option(help=f"Methods, comma-separated: {listed(METHODS)}.", autocompletion=_next_method),
]
Ms = Annotated[
    str | None, typer.Option("--M", help="Values of M: 1,2,4 or 1/2, 4/C, or by stage 2:1+3:2+4:8.")
]
Gs = Annotated[str | None, typer.Option("--G", help="Values of G, as of M.")]
PerStage = Annotated[bool | None, typer.Option("--per-stage", help="Cross M and G in each stage by itself.")]
StageChoices = Annotated[str | None, typer.Option(help="Stages with the method: 3+4,4 for two choices.")]
ExpertCounts = Annotated[
    str | None, typer.Option(help=f"Numbers of experts of {listed(methods_with('experts'))}.")
]
Temperatures = Annotated[
    str | None, typer.Option(help=f"Temperatures of {listed(methods_with('temperature'))}.")
]
Stems = Annotated[str | None, typer.Option(help="Stems: imagenet, small (for 32x32 images).")]
Resolutions = Annotated[str | None, typer.Option(help="Image sizes in pixels.")]
ClassCounts = Annotated[str | None, typer.Option(help="Numbers of classes.")]
Reductions = Annotated[str | None, typer.Option(help="Reductions of the context.")]
Activations = Annotated[
    str | None, typer.Option(help="Activations: sigmoid,hard_sigmoid,tanh,softmax,identity.")
]
DepthwiseChoices = Annotated[
    str | None, typer.Option(help="Depthwise layers of weightnet: published,plain,full.")
]
PointsWhere = Annotated[
    str | None,
    typer.Option(help='What points must satisfy: "params < 2.5M and flops < 150M and latency_ratio < 1.2".'),
]

AXIS_PLACES: dict[str, tuple[str, ...]] = {
    "backbone": ("backbones",),
    "method": ("methods",),
    **{axis: (axis,) for axis in ("width", "M", "G", "per_stage", "stages", "experts", "temperature")},
    **{axis: (axis,) for axis in ("stem", "resolution", "num_classes", "reduction", "activation")},
    **{axis: (axis,) for axis in ("depthwise", "where")},
}
"""Parameter of a command -> what it sets in the sweep file."""


def overrides_of(given: Mapping[str, Any], places: Mapping[str, tuple[str, ...]] = AXIS_PLACES) -> Overrides:
    """What a command's parameters `given` override in its sweep file, those left out apart."""
    overrides: dict[tuple[str, ...], tuple[str, Any]] = {}
    for name, path in places.items():
        value = given[name]
        if value is None:
            continue
        lists = path != ("where",) and (len(path) == 1 or path[0] == "latency")
        option = f"--{name.replace('_', '-')}"
        overrides[path] = (option, comma_list(value) if lists and isinstance(value, str) else value)
    if ("backbones",) in overrides:
        # A grid of one's own, in place of a file's written points.
        overrides[("points",)] = ("--backbone", None)
    return overrides


def refuse_axes_beside_points(spec: SweepSpec, overrides: Overrides) -> None:
    """An axis given as an option changes a grid; it can't change points that are written one by one."""
    from wnexplore.design.sweep_file import NO_AXES

    axes = [option for path, (option, _) in overrides.items() if path[0] not in NO_AXES]
    if spec.points is not None and axes:
        raise InputError(f"this sweep lists its points one by one: {axes[0]} needs --backbone, for a grid")
