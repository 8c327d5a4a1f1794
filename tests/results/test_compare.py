from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.results.records import complexity, failure, latency, points, sweep, training
from wnexplore.errors import InputError
from wnexplore.report.compare_table import failures, lonely_lines, versus_dict, versus_layout
from wnexplore.results.columns import COLUMNS
from wnexplore.results.compare import Measured, Pair, Versus, software, versus
from wnexplore.results.frame import frame
from wnexplore.results.record import Record

PLAIN, SE, CONDCONV, WEIGHTNET = points()[:4]
_bounds = st.tuples(*[st.integers(1, 20)] * 3).map(sorted)


def compared(a: list[Record], b: list[Record], name: str = "latency_ms") -> Versus:
    return versus(frame(a), frame(b), name)


def ratios(found: Versus) -> dict[Any, float]:
    return {(p.identity["method"], p.identity.get("batch_size")): p.ratio for p in found.pairs}


@given(_bounds, _bounds, st.sampled_from(("latency_ms", "top1")))
def test_certain_is_what_holds_wherever_the_true_values_lie(a: list[int], b: list[int], name: str) -> None:
    (a_low, a_value, a_high), (b_low, b_value, b_high) = a, b
    ours, theirs = Measured(a_value, (a_low, a_high)), Measured(b_value, (b_low, b_high))
    every = [(x, y) for x in range(a_low, a_high + 1) for y in range(b_low, b_high + 1)]
    smaller, larger = all(y < x for x, y in every), all(y > x for x, y in every)
    pair, back = Pair({}, COLUMNS[name], ours, theirs), Pair({}, COLUMNS[name], theirs, ours)
    if smaller or larger:
        assert pair.verdict == ("better" if smaller == (name == "latency_ms") else "worse")
    else:
        assert pair.verdict == ("equal" if len(every) == 1 else "unclear")
    assert back.verdict == {"better": "worse", "worse": "better"}.get(pair.verdict, pair.verdict)
    assert pair.ratio_interval is not None
    low, high = pair.ratio_interval
    assert (low, high) == (min(y / x for x, y in every), max(y / x for x, y in every))
    assert (low <= 1 <= high) == (not smaller and not larger)
    times_worse = b_value / a_value if name == "latency_ms" else a_value / b_value
    for threshold in (1.0, 1.05, 1.5):
        assert pair.fails(threshold) == (pair.verdict == "worse" and times_worse > threshold)


def test_where_an_interval_is_not_known_nothing_is_certain() -> None:
    one_seed = compared([training(PLAIN, 80.0)], [training(PLAIN, 90.0)], "top1")
    assert [(p.verdict, p.ratio, p.ratio_interval) for p in one_seed.pairs] == [("unclear", 1.125, None)]


def test_counts_are_exact() -> None:
    found = compared([complexity(PLAIN, flops=10**9)], [complexity(PLAIN, flops=10**9 + 1)], "flops")
    assert [pair.verdict for pair in found.pairs] == ["worse"]
    assert found.pairs[0].fails(1.0)
    assert not found.pairs[0].fails(1.05)


def test_what_each_run_holds_one_value_of_may_differ_between_them() -> None:
    ours = [latency(p, 4.0, batch_size=n) for p in (PLAIN, SE) for n in (1, 16)]
    gpu: dict[str, Any] = {"device": "cuda", "device_name": "H100", "threads": None, "runtime": "compile"}
    theirs = [latency(p, 2.0 * n, batch_size=n, **gpu) for p in (PLAIN, SE) for n in (1, 16)]
    found = compared(ours, theirs)
    assert ratios(found) == {("plain", 1): 0.5, ("plain", 16): 8, ("se", 1): 0.5, ("se", 16): 8}
    assert found.apart == {
        "device": ("cpu", "cuda"),
        "device_name": ("AMD EPYC 7B13", "H100"),
        "runtime": ("eager", "compile"),
        "threads": (2, None),
    }
    assert found.alike["dtype"] == "float32"


def test_what_varies_within_a_run_has_to_agree() -> None:
    ours = [latency(PLAIN, ms, runtime=name) for name, ms in (("eager", 4.0), ("compile", 2.0))]
    found = compared(ours, [latency(PLAIN, 3.0, runtime="compile")])
    assert [pair.ratio for pair in found.pairs] == [1.5]
    assert [entry.identity["runtime"] for entry in found.only_a] == ["eager"]


@pytest.mark.parametrize(("name", "other"), [("batch_size", 16), ("mode", "train")])
def test_what_is_timed_never_differs(name: str, other: object) -> None:
    with pytest.raises(InputError, match="batch_size, mode"):
        compared([latency(PLAIN)], [latency(PLAIN, **{name: other})])  # type: ignore[arg-type]


def test_data_sets_never_differ_but_epochs_may() -> None:
    with pytest.raises(InputError, match="dataset"):
        compared([training(PLAIN)], [training(PLAIN, dataset="cifar10")], "top1")
    found = compared([training(PLAIN, epochs=1)], [training(PLAIN, epochs=5)], "top1")
    assert found.apart == {"epochs": (1, 5)}


def test_a_pair_is_one_whatever_else_the_rows_hold() -> None:
    two_sets = [training(PLAIN, dataset=name) for name in ("digits", "cifar10")]
    found = compared([latency(PLAIN), *two_sets], [latency(PLAIN), *two_sets])
    assert len(found.pairs) == 1


