"""Standard output whose errors can be told from those of files."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

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


def separate_output_errors() -> None:
    """Have `sys.stdout` raise `OutputError`, and `sys.stderr` nothing: what can't be told ends no work.

    Where somebody has put another stream in the place of one, it stays.
    """
    _open_closed()
    if sys.stdout is sys.__stdout__:
        # A file's name may hold bytes that are no text: they are printed as they are.
        sys.stdout = _instead(sys.__stdout__, 1, _Output, {"strict": "surrogateescape"})
    if sys.stderr is sys.__stderr__:
        sys.stderr = _instead(sys.__stderr__, 2, _Told, {})


def drop_output() -> None:
    """Send what is left to be printed nowhere: the interpreter would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: object) -> None:
    """One line on standard output, with escapes for what a terminal would obey in it."""
    typer.echo(one_line(str(line)))


def notify(line: object) -> None:
    """As `say`, on standard error: what is about the run, not of its results."""
    typer.echo(one_line(str(line)), err=True)


def named_damaged(path: str, why: Mapping[str, str]) -> str:
    """An image that can't be read, and why, where that is known."""
    return f"{shown(path, 4096)}: {shown(why[path], 300)}" if path in why else shown(path, 4096)


def _open_closed() -> None:
    """Open what a caller has closed of standard input, output and error, so that no file takes its number.

    Nothing is read, told errors go nowhere, and output can't be written.
    """
    for descriptor, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)


def _instead(stream: TextIO | None, number: int, kind: type[io.FileIO], errors: Mapping[str, str]) -> TextIO:
    """`stream`, which Python makes of the descriptor `number`, with another way to write."""
    if stream is None:  # closed when Python began
        stream = io.TextIOWrapper(io.FileIO(number, "wb", closefd=False), encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
        stream.flush()
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(kind(descriptor, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=errors.get(stream.errors or "strict", stream.errors),
        line_buffering=stream.line_buffering,
    )


class _Told(io.FileIO):
    """Standard error, whose reader or terminal may have gone."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            written = super().write(data)
            if written:
                return written
        return len(memoryview(data).cast("B"))


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from None
