from __future__ import annotations

import pytest
from hypothesis import given

from tests.design.conditions import Written, conditions
from tests.examples import examples
from tests.results.records import complexity, latency, points, sweep
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.results.columns import COLUMNS
from wnexplore.results.filters import sort, where
from wnexplore.results.frame import cells, frame

TABLE = frame(sweep())
TINY = frame([complexity(DesignPoint.of("resnet18", "weightnet", M, "1/64")) for M in ("1/64", "1/32", 1)])


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("method == weightnet and M == 2 and batch_size == 1", 2),
        ("method=='weightnet' and G<=2 and batch_size==1 and M in [1, 2]", 3),
        ('method in ["plain", se] and batch_size == 16', 2),
        ("method not in [plain, se, condconv, weightnet]", 0),
        ("1 < M <= 4 and batch_size == 1", 5),
        ("not (method == weightnet)", 6),
        ("params < 0.5M", 8),
        ("params < 500k", 8),
        ("params < 5e5", 8),
        ("status == out_of_memory", 1),
        ("device_name == 'AMD EPYC 7B13' and method == plain", 2),
        ("latency_ms > latency_ms_low and method == plain", 2),
        ("M == G and batch_size == 1", 3),
        ("params > -1 and method == plain or method == se", 4),
        ("2 == M and batch_size == 1", 2),
    ],
)
def test_selects(expression: str, count: int) -> None:
    assert len(where(TABLE, expression)) == count


def test_fractions_are_exact() -> None:
    assert len(where(TINY, "M == 1/64")) == 1
    assert len(where(TINY, "M > 1/64 and M <= 2/64")) == 1
    assert len(where(TINY, "M in [1/64, 1/32]")) == 2
    assert len(where(TINY, "M == 0.015625")) == 1


def test_a_float_matches_what_it_prints_as() -> None:
    table = frame([latency(DesignPoint.of("resnet18"), 0.1)])
    assert len(where(table, "latency_ms == 0.1")) == 1


@pytest.mark.parametrize(
    "condition", ["M < 100", "M >= 100", "M != 2", "M in [1]", "top1 < 200", "error != x"]
)
def test_missing_values_match_neither_a_condition_nor_its_negation(condition: str) -> None:
    name = condition.split()[0]
    for expression in (condition, f"not ({condition})"):
        assert None not in cells(where(TABLE, expression), name)


ROWS = [
    *(complexity(point) for point in points()[:6]),
    *(latency(points()[number], 0.1 * number, batch_size=number) for number in (1, 2, 4)),
    *(
        complexity(DesignPoint.of("shufflenet_v2_x0_5", "weightnet", M, 2), 350_000)
        for M in ("4/C", "2:1+3:2+4:8")
    ),
]
SMALL_TABLE = frame(ROWS)
KINDS = {
    name: COLUMNS[name].kind for name in ("method", "device", "M", "G", "batch_size", "params", "latency_ms")
}


@examples(100)
@given(conditions(KINDS))
def test_keeps_the_rows_that_a_naive_reading_keeps(written: Written) -> None:
    columns = {name: cells(SMALL_TABLE, name) for name in KINDS}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    wanted = [row for row in rows if written.answer(row) is True]
    kept = where(SMALL_TABLE, written.text)
    assert {name: cells(kept, name) for name in KINDS} == {n: [row[n] for row in wanted] for n in KINDS}


def test_errors_say_where_and_what() -> None:
    with pytest.raises(InputError, match=r"'latncy_ms'.*'latency_ms'"):
        where(TABLE, "latncy_ms < 5")
    with pytest.raises(InputError, match=r"character 3: .*=="):
        where(TABLE, "M = 2")
    with pytest.raises(InputError, match=r"character 12: .*'and'"):
        where(TABLE, "M == 2 and and G == 1")


def test_huge_numbers_compare_as_infinite() -> None:
    assert len(where(TABLE, "latency_ms < 1e999")) == 23
    assert len(where(TABLE, "latency_ms < -1e999")) == 0


def test_sort_puts_missing_last_either_way() -> None:
    for key, order in (("latency_ms", 1), ("-latency_ms", -1)):
        values = cells(sort(TABLE, key), "latency_ms")
        known = [value for value in values if value is not None]
        assert values == [*sorted(known, reverse=order < 0), None, None]


def test_sort_by_several_columns_and_by_fractions() -> None:
    table = sort(TABLE, "method, -M")
    assert cells(table, "method") == sorted(cells(TABLE, "method"))
    Ms = [M for M in cells(table, "M") if M is not None]
    assert Ms == sorted(Ms, reverse=True)


@pytest.mark.parametrize("key", ["", "-", "nope", "top1,", "--top1", "-top"])
def test_sort_refuses_what_is_no_column(key: str) -> None:
    with pytest.raises(InputError):
        sort(TABLE, key)
