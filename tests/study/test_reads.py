"""How many rows of its store a command reads: twice as many points take twice as many, not four times."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps import TRAINED, write_sweep
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.results.record import Record
from wnexplore.results.rows import RowReader
from wnexplore.results.store import Store
from wnexplore.study.search import Search, search
from wnexplore.study.sweep import Measurement, plan, remaining, run

TIMED = {"latency_ms": 2.0, "latency_ms_low": 1.9, "latency_ms_high": 2.1}
VALUES: dict[str, dict[str, Any]] = {"complexity": {"params": 1000, "flops": 5000}, "latency": TIMED}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The figure of each row that is read from here on."""
    read: list[str] = []
    record = RowReader.record

    def counted(self: RowReader, row: Any, *others: Any) -> Record:
        read.append(row[1])
        return record(self, row, *others)

    monkeypatch.setattr(RowReader, "record", counted)
    return read


def _spec(folder: Path, count: int, more: str = "") -> SweepSpec:
    text = TRAINED.replace("M: [1, 2]", f"M: {[2**place for place in range(count)]}")
    return load_sweep(write_sweep(folder, text.replace("G: [1, 2]", "G: [1]") + more))


def _keep(store: Store, measurements: Iterable[Measurement]) -> None:
    for m in measurements:
        if m.figure != "training":
            store.append(Record(m.figure, m.point, m.protocol, value=VALUES[m.figure]))


def _rows_of_a_sweep(folder: Path, count: int, rows: list[str]) -> int:
    folder.mkdir()
    spec = _spec(folder, count, "where: latency_ms < 1\n")
    planned = plan(spec)
    with Store.create(folder / "run") as store:
        _keep(store, planned.measurements)
        rows.clear()
        todo = remaining(planned, store.keys())
        assert {m.figure for m in todo} == {"training"}
        assert run(spec, todo, store) == []
        assert {record.figure for record in store.records()} == {"complexity", "latency"}
    return len(rows)


def test_a_condition_on_what_is_trained_reads_each_row_once(tmp_path: Path, rows: list[str]) -> None:
    few, many = (_rows_of_a_sweep(tmp_path / str(count), count, rows) for count in (2, 4))
    # A point's own 3 rows when it is asked about, and all once more above.
    assert (few, many) == (2 * 3 * 3, 2 * 3 * 5)


def _rows_of_a_search(folder: Path, trials: int, rows: list[str]) -> int:
    folder.mkdir()
    spec = _spec(folder, 6).model_copy(update={"latency": None, "train": None})
    with Store.create(folder / "run") as store:
        _keep(store, plan(spec).measurements)
        rows.clear()
        search(Search(spec, ("params",), trials=trials), store)
    return len(rows)


def test_a_search_reads_only_what_it_measured(tmp_path: Path, rows: list[str]) -> None:
    few, many = (_rows_of_a_search(tmp_path / str(trials), trials, rows) for trials in (2, 4))
    # All 7 before it begins, then one a point.
    assert (few, many) == (7 + 2, 7 + 4)


def test_records_are_found_by_key_and_by_point_as_they_come(tmp_path: Path) -> None:
    planned = plan(_spec(tmp_path, 2))
    with Store.create(tmp_path / "run") as store:
        _keep(store, planned.measurements)
        every = store.records()
        wanted = [every[4], every[1]]
        assert store.records([*(record.key for record in wanted), "unknown"]) == [every[1], every[4]]
        assert store.keys([every[2].key, "unknown"]) == {every[2].key: "ok"}
        point = every[0].point
        assert store.records_of(point) == [record for record in every if record.point == point]
        failed = Record("training", point, {"seed": 1}, status="failed", error="no")
        store.append(failed)
        assert store.records_of(point)[-1] == failed
        found = Record("training", point, {"seed": 1}, value={"top1": 50.0})
        store.append(found)
        assert store.records_of(point) == [record for record in store.records() if record.point == point]
        assert store.records_of(point)[-1] == found
