"""Commands in processes of their own that start cheaply: forked from one that has loaded torch already.

For tests that stop a command, or run it again after that. What Python's start-up or the environment does to a
command is tested with processes of Python's own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import wnexplore

_PRELOADED = (
    *("wnexplore.cli.show", "wnexplore.study.sweep", "wnexplore.training.full_training"),
    *("wnexplore.models.external", "wnexplore.models.trace_skeleton", "wnexplore.report.figures"),
    # What these import where they need it.
    *("optuna", "pyarrow", "scipy.stats", "sklearn.datasets", "torch._dynamo", "torchvision.models"),
)


class Running:
    """A command under way, as `subprocess.Popen` has it."""

    def __init__(self, process: BaseProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.pid = process.pid or 0

    def poll(self) -> int | None:
        """The exit code, a signal's number negated, or None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """The exit code, once it has ended."""
        self._process.join()
        return self._process.exitcode or 0

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """End it at once; the exit code."""
        self.send_signal(signal.SIGKILL)
        return self.wait()

    @property
    def out(self) -> str:
        """What it wrote to standard output so far."""
        return (self._folder / "1").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return (self._folder / "2").read_text(encoding="utf-8")


@contextmanager
def started(
    *arguments: object, environment: Mapping[str, str] | None = None, session: bool = False
) -> Iterator[Running]:
    """`wnexplore ARGUMENTS`, killed at the end if it still runs; `session`: in a group of processes of its
    own."""
    texts = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        process = _context().Process(target=_main, args=(texts, folder, dict(environment or {}), session))
        for number in (1, 2):
            (Path(folder) / str(number)).touch()
        process.start()
        running = Running(process, Path(folder))
        try:
            yield running
        finally:
            running.kill()


def ended(*arguments: object) -> tuple[str, str]:
    """Run `wnexplore ARGUMENTS` to its end; its standard output and error. Fails if its exit code isn't 0."""
    with started(*arguments) as running:
        assert running.wait() == 0, running.err
        return running.out, running.err


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _main(arguments: list[str], folder: str, environment: dict[str, str], session: bool) -> None:
    if session:
        os.setsid()
    os.environ.update(environment)
    for number in (1, 2):
        os.dup2(os.open(f"{folder}/{number}", os.O_WRONLY | os.O_APPEND), number)
    # Whoever runs the tests may ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)
    # Of its own processes, too: it inherits the way that it was started in.
    multiprocessing.set_start_method(None, force=True)
    # As `python -m wnexplore` has it, which the line that says how to resume repeats.
    sys.argv = [str(Path(wnexplore.__file__).with_name("__main__.py")), *arguments]
    from wnexplore.cli import main

    main(arguments)
