"""The store: one SQLite file per run directory, to which records are appended."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout

from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, RunError, shown
from wnexplore.files import remove_unfinished
from wnexplore.results.record import FIGURES, Figure, Record
from wnexplore.results.rows import COLUMNS, DamagedRowError, RowReader
from wnexplore.results.schema import ASIDE, SCHEMA, TABLES, VERSION, damage
from wnexplore.results.uncollected import uncollected

FILE_NAME = "results.sqlite"

PATIENCE_S = 3600.0
"""Seconds to wait for a database that another program has locked."""
BUSY_S = 5.0
"""Seconds that SQLite waits for it before a line says so."""

T = TypeVar("T")


class Store:
    """The records of one run directory. Open one with `create` to append or `read_records` to read."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: FileLock, patience_s: float = PATIENCE_S
    ) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._patience_s = patience_s
        self._rows = _Rows(connection, path)
        self._ids: dict[DesignPoint, list[int]] | None = None

    @classmethod
    def create(cls, directory: Path, *, busy_s: float = BUSY_S, patience_s: float = PATIENCE_S) -> Store:
        """Open the store of `directory` for appending; both are created if missing.

        It waits up to `patience_s` seconds for a database that another program has locked, and says so after
        `busy_s`. Raises `InputError` if the directory can't be a run directory, is from a newer version
        or damaged, or if another process is appending to it.
        """
        path = directory / FILE_NAME
        if directory.exists() and not path.exists() and _foreign(directory):
            raise InputError(
                f"{directory} holds other things and no {FILE_NAME}: expected a new or empty folder"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # The operating system releases the lock when the process ends in any way.
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
            with _translate_errors(path):
                _check_complete(path)
                connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
        except BaseException:
            lock.release()
            raise
        store = cls(path, connection, lock, patience_s)
        try:
            _patiently(path, lambda: _prepare(connection, path), patience_s)
        except BaseException:
            store.close()
            raise
        return store

    def keys(self, wanted: Iterable[str] | None = None) -> dict[str, str]:
        """Key -> status of every record, or of the existing ones in `wanted`."""
        if wanted is None:
            return dict(self._rows.ask("SELECT key, status FROM records"))
        found = (self._rows.ask("SELECT key, status FROM records WHERE key = ?", key) for key in wanted)
        return dict(row for rows in found for row in rows)

    def records(self, wanted: Iterable[str] | None = None) -> list[Record]:
        """Every record, oldest first, or only those with keys in `wanted`, by index.

        Raises `InputError` if one is damaged.
        """
        return self._rows.records() if wanted is None else self._rows.some("key", wanted)

    def records_of(self, point: DesignPoint) -> list[Record]:
        """Every record of one point, the oldest first. Raises `InputError` if one is damaged.

        The first call indexes all points, so that further calls need no search.
        """
        if self._ids is None:
            self._ids = self._rows.ids()
        return self._rows.some("id", self._ids.get(point, ()))

    def set_damaged_aside(self) -> list[str]:
        """Move the damaged records to a separate table; returns one line per record with the fault.

        Nothing is lost, and the other records are unaffected.
        """
        damaged: list[str] = []
        ids: list[int] = []
        self._rows.records(damaged, samples_of=(), ids=ids)
        if not ids:
            return []
        self._ids = None
        with _translate_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS {ASIDE} AS SELECT * FROM records WHERE 0")
            for number in ids:
                self._connection.execute(f"INSERT INTO {ASIDE} SELECT * FROM records WHERE id = ?", (number,))
                self._connection.execute("DELETE FROM records WHERE id = ?", (number,))
            self._connection.execute("COMMIT")
        return damaged

    def append(self, record: Record) -> None:
        """Add one record and commit it; it replaces a failed one with the same key.

        Raises `RunError` if the disk is full or the file can't be written.
        """
        number = _patiently(self.path, lambda: self._append(record), self._patience_s)
        if self._ids is not None:
            # The row of a replaced record is gone, or is this one's now.
            self._ids.setdefault(record.point, []).append(number)

    def close(self) -> None:
        """Close the file and let others append."""
        self._connection.close()
        self._lock.release()

    def _append(self, record: Record) -> int:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM records WHERE key = ? AND status != 'ok'", (record.key,))
            number = self._insert(record)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return number

    def _insert(self, record: Record) -> int:
        """Add a row: its id."""
        environment = _text(record.environment)
        self._connection.execute(
            "INSERT INTO environments (content) VALUES (?) ON CONFLICT DO NOTHING", (environment,)
        )
        added = self._connection.execute(
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
        assert added.lastrowid is not None
        return added.lastrowid

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(
    directory: Path, damaged: list[str] | None = None, *, samples_of: Collection[Figure] = FIGURES
) -> list[Record]:
    """Every record of a run directory, oldest first; a sweep may be appending concurrently.

    Records are checked strictly. If a list `damaged` is given, damaged records are left out, and one line
    each with the reason is appended to it. Samples of figures not in `samples_of`, which take much memory,
    are checked and left out. Raises `InputError` if `directory` is no run directory, from a newer version or
    damaged, and without that list for a damaged record.
    """
    path = directory / FILE_NAME
    with _translate_errors(path):
        if not directory.is_dir():
            raise InputError(f"no run directory at {directory}: expected a folder that a sweep wrote")
        if not path.is_file():
            raise InputError(f"{directory} is no run directory: it holds no {FILE_NAME}")
        _check_complete(path)
    connection = _patiently(path, lambda: _open_to_read(directory, path))
    try:
        _check(connection, path)
        return _Rows(connection, path).records(damaged, samples_of)
    finally:
        connection.close()


def read_dates(directory: Path) -> tuple[str, str] | None:
    """When the first and the last record of a run directory was made, in ISO 8601; None without records.

    Raises `InputError` as `read_records` does.
    """
    path = directory / FILE_NAME
    connection = _patiently(path, lambda: _open_to_read(directory, path))
    try:
        with _translate_errors(path):
            first, last = connection.execute("SELECT min(made_at), max(made_at) FROM records").fetchone()
    finally:
        connection.close()
    return None if first is None else (str(first), str(last))


def _open_to_read(directory: Path, path: Path) -> sqlite3.Connection:
    # Not opened read-only: the last reader could then not remove WAL's side files.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)
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
        # In a read-only folder, WAL's side files can't be created: no other program writes.
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
    with _translate_errors(path):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version > VERSION:
        raise InputError(
            f"{path} was written by a newer wnexplore (format {version}, this one reads up to {VERSION}):"
            " upgrade with 'pip install -U wnexplore'"
        )
    if version < VERSION or not tables.intersection(TABLES):
        raise InputError(f"{path} is no store of wnexplore's")
    with _translate_errors(path):
        wrong = damage(connection)
    if wrong is not None:
        raise InputError(f"{path} is damaged: {wrong}")


class _Rows:
    """The rows of a store's file as records."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._reader = RowReader()
        self._environments: dict[Any, str | None] = {}
        connection.text_factory = _decoded

    def records(
        self,
        damaged: list[str] | None = None,
        samples_of: Collection[Figure] = FIGURES,
        ids: list[int] | None = None,
    ) -> list[Record]:
        """All valid records; for others a line is appended to `damaged`, and the id to `ids`, or an error is
        raised.
        """
        with uncollected():
            found, wrong, numbers = self._all(samples_of)
        if ids is not None:
            ids += numbers
        if wrong and damaged is None:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise InputError(f"{wrong[0]}{more}; {_CONTINUE}")
        if damaged is not None:
            damaged += wrong
        return found

    def _all(self, samples_of: Collection[Figure]) -> tuple[list[Record], list[str], list[int]]:
        """All valid records, and a line for each of the others and its id."""
        found: list[Record] = []
        wrong: list[str] = []
        ids: list[int] = []
        for number, *row in self.ask(f"{_SELECT} ORDER BY id"):
            try:
                found.append(self._record(row, samples_of))
            except DamagedRowError as error:
                wrong.append(self._damaged(number, error))
                ids.append(number)
        return found, wrong, ids

    def some(self, column: Literal["id", "key"], values: Iterable[Any]) -> list[Record]:
        """The records with one of `values` in an indexed column, oldest first."""
        query = f"{_SELECT} WHERE {column} = ?"
        rows = sorted(row for value in dict.fromkeys(values) for row in self.ask(query, value))
        found = []
        for number, *row in rows:
            try:
                found.append(self._record(row, FIGURES))
            except DamagedRowError as error:
                raise InputError(f"{self._damaged(number, error)}; {_CONTINUE}") from None
        return found

    def ids(self) -> dict[DesignPoint, list[int]]:
        """The ids of each point's rows, in ascending order."""
        found: dict[DesignPoint, list[int]] = {}
        for number, text in self.ask("SELECT id, point FROM records ORDER BY id"):
            try:
                found.setdefault(self._reader.point(text), []).append(number)
            except DamagedRowError as error:
                raise InputError(f"{self._damaged(number, error)}; {_CONTINUE}") from None
        return found

    def ask(self, query: str, *values: Any) -> Iterator[Any]:
        """The rows of a query in batches: all of them may not fit in memory."""
        cursor = self._connection.cursor()
        # Once started, it doesn't wait for other programs.
        rows = _patiently(self._path, lambda: cursor.execute(query, values).fetchmany(_AT_ONCE))
        while rows:
            yield from rows
            with _translate_errors(self._path):
                rows = cursor.fetchmany(_AT_ONCE)

    def _record(self, row: Sequence[Any], samples_of: Collection[Figure]) -> Record:
        *fields, environment = row
        if environment not in self._environments:
            content = self.ask("SELECT content FROM environments WHERE id = ?", environment)
            self._environments[environment] = next((text for (text,) in content), None)
        return self._reader.record((*fields, self._environments[environment]), samples_of)

    def _damaged(self, number: int, error: DamagedRowError) -> str:
        return f"record {number} of {self._path} is damaged: {error}"


_SELECT = f"SELECT id, {', '.join(COLUMNS)}, environment FROM records"
_AT_ONCE = 1000
_CONTINUE = "--skip-damaged continues without damaged records"


def _decoded(text: bytes) -> Any:
    """A text of the file, or bytes if it can't be decoded, so that only its record is affected."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _check_complete(path: Path) -> None:
    """Raise `InputError` if the file is shorter than its header says: missing pages would read as zeros."""
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
    # Pages in a journal may not be in the file yet.
    if size < wanted and not (journal.exists() and journal.stat().st_size):
        raise InputError(f"{path} is damaged: it ends after {size:,} of its {wanted:,} bytes")


def _patiently(path: Path, work: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """The result of `work`, once no other program has locked the database; waiting is reported."""
    begun, said = time.monotonic(), False
    with _translate_errors(path):
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > begun + patience_s:
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
def _translate_errors(path: Path) -> Iterator[None]:
    """Translate errors of SQLite and the file system about `path` into one line."""
    try:
        yield
    except sqlite3.OperationalError as error:
        reason = str(error)
        if "full" in reason or "disk I/O" in reason:
            raise RunError(f"can't write {path}: {reason}; what was committed before is kept") from None
        if _is_busy(error):
            raise RunError(f"another program holds {path}: {reason}") from None
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_ERROR:
            # Our queries are valid: the tables are wrong.
            raise InputError(f"{path} is damaged: {reason}") from None
        raise InputError(f"can't open {path}: {reason}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise InputError(f"can't open {shown(path)}: {error.strerror or error}") from None
