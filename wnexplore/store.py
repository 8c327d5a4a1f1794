"""The store: one SQLite file in each run directory, to which records are appended as they are made."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from wnexplore.design.point import DesignPoint
from wnexplore.design.record import Record
from wnexplore.errors import InputError, RunError
from wnexplore.files import remove_unfinished

FILE_NAME = "results.sqlite"
VERSION = 1

_SCHEMA = f"""
BEGIN;
CREATE TABLE environments (id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE);
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    figure TEXT NOT NULL,
    point TEXT NOT NULL,
    protocol TEXT NOT NULL,
    status TEXT NOT NULL,
    value TEXT NOT NULL,
    samples TEXT NOT NULL,
    error TEXT,
    environment INTEGER NOT NULL REFERENCES environments (id),
    made_at TEXT NOT NULL
);
PRAGMA application_id = {int.from_bytes(b"wnex", "big")};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class Store:
    """The records of one run directory. Open one with `create` to append or `read_records` to read."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileLock) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, directory: Path) -> Store:
        """Open the store of `directory` for appending; both are made where they don't exist.

        Raises `InputError` if the directory can't be a run directory, is from a newer version or
        damaged, or if another process is appending to it.
        """
        path = directory / FILE_NAME
        if directory.exists() and not path.exists() and _foreign(directory):
            raise InputError(
                f"{directory} holds other things and no {FILE_NAME}: expected a new or empty folder"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # A lock of the operating system's goes with its process, however that ends.
            lock = FileLock(directory / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"another wnexplore process is working in {directory}: wait for it, or give another folder"
            ) from None
        except OSError as error:
            raise InputError(f"can't write to run directory {directory}: {error.strerror}") from None
        try:
            remove_unfinished(directory)
            with _told(path):
                connection = sqlite3.connect(path, isolation_level=None)
        except BaseException:
            lock.release()
            raise
        store = cls(path, connection, lock)
        try:
            with _told(path):
                new = connection.execute("PRAGMA schema_version").fetchone() == (0,)
                if new:
                    connection.executescript(_SCHEMA)
                # Checked before anything is changed: it may be another program's.
                _check(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            store.close()
            raise
        return store

    def keys(self) -> dict[str, str]:
        """Key of every record -> its status."""
        with _told(self.path):
            return dict(self._connection.execute("SELECT key, status FROM records"))

    def records(self) -> list[Record]:
        """Every record, the oldest first."""
        return _records(self._connection, self.path)

    def append(self, record: Record) -> None:
        """Add one record and commit it; a failed one of the same key gives way.

        Raises `RunError` if the disk is full or the file can't be written.
        """
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.execute(
                    "DELETE FROM records WHERE key = ? AND status != 'ok'", (record.key,)
                )
                self._insert(record)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file and let others append."""
        self._connection.close()
        self._lock.release()

    def _insert(self, record: Record) -> None:
        environment = _text(record.environment)
        self._connection.execute(
            "INSERT INTO environments (content) VALUES (?) ON CONFLICT DO NOTHING", (environment,)
        )
        self._connection.execute(
            "INSERT INTO records"
            " (key, figure, point, protocol, status, value, samples, error, environment, made_at)"
            " SELECT ?, ?, ?, ?, ?, ?, ?, ?, id, ? FROM environments WHERE content = ?",
            (
                record.key,
                record.figure,
                _text(record.point.to_dict()),
                _text(record.protocol),
                record.status,
                _text(record.value),
                _text(record.samples),
                record.error,
                datetime.now(UTC).isoformat(timespec="milliseconds"),
                environment,
            ),
        )

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(directory: Path) -> list[Record]:
    """Every record of a run directory, the oldest first; a sweep may be appending meanwhile.

    Raises `InputError` if `directory` is no run directory, from a newer version or damaged.
    """
    path = directory / FILE_NAME
    if not directory.is_dir():
        raise InputError(f"no run directory at {directory}: expected a folder that a sweep wrote")
    if not path.is_file():
        raise InputError(f"{directory} is no run directory: it holds no {FILE_NAME}")
    with _told(path):
        try:
            # Not opened read-only: the last reader could then not tidy WAL's side files away.
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            journal = path.with_name(f"{path.name}-wal")
            if journal.exists() and journal.stat().st_size:
                raise InputError(
                    f"{path} has records that only its journal holds yet, and {directory} can't be written:"
                    " copy the folder to where it can"
                ) from None
            # Where the folder can't be written, WAL's side files can't be made: nobody else writes.
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        _check(connection, path)
        return _records(connection, path)
    finally:
        connection.close()


def _foreign(directory: Path) -> bool:
    if not directory.is_dir():
        raise InputError(f"{directory} is a file: expected a folder for the run")
    return any(entry.name != ".lock" for entry in directory.iterdir())


def _check(connection: sqlite3.Connection, path: Path) -> None:
    with _told(path):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version > VERSION:
        raise InputError(
            f"{path} was written by a newer wnexplore (format {version}, this one reads up to {VERSION}):"
            " upgrade with 'pip install -U wnexplore'"
        )
    if version < VERSION or not {"records", "environments"} <= tables:
        raise InputError(f"{path} is no store of wnexplore's")


def _records(connection: sqlite3.Connection, path: Path) -> list[Record]:
    with _told(path):
        rows = connection.execute(
            "SELECT figure, point, protocol, status, value, samples, error, content"
            " FROM records JOIN environments ON environments.id = records.environment ORDER BY records.id"
        ).fetchall()
    try:
        return [_record(*row) for row in rows]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from None


def _record(
    figure: Any,
    point: str,
    protocol: str,
    status: Any,
    value: str,
    samples: str,
    error: str | None,
    environment: str,
) -> Record:
    return Record(
        figure=figure,
        point=DesignPoint.from_dict(json.loads(point)),
        protocol=json.loads(protocol),
        status=status,
        value=json.loads(value),
        samples=json.loads(samples),
        error=error,
        environment=json.loads(environment),
    )


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in one line what SQLite and the file system have to say about `path`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        reason = str(error)
        if "full" in reason or "disk I/O" in reason:
            raise RunError(f"can't write {path}: {reason}; what was committed before is kept") from None
        raise InputError(f"can't open {path}: {reason}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is damaged: {error}") from None
