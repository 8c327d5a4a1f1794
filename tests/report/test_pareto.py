from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.records import complexity, latency, points, sweep, training
from wnexplore.errors import InputError
from wnexplore.report.columns import Direction
from wnexplore.report.frame import cells, frame
from wnexplore.report.fronts import default_objectives, objectives_caption, pareto_rows
from wnexplore.report.pareto import pareto

Value = float | None
# Few different values, so that ties and equal points are common.
_values = st.one_of(st.none(), st.just(math.nan), st.integers(-3, 3).map(float), st.floats(allow_nan=False))
_cases = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(st.tuples(*[_values] * width), max_size=25),
        st.lists(st.sampled_from(("smaller", "larger")), min_size=width, max_size=width),
    )
)


def naive(rows: list[tuple[Value, ...]], directions: list[Direction]) -> list[bool]:
    def known(row: tuple[Value, ...]) -> bool:
        return all(value is not None and not math.isnan(value) for value in row)

    def dominates(a: tuple[Value, ...], b: tuple[Value, ...]) -> bool:
        pairs = list(zip(a, b, directions, strict=True))
        no_worse = all(x <= y if d == "smaller" else x >= y for x, y, d in pairs)  # type: ignore[operator]
        return no_worse and any(x != y for x, y, _ in pairs)

    return [known(b) and not any(known(a) and dominates(a, b) for a in rows) for b in rows]


@given(_cases)
def test_matches_the_definition(case: tuple[list[tuple[Value, ...]], list[Direction]]) -> None:
    rows, directions = case
    assert pareto(rows, directions) == naive(rows, directions)


def test_ragged_points_are_refused() -> None:
    with pytest.raises(ValueError, match="point 1"):
        pareto([(1.0, 2.0), (1.0,)], ["smaller", "smaller"])


def test_default_objectives() -> None:
    point = points()[0]
    assert default_objectives(frame([complexity(point), latency(point)])) == ()
    assert default_objectives(frame([complexity(point), training(point)])) == ("top1", "flops")
    assert objectives_caption(("top1", "flops")) == "Pareto-optimal in top-1 (larger), FLOPs (smaller)"


def test_batch_sizes_do_not_compete() -> None:
    table = frame(sweep())
    marks = pareto_rows(table, ("latency_ms",))
    best = [batch for batch, mark in zip(cells(table, "batch_size"), marks, strict=True) if mark]
    assert sorted(best) == [1, 16]


def test_data_sets_do_not_compete() -> None:
    point = points()[0]
    table = frame(
        [complexity(point), training(point, 99, dataset="easy"), training(point, 9, dataset="hard")]
    )
    assert pareto_rows(table) == [True, True]


@pytest.mark.parametrize("name", ["nonsense", "method", "epochs", "M"])
def test_what_is_no_objective_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        pareto_rows(frame(sweep()), (name,))
