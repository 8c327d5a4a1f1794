"""The tables of a store, and checks of a file's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from typing import Any

from wnexplore.errors import shown

VERSION = 1

SCHEMA = f"""
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

TABLES = ("environments", "records")
ASIDE = "damaged"
"""The table to which damaged records are moved."""


def damage(connection: sqlite3.Connection) -> str | None:
    """The first difference between a file's tables and `SCHEMA`, in words; None if there is none.

    Additional tables, views and non-unique indexes are ignored.
    """
    return next(_differences(connection), None)


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """The names of the columns of a table, in order; none if there is no such table."""
    return [name for name, *_ in _columns(connection, table)]


def _differences(connection: sqlite3.Connection) -> Iterator[str]:
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master"))
    for table in TABLES:
        if kinds.get(table) != "table":
            yield f"it has no table '{table}'" if table not in kinds else f"'{table}' is no table in it"
            return
        wanted = _expected()[table]
        yield from _of_columns(table, wanted["columns"], _columns(connection, table))
        yield from _of_indexes(table, wanted["unique"], _unique(connection, table))
        triggers = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = ?", (table,)
        )
        yield from (f"trigger '{shown(name)}' changes table '{table}'" for (name,) in triggers)
        if _declared(connection, table) != wanted["declared"]:
            yield f"table '{table}' is declared in another way"
    if ASIDE in kinds:
        names = [name for name, *_ in _expected()["records"]["columns"]]
        if kinds[ASIDE] != "table" or columns_of(connection, ASIDE) != names:
            yield f"table '{ASIDE}' can't take a damaged record"


_Column = tuple[str, str, int, Any, int, int]
"""Name, type, NOT NULL, default, position in the primary key, and whether it is hidden."""


@cache
def _expected() -> dict[str, dict[str, Any]]:
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        return {
            table: {
                "columns": _columns(fresh, table),
                "unique": _unique(fresh, table),
                "declared": _declared(fresh, table),
            }
            for table in TABLES
        }


def _of_columns(table: str, wanted: list[_Column], found: list[_Column]) -> Iterator[str]:
    expected, there = {column[0]: column for column in wanted}, {column[0]: column for column in found}
    yield from (f"table '{table}' has no column '{name}'" for name in expected if name not in there)
    yield from (f"table '{table}' has an unknown column '{shown(n)}'" for n in there if n not in expected)
    for name, column in expected.items():
        if there.get(name, column) != column:
            kind = shown(there[name][1]) or "of no type"
            yield f"column '{name}' of table '{table}' is {kind}: expected {column[1]} as it was made"
    if list(expected) != list(there):
        yield f"the columns of table '{table}' stand in another order"


def _of_indexes(table: str, wanted: set[tuple[str, ...]], found: set[tuple[str, ...]]) -> Iterator[str]:
    yield from (
        f"table '{table}' has no unique index of '{', '.join(index)}'" for index in sorted(wanted - found)
    )
    extra = sorted(found - wanted)
    yield from (
        f"table '{table}' has a unique index too many, of '{shown(', '.join(index))}'" for index in extra
    )


def _columns(connection: sqlite3.Connection, table: str) -> list[_Column]:
    return [tuple(row[1:]) for row in connection.execute(f"PRAGMA table_xinfo('{table}')")]


def _unique(connection: sqlite3.Connection, table: str) -> set[tuple[str, ...]]:
    """The columns of each unique index."""
    listed = connection.execute(f"PRAGMA index_list('{table}')").fetchall()
    # SQLite lists indexes that the table's declaration implies, even if they were removed from the file.
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    names = [name for _, name, unique, *_ in listed if unique and name in there]
    columns = ("SELECT coalesce(name, '') FROM pragma_index_info(?)",)
    return {tuple(index_name for (index_name,) in connection.execute(*columns, (name,))) for name in names}


def _declared(connection: sqlite3.Connection, table: str) -> str:
    """The declaration of a table, with normalised white space."""
    (text,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return "".join(str(text).translate(dict.fromkeys(map(ord, "\"'`[]"))).split()).lower()
