"""Optuna's study in a run directory: where it is, and what is wrong with it in one line."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wnexplore.errors import InputError, RunError, shown

if TYPE_CHECKING:
    import optuna

STUDY = "study.db"
"""Optuna's storage in a run directory, an SQLite file of numbers and JSON."""


def storage(directory: Path) -> optuna.storages.RDBStorage:
    """The storage of a run directory, whose name may have what would mean something else in an address."""
    import optuna

    path = directory.absolute() / STUDY

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    # The address says only that this is SQLite: what connects knows the path.
    return optuna.storages.RDBStorage(f"sqlite:///{STUDY}", engine_kwargs={"creator": connect})


def dashboard(directory: Path) -> str:
    """The command that shows the study; empty for a path that can't stand in an address."""
    path = str(directory / STUDY)
    return "" if set("?%#{}") & set(path) else f"optuna-dashboard {shlex.quote(f'sqlite:///{path}')}"


def damaged_study(path: Path, reason: str) -> InputError:
    """That the study in the file `path` can't be used, and what to do."""
    return InputError(
        f"{shown(path, 4096)} is damaged: {reason}; without it the search begins again, and measures nothing"
        " again that it has records of"
    )


@contextmanager
def translate_study_errors(path: Path) -> Iterator[None]:
    """Say in one line what Optuna and SQLite have to say about the study in the file `path`."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        causes = [error, *_causes(error)]
        database = next((cause for cause in causes if isinstance(cause, sqlite3.Error)), causes[-1])
        reason = shown(database)
        if isinstance(database, sqlite3.OperationalError):
            if "full" in reason or "disk I/O" in reason:
                raise RunError(
                    f"can't write {shown(path, 4096)}: {reason}; what was committed before is kept"
                ) from None
            if "locked" in reason or "unable to open" in reason or "readonly" in reason:
                raise InputError(f"can't open {shown(path, 4096)}: {reason}") from None
        raise damaged_study(path, reason) from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error comes from, the nearest first."""
    # SQLAlchemy's has SQLite's as `orig`.
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        yield cause
        error = cause
