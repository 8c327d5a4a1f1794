"""Ctrl-C, SIGTERM and SIGHUP: one way to end for all commands, and a line that says how to go on."""

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
    """Have SIGTERM and SIGHUP end what runs inside as Ctrl-C does: by a `KeyboardInterrupt`.

    One that the caller has ignored (nohup) stays ignored. After the first a second SIGTERM ends the process
    at once, and SIGHUP, which a shell sends once more when its terminal is closed, changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python lets no other thread say what a signal does.
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
def goes_on(kept: Callable[[], str]) -> Iterator[None]:
    """End the command if it is stopped inside, with a line of what is `kept` and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        notify(f"stopped: {kept()}; to go on: {called()}")
        raise typer.Exit(STOPPED) from None


def called() -> str:
    """The command as it was given, for a shell."""
    return shlex.join([*program(), *sys.argv[1:]])
