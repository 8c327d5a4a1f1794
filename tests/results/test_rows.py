"""What stands in a store may have been altered, cut off or locked: it is told, and never hides the rest."""

import json
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.bounds import bounded
from tests.examples import examples
from tests.results.records import (
    alter,
    complexity,
    curves,
    failure,
    filled,
    halved,
    latency,
    points,
    trained,
    training,
)
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, RunError, WnexploreError
from wnexplore.report.rungs import lines
from wnexplore.results import rows
from wnexplore.results.frame import frame
from wnexplore.results.record import FIGURES, Figure, Record, record_key
from wnexplore.results.rows import COLUMNS, DamagedRowError, RowReader
from wnexplore.results.store import FILE_NAME, Store, read_records

PLAIN, SQUEEZED, *_ = points()
RECORDS = [
    complexity(PLAIN),
    latency(PLAIN, warnings=["drift"]),
    training(PLAIN),
    trained(SQUEEZED, [50, 60, 70], schedule="halving", min_epochs=1, max_epochs=9, eta=3),
    failure("latency", SQUEEZED, "out_of_memory"),
]


DEEP = "[" * 100_000 + "]" * 100_000

ALTERED = [
    # record, column, text, what is told
    (2, "value", '{"latency_ms": NaN}', "value holds NaN"),
    (2, "value", '{"latency_ms": Infinity}', "value holds Infinity"),
    (2, "value", '{"latency_ms": 1e999}', "a number too large"),
    (2, "value", '{"latency_ms": "5"}', "value.latency_ms is '5'"),
    (2, "value", '{"latency_ms": [5]}', "value.latency_ms is '[5]'"),
    (2, "value", '{"latency_ms": true}', "value.latency_ms is 'True'"),
    (2, "value", '{"latency_ms": -1}', "value.latency_ms is '-1'"),
    (2, "value", "{}", "value.latency_ms is missing"),
    (
        2,
        "value",
        '{"latency_ms": 1, "latency_ms_low": 3, "latency_ms_high": 2}',
        "interval of latency_ms goes",
    ),
    (2, "value", '{"latency_ms": 1, "warnings": ["drift"]}', "value.warnings.0 is 'drift'"),
    (2, "value", '{"latency_ms": 1, "rounds": 3}', "value.rounds is 3"),
    (1, "value", '{"params": 1.5, "flops": 1}', "value.params is '1.5'"),
    (1, "value", '{"params": 99999999999999999999, "flops": 1}', "value.params is '99999999999999999999'"),
    (1, "value", '{"params": 1, "params": 2, "flops": 1}', "a key stands twice"),
    (1, "value", "[]", r"value is '[]'"),
    (1, "value", "{", "value is no JSON"),
    (1, "value", DEEP, "nested too deep"),
    (1, "value", '{"a": ' + "[" * 20 + "]" * 20 + "}", " 10 "),
    (1, "value", '{"a": "\\ud800"}', "half of a surrogate pair"),
    (1, "value", b"\xff\xfe", "expected text"),
    (1, "value", 5, "value is '5'"),
    (3, "value", '{"top1": 101}', "value.top1 is '101'"),
    (3, "value", "{}", "a training without top1 or ap"),
    (3, "value", '{"top1": null, "test_loss": 1}', "a training without top1 or ap"),
    (3, "value", '{"top1": 50, "test_loss": -0.5}', "value.test_loss is '-0.5'"),
    (3, "value", '{"top1": 50, "test_loss": NaN}', "value holds NaN"),
    (3, "value", '{"top1": 50, "dropped_at": "x"}', "value.dropped_at is 'x'"),
    (3, "value", '{"top1": 50, "damaged": "x"}', "value.damaged is 'x'"),
    (
        2,
        "samples",
        '{"latency_ms": [1, 2], "baseline_ms": [1]}',
        "baseline_ms",
    ),
    (2, "samples", '{"latency_ms": [[1, 2]]}', "samples.latency_ms.0 is '[1, 2]'"),
    (2, "samples", '{"latency_ms": 1}', "samples.latency_ms is '1'"),
    (2, "samples", '{"power_w": ["x"]}', "samples.power_w.0"),
    (4, "samples", '{"tested_epochs": [1, 2], "tested_top1": [5]}', "tested_epochs"),
    (
        4,
        "samples",
        '{"tested_epochs": [1, 2], "tested_top1": [5, 6], "tested_loss": [1]}',
        "tested_epochs has 2 values, and tested_loss 1",
    ),
    (
        4,
        "samples",
        '{"tested_epochs": [1], "tested_top1": [5], "tested_loss": ["1"]}',
        "samples.tested_loss.0",
    ),
    (4, "samples", '{"tested_epochs": [1.5], "tested_top1": [5]}', "samples.tested_epochs.0 is '1.5'"),
    (
        4,
        "protocol",
        '{"schedule": "halving", "min_epochs": 1, "max_epochs": 9, "eta": 1}',
        "protocol.eta is '1'",
    ),
    (
        4,
        "protocol",
        '{"schedule": "halving", "min_epochs": 1, "max_epochs": 9, "eta": 0}',
        "protocol.eta is '0'",
    ),
    (
        4,
        "protocol",
        '{"schedule": "halving", "min_epochs": 1, "max_epochs": 9}',
        "min_epochs",
    ),
    (4, "protocol", '{"seed": "0"}', "protocol.seed is '0'"),
    (4, "protocol", '{"lr": [1]}', "protocol.lr"),
    (4, "protocol", '{"dataset": 5}', "protocol.dataset is '5'"),
    (1, "figure", "speed", "figure is 'speed'"),
    (1, "status", "fine", "status is 'fine'"),
    (1, "made_at", "yesterday", "made_at is 'yesterday'"),
    (1, "key", "0" * 64, "key "),
    (1, "protocol", '{"seed": 1}', "key "),
    (1, "point", '{"backbone": "resnet18"}', "key "),
    (1, "point", '{"backbone": "resnet19"}', "unknown backbone 'resnet19'"),
    (1, "point", '{"backbone": 5}', "backbone is '5'"),
    (1, "point", '{"backbone": "resnet18", "M": [1]}', "damaged"),
    (1, "point", '{"backbone": "resnet18", "colour": 1}', "'colour'"),
    (1, "point", "{}", "'backbone'"),
    (1, "error", b"5", "expected text"),
    (1, "environment", 99, "environment is 'None': expected text"),
]


