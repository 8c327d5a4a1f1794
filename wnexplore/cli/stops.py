"""Ctrl-C, SIGTERM and SIGHUP: all commands end the same way, with a line that says how to resume."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from wnexplore.cli.options import program
from wnexplore.cli.output import notify
from wnexplore.errors import STOPS

STOPPED = 130
"""The exit code of a command that was stopped."""


@contextmanager
def stops_raised() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise `KeyboardInterrupt` inside, like Ctrl-C.

    Signals that the caller ignores (nohup) stay ignored. A second SIGTERM ends the process at once; a second
    SIGHUP, which a shell sends when its terminal is closed, is ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set signal handlers.
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS if number != signal.SIGINT}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def stop(number: int, frame: FrameType | None) -> None:
        for signal_number in before:
            signal.signal(
                signal_number, signal.SIG_DFL if signal_number == signal.SIGTERM else signal.SIG_IGN
            )
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resumable(kept: Callable[[], str]) -> Iterator[None]:
    """End the command if it is stopped inside, with a line on what is `kept` and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        notify(f"stopped: {kept()}; to resume: {called()}")
        raise typer.Exit(STOPPED) from None


def called() -> str:
    """The command as it was given, for a shell."""
    return shlex.join([*program(), *sys.argv[1:]])
