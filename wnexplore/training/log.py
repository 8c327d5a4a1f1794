"""The log of a training: log.csv, and TensorBoard's files if that is installed."""

from __future__ import annotations

import csv
import io
import threading
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wnexplore.errors import InputError, WnexploreError
from wnexplore.files import translate_errors, write_all, write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE_NAME = "log.csv"


@dataclass(frozen=True)
class Row:
    """The progress of a training since the previous row."""

    step: int
    epoch: float
    lr: float
    """Learning rate of the next step, except that of kernels."""
    loss: float
    """Mean over the steps since the previous row, in nats."""
    images_per_second: float
    """Images per second, without tests and saves."""
    seconds: float
    """Training time since the first step, without tests and saves."""
    test_loss: float | None = None
    top1: float | None = None
    """Test accuracy in percent; None in rows without a test."""
    top5: float | None = None
    ap: float | None = None
    """Of a detector: average precision in percent, and that at an intersection over union of 0.5."""
    ap50: float | None = None


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """The log of the training in `directory`, resumed at `step`: later rows are dropped.

    All methods raise `RunError`, naming the file, if the disk is full; `InputError` if it can't be written.
    """

    def __init__(self, directory: Path, step: int) -> None:
        path = directory / FILE_NAME
        self.rows = [row for row in read_log(directory) if row.step <= step] if path.exists() else []
        write_atomically(path, _text(self.rows, head=True).encode())
        self._path, self._folder = path, directory / "tensorboard"
        with translate_errors(path):
            # Unbuffered: a failed write isn't repeated when the file is closed.
            self._file = path.open("ab", buffering=0)
        # TensorBoard writes in a thread, whose errors `write` raises here later.
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread
        with translate_errors(self._folder):
            self._board = _board(self._folder, step)

    def write(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        with translate_errors(self._path):
            write_all(self._file, _text([row]).encode())
        if self._board is None:
            return
        with translate_errors(self._folder):
            figures = {name: value for name, value in asdict(row).items() if value is not None}
            for name, value in figures.items():
                if name != "step":
                    self._board.add_scalar(name, value, row.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        try:
            if self._board is not None:
                with translate_errors(self._folder):
                    self._board.close()
        except WnexploreError:
            # Report the error that ended the training, not a failed write after it.
            if error is None:
                raise
        finally:
            threading.excepthook = self._hook

    def _on_thread(self, failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            self._hook(failure)


def read_log(directory: Path) -> list[Row]:
    """The rows of the log in a run directory, without a truncated last line.

    Raises `InputError` if there is none or it is invalid.
    """
    path = directory / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [_row(found) for found in csv.DictReader(lines)]
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} is not the log of a training") from None


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed."""
    return find_spec("tensorboard") is not None


def _board(folder: Path, step: int) -> SummaryWriter | None:
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    # Hides rows that a lost run wrote after this step.
    return SummaryWriter(str(folder), purge_step=step + 1)


_NAMES = [field.name for field in fields(Row)]
_LATER = ("ap", "ap50")


def _text(rows: list[Row], head: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _NAMES, lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _row(found: dict[str, Any]) -> Row:
    # Older logs lack the last columns.
    found = dict.fromkeys(_LATER, "") | found
    numbers = {name: None if found[name] == "" else float(found[name]) for name in _NAMES[1:]}
    return Row(int(found["step"]), **numbers)  # type: ignore[arg-type]
