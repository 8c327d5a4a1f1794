"""Optuna's study in a run directory: its storage, and its errors in one line."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wnexplore.errors import InputError, RunError, WnexploreError, shown

if TYPE_CHECKING:
    import optuna

STUDY = "study.db"
"""Optuna's storage in a run directory, an SQLite file of numbers and JSON."""


def storage(directory: Path) -> optuna.storages.RDBStorage:
    """The storage of a run directory, whose path may contain characters that are special in a URL."""
    import optuna

    path = directory.absolute() / STUDY

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    # The URL only selects SQLite: `connect` knows the path.
    return optuna.storages.RDBStorage(f"sqlite:///{STUDY}", engine_kwargs={"creator": connect})


def dashboard(directory: Path) -> str:
    """The command that shows the study; empty for a path that a URL can't contain."""
    path = str(directory / STUDY)
    return "" if set("?%#{}") & set(path) else f"optuna-dashboard {shlex.quote(f'sqlite:///{path}')}"


@contextmanager
def translate_damage(path: Path) -> Iterator[None]:
    """Translate what Optuna raises inside where a value of the study in the file `path` is none it writes.

    Nothing else may run inside: not the measurements, and no network.
    """
    from optuna.exceptions import OptunaError

    try:
        yield
    except (WnexploreError, OptunaError):
        raise
    except _OF_DAMAGE as error:
        raise damaged_study(path, shown(f"{type(error).__name__}: {error}")) from None


_OF_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    RuntimeError,  # another version's tables
)


def damaged_study(path: Path, reason: str) -> InputError:
    """The error that the study in the file `path` is unusable, with advice."""
    return InputError(
        f"{shown(path, 4096)} is damaged: {reason}; without it the search starts again, but repeats no"
        " recorded measurement"
    )


@contextmanager
def translate_study_errors(path: Path) -> Iterator[None]:
    """Translate errors of Optuna and SQLite about the study in the file `path` into one line."""
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
                    f"can't write {shown(path, 4096)}: {reason}; earlier commits are kept"
                ) from None
            if "locked" in reason or "unable to open" in reason or "readonly" in reason:
                raise InputError(f"can't open {shown(path, 4096)}: {reason}") from None
        raise damaged_study(path, reason) from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The causes of an error, innermost last."""
    # SQLAlchemy's has SQLite's as `orig`.
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        yield cause
        error = cause
