"""Commands that read runs go on without damaged records where they are told to."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.results.records import alter, change_tables, complexity, filled, points
from wnexplore.results.store import FILE_NAME, read_records


@pytest.mark.parametrize(
    "arguments",
    [("table",), ("export",), ("pick", "--objective", "params"), ("plot", "--x", "flops", "--y", "params")],
)
def test_commands_continue_without_what_is_damaged_and_say_so(
    command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder = filled(tmp_path / "run", [complexity(point) for point in points()])
    alter(folder, "UPDATE records SET value = '{\"params\": NaN}' WHERE id = 2")
    name, *options = arguments
    plot = ("--out", tmp_path / "x.png") if name == "plot" else ()
    wrong = command(name, folder, *options, *plot)
    assert wrong.code == 2
    assert "record 2 of" in wrong.err
    assert wrong.err.count("\n") == 1
    good = command(name, folder, *options, *plot, "--skip-damaged")
    assert good.code == 0, good.err
    assert "record 2 of" in good.err


def test_a_sweep_sets_damaged_records_aside_and_measures_them_again(command: Command, tmp_path: Path) -> None:
    sweep = ("sweep", "--backbone", "shufflenet_v2_x0_5", "--method", "plain,se", "--no-latency")
    arguments = (*sweep, "--resolution", "32", "--out", tmp_path / "run")
    assert command(*arguments).code == 0
    before = read_records(tmp_path / "run")
    alter(tmp_path / "run", "UPDATE records SET value = '{\"params\": -1}', key = 'x' WHERE id = 1")
    wrong = command(*arguments)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "record 1 of" in wrong.err
    again = command(*arguments, "--skip-damaged")
    assert again.code == 0, again.err
    assert re.search(r"\b1 damaged\b", again.err)
    after = read_records(tmp_path / "run")
    assert sorted(r.key for r in after) == sorted(r.key for r in before)
    assert {r.key: r.value for r in after} == {r.key: r.value for r in before}
    with closing(sqlite3.connect(tmp_path / "run" / FILE_NAME)) as connection:
        assert connection.execute("SELECT key, value FROM damaged").fetchall() == [("x", '{"params": -1}')]


def test_every_command_names_the_damage(command: Command, tmp_path: Path) -> None:
    folder = filled(tmp_path / "run", [complexity(point) for point in points()])
    change_tables(folder, "ALTER TABLE records DROP COLUMN error")
    for arguments in (
        ("table", folder),
        ("table", folder, "--skip-damaged"),
        ("sweep", "--backbone", "shufflenet_v2_x0_5", "--no-latency", "--out", folder, "--skip-damaged"),
    ):
        outcome = command(*arguments)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert f"{folder / FILE_NAME} is damaged: table 'records' has no column 'error'" in outcome.err
