"""A second process that draws figures, while this one describes the next or draws others."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wnexplore.report.panels import FigureInfo

WORTH = 20_000
"""Fewest records worth the start of a process, which imports for a second, beside the making of the frame."""


class SecondProcess:
    """Draws figures for this process, as it does itself. It ends when this one does, however that ends."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        # In a session of its own, a terminal's signals don't reach it: this process ends it.
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks, self._files = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def draw(self, info: FigureInfo, suffix: str) -> bytes | None:
        """What `attempt` returns there; None too once the process is gone."""
        task = _packed((info, suffix))
        try:
            self._tasks.write(task)
            self._tasks.flush()
            file: bytes | None = pickle.load(self._files)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # it died, or was ended
            return None
        return file

    def end(self) -> None:
        """End it at once, whatever it is drawing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._tasks, self._files):
            with suppress(OSError):
                pipe.close()


@contextmanager
def second_process(records: int) -> Iterator[SecondProcess | None]:
    """A second process to show so many records with, until the end of the block.

    None for fewer than `WORTH`, where only one core may be used, or if no process can be started.
    """
    found = None
    if records >= WORTH and _cores() > 1:
        with suppress(OSError):
            found = SecondProcess()
    try:
        yield found
    finally:
        if found is not None:
            found.end()


def attempt(info: FigureInfo, suffix: str) -> bytes | None:
    """The file of a figure; None where drawing it fails or warns."""
    from wnexplore.report.figure_files import drawn

    try:
        with warnings.catch_warnings(record=True) as said:
            file = drawn(info, suffix)
    except Exception:  # it will be raised where the figure is drawn in its turn
        return None
    return None if said else file


def serve() -> None:
    """Draw what comes on standard input until it ends: the second process."""
    # Whatever writes to standard output must not come between the files.
    files = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import wnexplore.report.figures  # noqa: F401  the kinds of panels, before the first one is there

    gc.freeze()
    with suppress(EOFError, OSError):
        while True:
            info, suffix = pickle.load(sys.stdin.buffer)
            files.write(_packed(attempt(info, suffix)))
            files.flush()


def _packed(content: object) -> bytes:
    return pickle.dumps(content, pickle.HIGHEST_PROTOCOL)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
