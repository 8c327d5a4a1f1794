"""The options that several commands share, and comma-separated lists."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Run directory of a sweep.")]
Where = Annotated[
    str | None,
    typer.Option(help="Only rows for which this holds, such as \"params<3e6 and method=='weightnet'\"."),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Continue without damaged records, and report their number.")
]
Sort = Annotated[str | None, typer.Option(help="Column to sort by; -top1 for the largest first.")]
SpaceFile = Annotated[
    str | None,
    typer.Option(
        "--space",
        metavar="FILE_OR_NAME",
        help="Sweep file whose points are added with the latencies that this run predicts.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Pareto-optimal by values only, ignoring intervals.")]
Out = Annotated[Path | None, typer.Option(help="File to write; by default standard output.")]

CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Weights with metadata, from wnexplore train.")
]
NamedBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="FILE.py:FUNCTION",
        help="The network's Python file, if it has one: a checkpoint alone never runs code.",
    ),
]

# The data set of trainings.
DataText = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set: digits, shapes[:CLASSES[xIMAGES][:DRAWING]] (coarse, fine, superclasses), "
        "cifar10:DIR, cifar100:DIR, fashion_mnist:DIR or folder:DIR (DIR/train and DIR/val by class).",
    ),
]
DataPath = Annotated[str | None, typer.Option(help="Folder of the data set, if not in --data.")]
Download = Annotated[
    bool | None,
    typer.Option(
        "--download", help="Download cifar10, cifar100 or fashion_mnist into its folder if missing."
    ),
]


def comma_list(text: str) -> list[str]:
    """The values of a comma-separated option: "1, 2,4" -> ["1", "2", "4"]; empty text -> []."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def program() -> list[str]:
    """How this program was called."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return ["python", "-m", "wnexplore"]
    return ["wnexplore"] if shutil.which("wnexplore") == called else [called]