@pytest.mark.parametrize(("number", "column", "text", "message"), ALTERED)
def test_a_damaged_record_is_named_and_hides_no_other(
    tmp_path: Path, number: int, column: str, text: object, message: str
) -> None:
    timed = RECORDS[1]
    samples = {"latency_ms": [1.0, 2.0], "baseline_ms": [1.0, 2.0]}
    value = {**timed.value, "rounds": 2}
    full = Record("latency", timed.point, timed.protocol, value=value, samples=samples)
    filled(tmp_path, [RECORDS[0], full, *RECORDS[2:]])
    alter(tmp_path, f"UPDATE records SET {column} = ? WHERE id = ?", text, number)
    with pytest.raises(InputError) as error:
        read_records(tmp_path)
    line = str(error.value)
    assert f"record {number} of {tmp_path / FILE_NAME} is damaged: " in line
    assert message in line
    assert "\n" not in line
    assert len(line) < 600
    damaged: list[str] = []
    assert len(read_records(tmp_path, damaged)) == len(RECORDS) - 1
    assert len(damaged) == 1


def test_a_store_cut_off_anywhere_is_reported_or_whole(tmp_path: Path) -> None:
    full = filled(tmp_path / "run", [complexity(point) for point in points()]) / FILE_NAME
    content, known = full.read_bytes(), read_records(tmp_path / "run")
    assert len(known) > 10
    other = tmp_path / "other"
    other.mkdir()
    # All lengths of the last page, some of the others.
    for length in (*range(len(content) - 4096, len(content), 211), *range(0, len(content), 4001)):
        (other / FILE_NAME).write_bytes(content[:length])
        with pytest.raises(InputError, match=re.escape(str(other / FILE_NAME))):
            read_records(other)
        with pytest.raises(InputError, match=re.escape(str(other / FILE_NAME))):
            Store.create(other) if length > 0 else read_records(other)
        (other / ".lock").unlink(missing_ok=True)


