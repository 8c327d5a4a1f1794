"""Worker processes that read image files: how they start and end, and the tally of what can't be read."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wnexplore.errors import STOPS, RunError, shown
from wnexplore.measure.environment import usable_cores


def read_by_workers(
    files: Dataset[Any],
    batches: Iterable[Tensor],
    collate: Callable[[list[Any]], Any],
    *,
    world: int,
    of: str = "",
    pinned: bool = False,
) -> Iterator[Any]:
    """What `collate` makes of each of `batches` (indices) of `files`, read by worker processes.

    Each of the `world` processes of a training has its share of the machine's cores. Raises `RunError`, which
    says `of` what the images are, if a worker ends or memory runs out.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # set by torchrun: processes on this machine
    loader = DataLoader(
        files,
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=min(_MOST_WORKERS, max(1, usable_cores() // here)),
        collate_fn=collate,
        worker_init_fn=_outlive_interrupts,
        pin_memory=pinned,
        # torch draws a seed for the workers, which don't use it: not from the global generator.
        generator=torch.Generator(),
    )
    try:
        yield from _started(loader)
    except Exception as error:  # torch may raise anything, as may the pipe of a dead worker
        # A worker's error arrives as the text of its traceback, whose last line is the message.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = lines[-1] if "Traceback" in str(error) else lines[0]
        raise RunError(f"reading images{of} failed: {shown(why, 300)}") from None


def _outlive_interrupts(worker: int) -> None:
    """Let the main process decide when worker `worker` ends.

    Terminals and batch systems signal both: the main process may need the worker's images to finish the
    current step and save the training.
    """

    def end_later(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(_SECONDS_LEFT)

    for number in STOPS:
        signal.signal(number, end_later if number == signal.SIGTERM else signal.SIG_IGN)


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The iterator of `loader`, which reports a dead worker only when the next batch is requested.

    torch also installs a SIGCHLD handler, which raises at an arbitrary place in the main thread.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    iterator: Iterator[Any] = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return iterator


@dataclass
class Tally:
    """Counts of the images read so far."""

    seen: int = 0
    unread: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Path -> why it can't be read."""

    def add(self, read: int, damaged: list[tuple[str, str]]) -> None:
        self.seen += read + len(damaged)
        self.unread += len(damaged)
        for path, why in damaged:
            self.damaged.setdefault(path, why)
        if self.seen >= _ENOUGH_SEEN and self.unread > self.seen / 2:
            path, why = next(iter(self.damaged.items()))
            raise RunError(
                f"{self.unread} of {self.seen} images can't be read, the first of them"
                f" {shown(path, 300)}: {why}"
            )


_MOST_WORKERS = 16
_SECONDS_LEFT = 30
"""Seconds until a worker that got a signal ends in any case."""
_ENOUGH_SEEN = 20
"""Images before which the share of damaged ones isn't checked."""
