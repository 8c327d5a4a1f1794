"""User-facing errors, each with a one-line message."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import TextIO

STOPS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask a process to end: Ctrl-C, a batch system, a closed terminal."""


class WnexploreError(Exception):
    """An error with a message for the user (exit code 1)."""

    exit_code = 1


class InputError(WnexploreError, ValueError):
    """Bad input: the message says what, where, and what is expected (exit code 2)."""

    exit_code = 2


class RunError(WnexploreError, RuntimeError):
    """Valid input, but the work failed: disk full, out of memory (exit code 1)."""


class Notice(UserWarning):
    """A one-line warning about a run that continues."""


def print_notices(printed: Iterable[str] = ()) -> None:
    """From now on print each `Notice` like errors, on one line and once; other warnings as before.

    Those `printed` by the process that started this one are not printed again.
    """
    if not isinstance(warnings.showwarning, _Notices):
        warnings.showwarning = _Notices()
    warnings.showwarning.printed.update(printed)


def printed_notices() -> frozenset[str]:
    """The notices that this process has printed."""
    return frozenset(warnings.showwarning.printed if isinstance(warnings.showwarning, _Notices) else ())


def unknown(what: str, value: object, valid: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in a list, the nearest valid name first."""
    names = list(valid)
    given = shown(value)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"unknown {what} '{given}': {hint}choose from {', '.join(names)}")


def shown(value: object, limit: int = 120) -> str:
    """`value` for messages: at most `limit` characters, without control sequences.

    Control characters, lone surrogates and bidirectional overrides are escaped.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:  # an arbitrary object, or nested too deep to print
        text = f"<{type(value).__name__}, which can't be printed: {type(error).__name__}>"
    # Cut first: a value may have gigabytes.
    pieces: list[str] = []
    left = limit
    for c in text[:limit]:
        piece = c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        left -= len(piece)
        if left < 0:
            break
        pieces.append(piece)
    head, rest = "".join(pieces), len(text) - len(pieces)
    return head if not rest else f"{head}... ({rest} more characters)"


class _Notices:
    """Replaces `warnings.showwarning`."""

    def __init__(self) -> None:
        self._before = warnings.showwarning
        self.printed: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, Notice):
            self._before(message, category, filename, lineno, file, line)
            return
        text = shown(message, _LINE)
        # Python repeats a warning whenever a library has changed the filters.
        if text not in self.printed:
            self.printed.add(text)
            with suppress(OSError):
                print(f"wnexplore: {text}", file=sys.stderr)


_LINE = 2000