def test_a_database_that_another_program_holds_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.create(tmp_path, busy_s=0.1) as store:
        holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.6, holder.execute, ["COMMIT"]).start()
        begun = time.monotonic()
        store.append(RECORDS[0])
        assert time.monotonic() - begun > 0.3
        assert len(store.records()) == 1
        holder.close()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(tmp_path / FILE_NAME) in told


def test_a_program_that_never_lets_go_is_reported(tmp_path: Path) -> None:
    with (
        Store.create(tmp_path, busy_s=0.05, patience_s=0.2) as store,
        closing(sqlite3.connect(tmp_path / FILE_NAME)) as holder,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunError, match=re.escape(str(tmp_path / FILE_NAME))):
            store.append(RECORDS[0])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _row(record: Record) -> dict[str, Any]:
    return {
        "key": record.key,
        "figure": record.figure,
        "point": json.dumps(record.point.to_dict()),
        "protocol": json.dumps(dict(record.protocol)),
        "status": record.status,
        "value": json.dumps(dict(record.value)),
        "samples": json.dumps(dict(record.samples)),
        "error": record.error,
        "made_at": "2026-01-01T00:00:00.000+00:00",
        "environment": "{}",
    }


_ALL = [*RECORDS, *halved(curves(seeds=2))[:6]]


@st.composite
def _altered(draw: st.DrawFn) -> dict[str, Any]:
    """A row in which a field, or a value somewhere in one, is another."""
    row = _row(draw(st.sampled_from(_ALL)))
    name = draw(st.sampled_from([*COLUMNS, "environment"]))
    if name not in ("point", "protocol", "value", "samples", "environment") or draw(st.integers(0, 4)) == 0:
        text = st.text(max_size=20) | st.binary(max_size=8) | st.none() | st.integers() | st.just(DEEP)
        row[name] = draw(text | _JSON.map(json.dumps))
        return row
    content = json.loads(row[name])
    keys = sorted(content) or ["x"]
    content[draw(st.sampled_from(keys) | st.text(max_size=5))] = draw(_JSON)
    row[name] = json.dumps(content)
    if draw(st.booleans()) and name in ("point", "protocol"):
        # Altered by somebody who knows how keys are made.
        with suppress(WnexploreError, TypeError, ValueError):
            point = DesignPoint.from_dict(json.loads(row["point"]))
            row["key"] = record_key(row["figure"], point, json.loads(row["protocol"]))
    return row


@examples(150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_altered())
def test_any_row_is_a_record_that_can_be_shown_or_damaged(row: dict[str, Any]) -> None:
    assert len(frame(RECORDS)) >= 1  # pyarrow takes its first memory, more than the limit, before it
    with bounded(), suppress(DamagedRowError):
        record = RowReader().record(tuple(row.values()))
        assert len(frame([record])) >= 1
        assert isinstance(lines([record]), list)


@examples(300)
@given(_altered(), st.sampled_from([(), FIGURES]))
def test_a_row_that_passes_fast_would_pass_the_strict_check(
    row: dict[str, Any], samples_of: tuple[Figure, ...]
) -> None:
    reader, fields = RowReader(), tuple(row.values())
    quick = reader._valid(fields, samples_of)
    assert quick is None or repr(quick) == repr(reader._checked(fields, samples_of))


