"""The sweep files and the published figures that ship with the package."""

from __future__ import annotations

from pathlib import Path

from wnexplore.errors import InputError, shown, unknown


def find_sweep(name: str) -> Path:
    """The sweep file `name`: a path, or the name of a shipped sweep.

    Raises `InputError` with the nearest shipped name if there is neither.
    """
    path = Path(name)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError) as error:  # a name that is too long, or with a NUL
        reason = getattr(error, "strerror", None) or "it is not a file name"
        raise InputError(f"no sweep file at {shown(name)}: {reason}") from None
    shipped = shipped_sweeps()
    if name in shipped:
        return shipped[name]
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"no sweep file at {shown(name)}; shipped sweeps: {', '.join(shipped)}")
    raise unknown("sweep", name, shipped)


def shipped_sweeps() -> dict[str, Path]:
    """Name -> file of every sweep that ships with wnexplore."""
    return {path.stem: path for path in sorted(_folder().glob("*.yaml"))}


def published_table() -> Path:
    """The CSV of published figures."""
    return _folder() / "published.csv"


def published_figure() -> Path:
    """The CSV of accuracies read off the paper's figure."""
    return _folder() / "published_figure.csv"


def _folder() -> Path:
    package = Path(__file__).parents[1]
    # A wheel has the folder inside the package; a checkout has it next to the package.
    inside = package / "sweeps"
    return inside if inside.is_dir() else package.parent / "sweeps"
