"""Saves figures, reproducibly, and checks their paths beforehand."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wnexplore.errors import InputError
from wnexplore.files import check_writable, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wnexplore.report.panels import FigureInfo

_DPI = 200
"""Dots per inch of a .png."""

# Metadata that would change a file each time.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def check_figure_path(path: str | os.PathLike[str]) -> None:
    """Raise the `InputError` that `save` would, before anything is drawn.

    Loads no matplotlib.
    """
    _suffix(path)
    check_writable(path)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` atomically to `path`: .png (200 dpi), .svg or .pdf, the same bytes every time.

    Raises `InputError` for another suffix or a path that can't be written, `RunError` for a full disk.
    """
    write_atomically(path, _file(figure, _suffix(path)))


def drawn(info: FigureInfo, suffix: str) -> bytes:
    """The file of the figure that `info` describes, as `save` writes it; `suffix` is .png, .svg or .pdf."""
    from wnexplore.report.panels import render

    return _file(render(info), suffix)


def _file(figure: Figure, suffix: str) -> bytes:
    import matplotlib

    from wnexplore.report.panels import STYLE

    data = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(data, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix])
    return data.getvalue()


def _suffix(path: str | os.PathLike[str]) -> str:
    """The suffix .png, .svg or .pdf of a file name in lower case; `InputError` for another one."""
    suffix = Path(path).suffix.lower()
    if suffix not in _METADATA:
        raise InputError(
            f"can't save a figure as {os.fspath(path)!r}: its name must end in .png, .svg or .pdf"
        )
    return suffix
