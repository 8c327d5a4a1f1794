"""The options that several commands share, and lists as people type them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Run directory of a sweep.")]
Where = Annotated[
    str | None,
    typer.Option(help="Only rows for which this holds, such as \"params<3e6 and method=='weightnet'\"."),
]
Sort = Annotated[str | None, typer.Option(help="Column to sort by; -top1 for the largest first.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Pareto-optimal by the values alone, whatever their intervals.")
]
Out = Annotated[Path | None, typer.Option(help="File to write; standard output if left out.")]


def comma_list(text: str) -> list[str]:
    """The values of a comma-separated option: "1, 2,4" -> ["1", "2", "4"]; empty text -> []."""
    return [part.strip() for part in text.split(",")] if text.strip() else []