def test_points_of_one_run_alone_are_reported_with_what_became_of_them() -> None:
    gone = failure("latency", SE, "out_of_memory", "no memory")
    found = compared([latency(p) for p in (PLAIN, SE, CONDCONV)], [latency(PLAIN), gone, latency(WEIGHTNET)])
    assert lonely_lines(found) == [
        "only in A: shufflenet_v2_x0_5, se (B: out of memory)",
        "only in A: shufflenet_v2_x0_5, condconv",
        "only in B: shufflenet_v2_x0_5, weightnet, M = 1, G = 1",
    ]


def test_different_counts_of_one_network_are_reported_whatever_is_compared() -> None:
    ours = [r for p in (PLAIN, SE) for r in (latency(p), complexity(p, 1000, 2000))]
    theirs = [latency(PLAIN), complexity(PLAIN, 1000, 2000), latency(SE), complexity(SE, 1001, 2000)]
    for name in ("latency_ms", "flops"):
        (count,) = compared(ours, theirs, name).counts
        assert (count.identity["method"], count.column.name, count.a, count.b) == ("se", "params", 1000, 1001)
    assert compared(ours, theirs, "params").counts == ()
    caption = versus_layout(compared(ours, theirs), {}, ("a", "b")).caption
    assert caption[-1] == "counted differently: shufflenet_v2_x0_5, se: params 1,000 in A, 1,001 in B"


def test_software_is_named_where_it_differs_and_is_one() -> None:
    def measured(*versions: str, cuda: str | None = None) -> list[Record]:
        runs = zip(points(), versions, strict=False)
        return [
            replace(latency(p), environment={"torch": v, "cuda": cuda, "wnexplore": "1"}) for p, v in runs
        ]

    assert software(measured("2.6"), measured("2.7", "2.7"), "latency_ms") == {"torch": ("2.6", "2.7")}
    assert software(measured("2.6"), measured("2.7", "2.8"), "latency_ms") == {}
    assert software(measured("2.6"), measured("2.6", cuda="12"), "latency_ms") == {}
    assert software(measured("2.6"), measured("2.7"), "top1") == {}


def test_a_table_for_a_person() -> None:
    # 2 % above 4 ms is below 1 % under 5 ms, and 5 / 4 above 1.2.
    ours = [latency(PLAIN, 4.0), latency(SE, 4.0), latency(WEIGHTNET, 4.0)]
    theirs = [latency(p, ms, runtime="compile") for p, ms in ((PLAIN, 5.0), (SE, 4.05), (WEIGHTNET, 2.0))]
    found = compared(ours, theirs)
    contents = versus_layout(found, {"torch": ("2.6.0", "2.7.1")}, ("runs/a", "runs/b"), 1.2)
    assert contents.title == "A: runs/a · eager · torch 2.6.0\nB: runs/b · compile · torch 2.7.1"
    assert contents.headings == ("", "method", "M", "G", "A latency (ms)", "B latency (ms)", "B/A", "B is")
    # 4.05·0.99 / (4·1.02) to 4.05·1.02 / (4·0.99), the larger side of 1.0125 being 0.031.
    assert contents.rows == (
        ("✗", "plain", "", "", "4.00 ± 0.08", "5.00 ± 0.10", "1.250 ± 0.038", "slower"),
        ("", "se", "", "", "4.00 ± 0.08", "4.05 ± 0.08", "1.012 ± 0.031", "unclear"),
        ("", "weightnet", "1", "1", "4.00 ± 0.08", "2.00 ± 0.04", "0.500 ± 0.015", "faster"),
    )
    assert contents.caption[1] == "B: 1 slower, 1 unclear, 1 faster (95 % intervals overlap)"
    assert failures(found, 1.2) == [
        "shufflenet_v2_x0_5, plain: latency_ms 4.00 ± 0.08 in A, 5.00 ± 0.10 in B: worse by a factor of 1.250"
    ]
    assert failures(found, 1.3) == []


def test_an_object_for_a_program() -> None:
    found = compared([latency(WEIGHTNET, 4.0), complexity(WEIGHTNET)], [latency(WEIGHTNET, 5.0)])
    message = versus_dict(found, {}, ("a", "b"), 1.05)
    (pair,) = message["pairs"]
    assert (pair["M"], pair["batch_size"], pair["verdict"], pair["failed"]) == ("1", 1, "worse", True)
    assert (pair["a"], pair["b"], pair["ratio"]) == (4.0, 5.0, 1.25)
    assert pair["ratio_low"] == pytest.approx(5 * 0.99 / (4 * 1.02))
    assert pair["ratio_high"] == pytest.approx(5 * 1.02 / (4 * 0.99))
    nothing = compared([training(PLAIN, 0.0)], [training(PLAIN, 1.0)], "top1")
    assert versus_dict(nothing, {}, ("a", "b"))["pairs"][0]["ratio"] is None


def test_a_run_is_like_itself() -> None:
    found = compared(sweep(), sweep())
    assert len(found.pairs) == 23
    assert {pair.verdict for pair in found.pairs} == {"unclear"}
    assert {pair.ratio for pair in found.pairs} == {1.0}
    assert (found.only_a, found.only_b, found.apart, found.counts) == ((), (), {}, ())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("latncy_ms", "'latncy_ms'.*'latency_ms'"),
        ("method", "'method'"),
        ("seeds", "'seeds'"),
        ("energy_j", r"'energy_j'.* A\b"),
    ],
)
def test_what_cannot_be_compared_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compared(sweep(), sweep(), name)
    with pytest.raises(InputError, match=r"'latency_ms'.* B\b"):
        compared(sweep(), [complexity(PLAIN)])
