"""The options that several commands share, and lists as people type them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wnexplore.design.methods import METHODS, methods_with

if TYPE_CHECKING:
    from wnexplore.design.point import DesignPoint
    from wnexplore.design.protocol import LatencySpec
    from wnexplore.design.sweep_file import Overrides


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names as a sentence has them: "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Run directory of a sweep.")]
Where = Annotated[
    str | None,
    typer.Option(help="Only rows for which this holds, such as \"params<3e6 and method=='weightnet'\"."),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Go on without damaged records, and say how many there are.")
]
Sort = Annotated[str | None, typer.Option(help="Column to sort by; -top1 for the largest first.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Pareto-optimal by the values alone, whatever their intervals.")
]
Out = Annotated[Path | None, typer.Option(help="File to write; standard output if left out.")]

CheckpointFile = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Weights with their origin.")]
NamedBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="FILE.py:FUNCTION",
        help="The network's Python file, if it is in one: a checkpoint alone never runs any.",
    ),
]

# The data set of trainings.
DataText = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set: digits, shapes[:CLASSES[xIMAGES]], cifar10:DIR, cifar100:DIR, fashion_mnist:DIR or"
        " folder:DIR (DIR/train and DIR/val by class).",
    ),
]
DataPath = Annotated[str | None, typer.Option(help="Folder of the data set, where --data doesn't say it.")]
Download = Annotated[
    bool | None,
    typer.Option(
        "--download", help="Fetch cifar10, cifar100 or fashion_mnist into its folder, if not there."
    ),
]

# The axes of one design point.
Backbone = Annotated[
    str,
    typer.Option(
        help="Backbone, such as shufflenet_v2_x0_5; timm:NAME, torchvision:NAME or file.py:function."
    ),
]
Method = Annotated[str, typer.Option(help=f"{listed(METHODS, 'or')}.", autocompletion=lambda: list(METHODS))]
MofOne = Annotated[
    str | None, typer.Option("--M", help="M of weightnet: 2, 1/48, 4/C or 2:1+3:2+4:8; 2 if left out.")
]
GofOne = Annotated[str | None, typer.Option("--G", help="G of weightnet, as M; 2 if left out.")]
StagesOfOne = Annotated[
    str | None, typer.Option("--stages", help="Stages with the method: 3+4; all if left out.")
]
Experts = Annotated[int | None, typer.Option(help=f"Experts of {listed(methods_with('experts'))}.")]
Temperature = Annotated[
    int | None, typer.Option(help=f"Temperature of the attention of {listed(methods_with('temperature'))}.")
]
Stem = Annotated[str, typer.Option(help="imagenet, or small for 32x32 images.")]
Resolution = Annotated[int | None, typer.Option(help="Image size in pixels.")]
NumClasses = Annotated[int, typer.Option(help="Number of classes.")]
Reduction = Annotated[int | None, typer.Option(help="Reduction of the context.")]
Activation = Annotated[str | None, typer.Option(help="sigmoid, hard_sigmoid, tanh, softmax or identity.")]
Depthwise = Annotated[
    str | None, typer.Option(help="Depthwise layers of weightnet: published (M/G, 1), plain or full.")
]


def legal_point(given: Mapping[str, Any]) -> DesignPoint:
    """The design point that a command's parameters `given` say, one for each axis and maybe others.

    Raises `InputError` if there is no such point.
    """
    from wnexplore.design.external_names import is_brought
    from wnexplore.design.legality import check_legal
    from wnexplore.design.point import AXES, DesignPoint
    from wnexplore.design.size_limits import check_fits

    point = DesignPoint.of(**{axis: given[axis] for axis in AXES})
    # The layers of a network that was brought are seen when it is built.
    if not is_brought(point.backbone):
        check_legal(point)
    check_fits(point)
    return point


def latency_spec(asked: Mapping[str, Any]) -> LatencySpec:
    """What latency to measure: `asked` has fields of `LatencySpec`, from options named after them.

    Raises `InputError` naming the option of a wrong value.
    """
    from wnexplore.design.sweep_file import load_sweep

    options = {"batch_sizes", "dtypes", "runtimes", "memory_formats", "caches", "modes"}
    overrides: Overrides = {
        ("latency", name): (
            f"--{(name.removesuffix('s') if name in options else name).replace('_', '-')}",
            value,
        )
        for name, value in asked.items()
    }
    spec = load_sweep(None, overrides).latency
    assert spec is not None
    return spec


def comma_list(text: str) -> list[str]:
    """The values of a comma-separated option: "1, 2,4" -> ["1", "2", "4"]; empty text -> []."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def program() -> list[str]:
    """How this program was called."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return ["python", "-m", "wnexplore"]
    return ["wnexplore"] if shutil.which("wnexplore") == called else [called]
