"""A store whose tables were altered is damaged, and the place is named."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.results.records import change_tables, complexity, filled, points
from wnexplore.errors import InputError
from wnexplore.results.store import FILE_NAME, Store, read_records

RENEW = "ALTER TABLE records RENAME TO old"


def again(old: str, new: str) -> str:
    """The table of records, made anew with other words."""
    return f"{RENEW}; {DECLARED.replace(old, new, 1)}; INSERT INTO records SELECT * FROM old; DROP TABLE old"


DECLARED = (
    "CREATE TABLE records (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, figure TEXT NOT NULL,"
    " point TEXT NOT NULL, protocol TEXT NOT NULL, status TEXT NOT NULL, value TEXT NOT NULL,"
    " samples TEXT NOT NULL, error TEXT, environment INTEGER NOT NULL REFERENCES environments (id),"
    " made_at TEXT NOT NULL)"
)
ALTERED = [
    ("DROP TABLE environments", "it has no table 'environments'"),
    ("DROP TABLE records", "it has no table 'records'"),
    (f"{RENEW}; CREATE VIEW records AS SELECT * FROM old", "'records' is no table in it"),
    ("ALTER TABLE records DROP COLUMN samples", "table 'records' has no column 'samples'"),
    ("ALTER TABLE records RENAME COLUMN made_at TO made", "table 'records' has no column 'made_at'"),
    ("ALTER TABLE environments RENAME COLUMN content TO c", "table 'environments' has no column 'content'"),
    ("ALTER TABLE records ADD COLUMN note", "table 'records' has an unknown column 'note'"),
    ("ALTER TABLE records ADD COLUMN 'a\x1b[2J'", "table 'records' has an unknown column 'a\\x1b[2J'"),
    ("ALTER TABLE records ADD COLUMN v AS (length(value))", "table 'records' has an unknown column 'v'"),
    (again("value TEXT", "value REAL"), "column 'value' of table 'records' is REAL: expected TEXT"),
    (again("value TEXT", "value"), "column 'value' of table 'records' is of no type: expected TEXT"),
    (again("point TEXT NOT NULL", "point TEXT"), "column 'point' of table 'records'"),
    (again("id INTEGER PRIMARY KEY", "id INTEGER"), "column 'id' of table 'records'"),
    (again("key TEXT NOT NULL UNIQUE", "key TEXT NOT NULL"), "table 'records' has no unique index of 'key'"),
    (
        "CREATE UNIQUE INDEX one ON records (figure, point)",
        "table 'records' has a unique index too many, of 'figure, point'",
    ),
    (again("key TEXT", "key TEXT COLLATE NOCASE"), "table 'records' is declared in another way"),
    (again("status TEXT NOT NULL", "status TEXT NOT NULL CHECK (status = 'ok')"), "is declared in another"),
    (
        "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END",
        "trigger 't' changes table 'records'",
    ),
    ("CREATE TABLE damaged (x)", "table 'damaged' can't take a damaged record"),
    ("CREATE VIEW damaged AS SELECT * FROM records", "table 'damaged' can't take a damaged record"),
    (
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name LIKE 'sqlite_autoindex%'",
        "table 'environments' has no unique index of 'content'",
    ),
    (
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'x' WHERE name = 'records'",
        "is damaged: ",
    ),
]


@pytest.mark.parametrize(("script", "place"), ALTERED)
def test_an_altered_table_is_damaged_with_its_place(tmp_path: Path, script: str, place: str) -> None:
    folder = filled(tmp_path, [complexity(point) for point in points()])
    change_tables(folder, script)
    for use in (read_records, Store.create):
        with pytest.raises(InputError, match="is damaged: ") as message:
            use(folder)
        assert str(folder / FILE_NAME) in str(message.value)
        assert place in str(message.value)
        assert "\n" not in str(message.value)
    # Neither of them holds it any more.
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.execute("BEGIN EXCLUSIVE")


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE notes (x); CREATE VIEW best AS SELECT key FROM records",
        "CREATE INDEX by_figure ON records (figure); ANALYZE",
        again("CREATE TABLE records (id", 'create  table "records"(\n [id]'),
        "VACUUM",
    ],
)
def test_what_changes_nothing_of_ours_is_no_damage(tmp_path: Path, script: str) -> None:
    made = [complexity(point) for point in points()]
    folder = filled(tmp_path, made)
    change_tables(folder, script)
    assert read_records(folder) == made
    Store.create(folder).close()
