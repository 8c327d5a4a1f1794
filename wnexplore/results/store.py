"""The store: one SQLite file in each run directory, to which records are appended as they are made."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from wnexplore.errors import InputError, RunError, shown
from wnexplore.files import remove_unfinished
from wnexplore.results.record import Record
from wnexplore.results.rows import COLUMNS, DamagedRowError, RowReader
from wnexplore.results.schema import ASIDE, SCHEMA, TABLES, VERSION, damage

FILE_NAME = "results.sqlite"

PATIENCE_S = 3600.0
"""How long a database is waited for that another program holds."""
_BUSY_S = 5.0

T = TypeVar("T")


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
                _check_whole(path)
                connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        except BaseException:
            lock.release()
            raise
        store = cls(path, connection, lock)
        try:
            _patiently(path, lambda: _prepare(connection, path))
        except BaseException:
            store.close()
            raise
        return store

    def keys(self) -> dict[str, str]:
        """Key of every record -> its status."""
        return _patiently(
            self.path, lambda: dict(self._connection.execute("SELECT key, status FROM records").fetchall())
        )

    def records(self) -> list[Record]:
        """Every record, the oldest first. Raises `InputError` if one is damaged."""
        return _records(self._connection, self.path, None)

    def set_damaged_aside(self) -> list[str]:
        """Move the damaged records to a table of their own: a line for each that says what is wrong.

        Nothing of them is lost, and the others are as if these had never been there.
        """
        damaged: list[str] = []
        ids: list[int] = []
        _records(self._connection, self.path, damaged, ids)
        if not ids:
            return []
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS {ASIDE} AS SELECT * FROM records WHERE 0")
            for number in ids:
                self._connection.execute(f"INSERT INTO {ASIDE} SELECT * FROM records WHERE id = ?", (number,))
                self._connection.execute("DELETE FROM records WHERE id = ?", (number,))
            self._connection.execute("COMMIT")
        return damaged

    def append(self, record: Record) -> None:
        """Add one record and commit it; a failed one of the same key gives way.

        Raises `RunError` if the disk is full or the file can't be written.
        """
        _patiently(self.path, lambda: self._append(record))

    def close(self) -> None:
        """Close the file and let others append."""
        self._connection.close()
        self._lock.release()

    def _append(self, record: Record) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM records WHERE key = ? AND status != 'ok'", (record.key,))
            self._insert(record)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

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
                _text(dict(record.protocol)),
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


def read_records(directory: Path, damaged: list[str] | None = None) -> list[Record]:
    """Every record of a run directory, the oldest first; a sweep may be appending meanwhile.

    Records are checked strictly. A damaged one is left out where there is a list `damaged`, to which a line
    is added that says which it is and why. Raises `InputError` if `directory` is no run directory, from a
    newer version or damaged, and without that list for a damaged record.
    """
    path = directory / FILE_NAME
    with _told(path):
        if not directory.is_dir():
            raise InputError(f"no run directory at {directory}: expected a folder that a sweep wrote")
        if not path.is_file():
            raise InputError(f"{directory} is no run directory: it holds no {FILE_NAME}")
        _check_whole(path)
    connection = _patiently(path, lambda: _open_to_read(directory, path))
    try:
        _check(connection, path)
        return _records(connection, path, damaged)
    finally:
        connection.close()


def _open_to_read(directory: Path, path: Path) -> sqlite3.Connection:
    # Not opened read-only: the last reader could then not tidy WAL's side files away.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if _is_busy(error):
            raise
        journal = path.with_name(f"{path.name}-wal")
        if journal.exists() and journal.stat().st_size:
            raise InputError(
                f"{path} has records that only its journal holds yet, and {directory} can't be written:"
                " copy the folder to where it can"
            ) from None
        # Where the folder can't be written, WAL's side files can't be made: nobody else writes.
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    new = connection.execute("PRAGMA schema_version").fetchone() == (0,)
    if new:
        connection.executescript(SCHEMA)
    # Checked before anything is changed: it may be another program's.
    _check(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


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
    if version < VERSION or not tables.intersection(TABLES):
        raise InputError(f"{path} is no store of wnexplore's")
    with _told(path):
        wrong = damage(connection)
    if wrong is not None:
        raise InputError(f"{path} is damaged: {wrong}")


def _records(
    connection: sqlite3.Connection,
    path: Path,
    damaged: list[str] | None,
    ids: list[int] | None = None,
) -> list[Record]:
    """The records that are whole; of the others a line goes to `damaged`, or is raised."""
    columns = ", ".join(f"records.{column}" for column in COLUMNS)
    query = (
        f"SELECT records.id, {columns}, content FROM records"
        " LEFT JOIN environments ON environments.id = records.environment ORDER BY records.id"
    )
    connection.text_factory = _decoded
    rows = _patiently(path, lambda: connection.execute(query).fetchall())
    reader = RowReader()
    found, wrong = [], []
    for number, *row in rows:
        try:
            found.append(reader.record(tuple(row)))
        except DamagedRowError as error:
            wrong.append(f"record {number} of {path} is damaged: {error}")
            if ids is not None:
                ids.append(number)
    if wrong and damaged is None:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise InputError(f"{wrong[0]}{more}; --skip-damaged goes on without what is damaged")
    if damaged is not None:
        damaged += wrong
    return found


def _decoded(text: bytes) -> Any:
    """A text of the file; bytes where it is none, so that only its own record suffers."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _check_whole(path: Path) -> None:
    """Raise `InputError` if the file is shorter than its header says: its last page would read as zeros."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        return
    page = int.from_bytes(header[16:18], "big")
    wanted = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
    size = path.stat().st_size
    journal = path.with_name(f"{path.name}-wal")
    # Pages that a journal still holds may not be in the file yet.
    if size < wanted and not (journal.exists() and journal.stat().st_size):
        raise InputError(f"{path} is damaged: it ends after {size:,} of its {wanted:,} bytes")


def _patiently(path: Path, work: Callable[[], T]) -> T:
    """What `work` gives, once no other program holds the database: a line says that it is waited for."""
    begun, said = time.monotonic(), False
    with _told(path):
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > begun + PATIENCE_S:
                    raise
            if not said:
                print(f"wnexplore: waiting for {path}, which another program holds", file=sys.stderr)
                said = True
            time.sleep(0.1)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


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
        if _is_busy(error):
            raise RunError(f"another program holds {path}: {reason}") from None
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_ERROR:
            # What is asked is right: the tables aren't.
            raise InputError(f"{path} is damaged: {reason}") from None
        raise InputError(f"can't open {path}: {reason}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise InputError(f"can't open {shown(path)}: {error.strerror or error}") from None
