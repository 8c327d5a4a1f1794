from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.results.records import complexity, latency, points, sweep, training
from wnexplore.errors import InputError
from wnexplore.results.columns import Direction, Interval
from wnexplore.results.frame import cells, frame
from wnexplore.results.fronts import default_objectives, objectives_caption, pareto_rows
from wnexplore.results.pareto import pareto
from wnexplore.results.record import Record

Value = float | None
# Few different values, so that ties and equal points are common.
_values = st.one_of(st.none(), st.just(math.nan), st.integers(-3, 3).map(float), st.floats(allow_nan=False))
_cases = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(st.tuples(*[_values] * width), max_size=25),
        st.lists(st.sampled_from(("smaller", "larger")), min_size=width, max_size=width),
    )
)
_figures = st.tuples(
    st.integers(-4, 4), st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 3)))
)
_noisy_cases = st.integers(1, 3).flatmap(
    lambda width: st.tuples(
        st.lists(st.lists(_figures, min_size=width, max_size=width), max_size=8),
        st.lists(st.sampled_from(("smaller", "larger")), min_size=width, max_size=width),
    )
)


def dominates(a: tuple[Value, ...], b: tuple[Value, ...], directions: list[Direction]) -> bool:
    pairs = list(zip(a, b, directions, strict=True))
    no_worse = all(x <= y if d == "smaller" else x >= y for x, y, d in pairs)  # type: ignore[operator]
    return no_worse and any(x != y for x, y, _ in pairs)


def naive(rows: list[tuple[Value, ...]], directions: list[Direction]) -> list[bool]:
    def known(row: tuple[Value, ...]) -> bool:
        return all(value is not None and not math.isnan(value) for value in row)

    return [known(b) and not any(known(a) and dominates(a, b, directions) for a in rows) for b in rows]


@given(_cases)
def test_matches_the_definition(case: tuple[list[tuple[Value, ...]], list[Direction]]) -> None:
    rows, directions = case
    assert pareto(rows, directions) == naive(rows, directions)
    no_width = [
        [None if value is None or math.isnan(value) else (value, value) for value in row] for row in rows
    ]
    assert pareto(rows, directions, no_width) == naive(rows, directions)


Noisy = list[list[tuple[int, tuple[int, int] | None]]]


@given(_noisy_cases)
def test_under_noise_dominates_what_is_dominated_wherever_the_true_values_lie(
    case: tuple[Noisy, list[Direction]],
) -> None:
    rows, directions = case
    values = [[float(value) for value, _ in row] for row in rows]
    bounds: list[list[Interval | None]] = [
        [None if width is None else (value - width[0], value + width[1]) for value, width in row]
        for row in rows
    ]

    def possible(index: int) -> list[tuple[float, ...]]:
        ends = [
            (v,) if bound is None else bound for v, bound in zip(values[index], bounds[index], strict=True)
        ]
        return list(itertools.product(*ends))

    def certainly(a: int, b: int) -> bool:
        return all(dominates(x, y, directions) for x in possible(a) for y in possible(b))

    everyone = range(len(rows))
    kept = pareto(values, directions, bounds)
    assert kept == [not any(certainly(a, b) for a in everyone) for b in everyone]
    assert all(kept[index] for index, best in enumerate(pareto(values, directions)) if best)


def test_an_interval_is_stretched_to_its_value() -> None:
    # A median may lie a rounding error outside of its interval.
    assert pareto([(1.0,), (2.0,)], ["smaller"], [[(3.0, 4.0)], [(3.5, 4.0)]]) == [True, True]
    assert pareto([(5.0,), (6.0,)], ["smaller"], [[(3.0, 4.0)], [(6.0, 7.0)]]) == [True, False]


def test_ragged_points_are_refused() -> None:
    with pytest.raises(ValueError, match="point 1"):
        pareto([(1.0, 2.0), (1.0,)], ["smaller", "smaller"])
    with pytest.raises(ValueError, match="point 0"):
        pareto([(1.0,)], ["smaller"], [[]])


def test_five_thousand_points_of_which_none_dominates_another() -> None:
    # On a circle's quarter none dominates another: the most that there is to compare.
    angles = [math.pi / 2 * index / 5000 for index in range(5000)]
    circle = [(1 - math.cos(angle), 1 - math.sin(angle)) for angle in angles]
    assert all(pareto(circle, ["smaller", "smaller"], [[None, None]] * 5000))


def test_default_objectives() -> None:
    point = points()[0]
    assert default_objectives(frame([complexity(point), latency(point)])) == ()
    assert default_objectives(frame([complexity(point), training(point)])) == ("top1", "flops")


def test_the_caption_says_which_rule_was_used() -> None:
    names = ("top1", "latency_ms")
    caption = "Pareto-optimal in top-1 (larger), latency (smaller)"
    assert objectives_caption(names) == f"{caption}, latencies by disjoint intervals"
    assert objectives_caption(names, strict=True) == f"{caption}, latencies by their medians"
    assert objectives_caption(("top1", "flops")) == "Pareto-optimal in top-1 (larger), FLOPs (smaller)"


def _timed(ms: float, params: int, index: int) -> list[Record]:
    """A point whose latency is known from 1 % below to 2 % above `ms`."""
    return [complexity(points()[index], params=params), latency(points()[index], ms)]


def test_rows_whose_latencies_overlap_are_both_kept() -> None:
    table = frame([*_timed(5.0, 100, 0), *_timed(5.1, 200, 1), *_timed(5.2, 300, 2)])
    # 5.0 reaches up to 5.1; the others begin at 5.049 and 5.148.
    assert pareto_rows(table, ("latency_ms", "params")) == [True, True, False]
    assert pareto_rows(table, ("latency_ms", "params"), strict=True) == [True, False, False]


def test_an_accuracy_goes_by_its_mean() -> None:
    records = [complexity(p) for p in points()[:2]]
    for point, seeds in zip(points(), ((80.0, 99.0), (81.0, 99.0)), strict=False):
        records += [training(point, top1, seed=seed) for seed, top1 in enumerate(seeds)]
    assert pareto_rows(frame(records)) == [False, True]


def test_batch_sizes_do_not_compete() -> None:
    table = frame(sweep())
    marks = pareto_rows(table, ("latency_ms",), strict=True)
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
