"""Standard output whose errors can be told from those of files."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

import typer

from wnexplore.errors import shown
from wnexplore.results.escape import one_line


class OutputError(Exception):
    """Standard output can't be written.

    No `OSError`: the libraries in between have ends of their own for a closed pipe.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.closed = error.errno == errno.EPIPE
        """Whether whoever read it has had enough of it."""
        self.reason = error.strerror


def tell_output_apart() -> None:
    """Have `sys.stdout` raise `OutputError`, unless somebody has put another stream in its place."""
    stream = sys.stdout
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper):
        return
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    stream.flush()
    # A file's name may hold bytes that are no text: they are printed as they are.
    errors = "surrogateescape" if stream.errors == "strict" else stream.errors
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
    )


def drop_output() -> None:
    """Send what is left to be printed nowhere: the interpreter would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: object) -> None:
    """One line on standard output, with escapes for what a terminal would obey in it."""
    typer.echo(one_line(str(line)))


def tell(line: object) -> None:
    """As `say`, on standard error: what is about the run, not of its results."""
    typer.echo(one_line(str(line)), err=True)


def named_damaged(path: str, why: Mapping[str, str]) -> str:
    """An image that can't be read, and why, where that is known."""
    return f"{shown(path, 4096)}: {why[path]}" if path in why else shown(path, 4096)


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from None