TEXTS = [
    '{"latency_ms": 1.5, "latency_ms_low": 1.25, "rounds": 2, "warnings": [{"kind": "a", "text": "b"}]}',
    '{"params": 1, "flops": 2, "operators": {"conv": 3}, "stopped_by": "target", "top1": 5, "x": [0.5]}',
    '{"latency_ms": [1.5, 2], "baseline_ms": [0.1, 3e2], "power_w": [null, -7]}',
    '{"loss": [1.5, -2], "tested_epochs": [1, 2.0], "tested_top1": [50, 60.5]}',
]
PIECES = [
    '"',
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    " ",
    "0",
    "-",
    ".",
    "e",
    "e999",
    "NaN",
    "-Infinity",
    "null",
    "true",
]
PIECES += [
    '"loss": [1], ',
    '"top1": 7, ',
    "[1], ",
    "\\u0041",
    "\\ud800",
    "\\",
    "\t",
    "\0",
    "9" * 400,
    "\ufeff",
    "1_0",
]


@examples(1000)
@given(
    st.sampled_from(TEXTS),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3), st.sampled_from(PIECES)), max_size=2),
)
def test_a_text_that_passes_fast_would_pass_the_strict_check(
    text: str, edits: list[tuple[int, int, str]]
) -> None:
    for place, left_out, piece in edits:
        text = text[:place] + piece + text[place + left_out :]
    for name, model, quick in (
        ("value", rows._Value, rows._valid_value(text, ())),
        ("samples", rows._Samples, rows._valid_samples(text, kept=True)),
        ("samples", rows._Samples, rows._valid_samples(text, kept=False)),
    ):
        if quick is not None:
            assert quick.keys() == rows._checked(text, name, model).keys()
    if not edits:
        assert rows._valid_value(text, ()) or rows._valid_samples(text, kept=False)


@pytest.mark.parametrize(
    "text",
    [
        '{"loss": [1.5], "loss": [2.5]}',
        '{"loss": [1.5], "loss" : [2.5]}',
        '{"loss": [NaN]}',
        '{"loss": [1e999]}',
        '{"power_w": [-1e999]}',
        '{"tested_epochs": [1], "tested_top1": [NaN]}',
        '{"tested_epochs": [1e999], "tested_top1": [5]}',
        '{"x": 1e999}',
        '{"x": {"y": [-1e999]}}',
        '{"x": {"y": 1, "y": 2}}',
        '{"top1": NaN}',
        '{"warnings": [{"kind": "a", "text": "b", "more": 1e999}]}',
    ],
)
def test_what_json_parsers_let_pass_is_refused(text: str) -> None:
    assert rows._valid_value(text, ()) is None
    assert rows._valid_samples(text, kept=True) is None
    assert rows._valid_samples(text, kept=False) is None


@pytest.mark.parametrize("text", ['{"loss": [1, 2.5, -0]}', '{"tested_epochs": [1], "tested_top1": [5]}'])
def test_kept_samples_are_as_written(text: str) -> None:
    assert repr(rows._valid_samples(text, kept=True)) == repr(json.loads(text))


@pytest.mark.slow
def test_a_hundred_thousand_records_are_checked_in_seconds_not_minutes(tmp_path: Path) -> None:
    filled(tmp_path, [complexity(PLAIN)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        record = training(PLAIN)
        every = []
        for seed in range(100_000):
            measured = Record("training", record.point, {**record.protocol, "seed": seed}, value=record.value)
            every.append((*list(_row(measured).values())[:9], 1))
        connection.executemany(
            f"INSERT INTO records ({', '.join(COLUMNS)}, environment) VALUES ({', '.join('?' * 10)})", every
        )
        connection.commit()
    code = "from pathlib import Path; from wnexplore.results.store import read_records as r"
    script = f"{code}; print(len(r(Path({str(tmp_path)!r}))))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["100001"]
