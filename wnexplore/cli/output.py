"""Standard output with errors that are distinct from those of files."""

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

    Not an `OSError`, which libraries in between handle in their own ways for a closed pipe.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.closed = error.errno == errno.EPIPE
        """Whether the reader closed the pipe."""
        self.reason = error.strerror


def separate_output_errors() -> None:
    """Make `sys.stdout` raise `OutputError`, and `sys.stderr` nothing: a failed message must not end the
    work.

    Streams that have been replaced stay.
    """
    _open_closed()
    if sys.stdout is sys.__stdout__:
        # File names may contain undecodable bytes: they are printed unchanged.
        sys.stdout = _instead(sys.__stdout__, 1, _Output, {"strict": "surrogateescape"})
    if sys.stderr is sys.__stderr__:
        sys.stderr = _instead(sys.__stderr__, 2, _ErrorStream, {})


def drop_output() -> None:
    """Discard remaining output: the interpreter would flush it again on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: object) -> None:
    """Print a line to standard output, with control characters escaped."""
    typer.echo(one_line(str(line)))


def notify(line: object) -> None:
    """Print a line to standard error: messages about the run, not its results."""
    typer.echo(one_line(str(line)), err=True)


def named_damaged(path: str, why: Mapping[str, str]) -> str:
    """An image that can't be read, with the reason if known."""
    return f"{shown(path, 4096)}: {shown(why[path], 300)}" if path in why else shown(path, 4096)


def _open_closed() -> None:
    """Open closed standard streams, so that no file gets their descriptors.

    Input is empty, errors are discarded, and output can't be written.
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
    """`stream` of the descriptor `number` with another raw file class."""
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


class _ErrorStream(io.FileIO):
    """Standard error, whose reader or terminal may be gone."""

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
