"""The tables of sweeps/README.md, from what they list: python -m tests.reference writes them anew."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from typer.main import get_command

from wnexplore.cli import app
from wnexplore.design.axes import DESIGN_AXES
from wnexplore.design.methods import METHODS
from wnexplore.design.protocol import LatencySpec, Recipe, TrainSpec
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.results.columns import COLUMNS

PAGE = Path(__file__).parents[1] / "sweeps" / "README.md"


def main() -> None:
    """Write the tables into the page, between the comments that name them."""
    PAGE.write_text(written_anew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def written_anew(page: str) -> str:
    """`page` with each of its tables as the code has it now."""
    for name, table in _tables().items():
        before, begins, rest = page.partition(f"<!-- {name} -->\n")
        assert begins, f"sweeps/README.md has no place for the table of {name}"
        page = before + begins + table + rest[rest.index("<!-- end -->") :]
    return page


def _tables() -> dict[str, str]:
    return {
        "axes": _fields(SweepSpec),
        "latency": _fields(LatencySpec),
        "train": _fields(Recipe, TrainSpec),
        "methods": _table(
            ("method", "what it does", "reads", "source"),
            (
                (
                    f"`{m.name}`",
                    m.summary,
                    ", ".join(m.axes),
                    f"[{m.source[0]}]({m.source[1]})" if m.layer else "",
                )
                for m in METHODS.values()
            ),
        ),
        "columns": _table(
            ("column", "what it is", "better"),
            ((f"`{c.name}`", c.label, c.better or "") for c in COLUMNS.values()),
        ),
        "commands": _table(("command", "what it does"), _commands()),
    }


def _commands() -> Iterable[tuple[str, str]]:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        yield f"`wnexplore {name}`", (command.help or "").strip().splitlines()[0]


_NAMES = {axis.sweep_key: axis.names for axis in DESIGN_AXES.values()}


def _fields(*specs: type[BaseModel]) -> str:
    rows: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        meanings = _docstrings(spec)
        for name, field in spec.model_fields.items():
            choices = _choices(field.annotation) or _NAMES.get(name, ())
            said = [meanings.get(name, field.description or ""), ", ".join(choices)]
            rows.setdefault(name, (f"`{name}`", _plain(field.default), " ".join(filter(None, said))))
    return _table(("field", "default", "what it is"), rows.values())


def _docstrings(spec: type[BaseModel]) -> dict[str, str]:
    """Field -> the text below it."""
    (written,) = ast.parse(inspect.getsource(spec)).body
    assert isinstance(written, ast.ClassDef)
    found = {}
    for field, text in zip(written.body, written.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(text.value, ast.Constant)
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next(filter(None, map(_choices, get_args(annotation))), ())


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
