"""Predicted latencies of a space against those of its points one by one, and what they rest on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.latencies import PLAIN_MS, PROTOCOL, latency, true_ratio, write_run
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError
from wnexplore.report.calibration_lines import speed_line
from wnexplore.results import filters
from wnexplore.results.pareto import pareto
from wnexplore.results.record import Record
from wnexplore.space.expansion import frame_of, space_of, to_csv
from wnexplore.space.grid import Space
from wnexplore.space.near_front import NearFront
from wnexplore.space.prediction import LATENCY_COLUMNS, PREDICTED, Calibration, calibration
from wnexplore.space.selection import front, open_points, overlapping, sample, truth

SMALL = {"stem": ["small"], "resolution": [8], "num_classes": [10], "latency": False}
PER_STAGE = {"methods": ["plain", "weightnet"], "M": [1, 2, 4, 8], "G": [1, 2], "per_stage": True}


def space(**axes: Any) -> Space:
    return space_of(SweepSpec.model_validate({**SMALL, **PER_STAGE, **axes}))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Latencies of 40 random networks of the space."""
    found = space()
    chosen = sample(open_points(found, None), 40, 1).tolist()
    return write_run(tmp_path_factory.mktemp("run") / "run", [found.point(index) for index in chosen])


@pytest.fixture(scope="module")
def known(records: list[Record]) -> Calibration:
    return calibration(records, "RUN")


@pytest.mark.parametrize(
    "axes", [{}, {"per_stage": False}, {"stages": [None, "3+4"], "activation": ["sigmoid", "tanh"]}]
)
def test_every_entry_is_what_its_point_is_predicted(known: Calibration, axes: dict[str, Any]) -> None:
    found = space(**axes)
    predicted = known.predict(found)
    for index in sample(np.flatnonzero(found.legal), 12, 0).tolist():
        point = found.point(index)
        alone = known.predict_point(point)
        assert predicted.row(index) == pytest.approx(alone, rel=1e-9)
        if point.method == "plain":
            assert [alone[f"latency_ratio{end}"] for end in ("", "_low", "_high")] == [1.0] * 3
        elif point.stages is None and point.activation == "sigmoid":
            ms, low, high, ratio, ratio_low, ratio_high = (alone[name] for name in LATENCY_COLUMNS)
            assert ratio == pytest.approx(true_ratio(point), rel=0.03)
            assert ms == pytest.approx(PLAIN_MS * (ratio or 0))
            assert (low or 0) < (ms or 0) < (high or 0)
            assert (ratio_low or 0) < (ratio or 0) < (ratio_high or 0)


def test_what_was_never_timed_is_not_predicted(known: Calibration) -> None:
    found = space(methods=["plain", "se", "weightnet"], M=[1, 64], G=[1], per_stage=False)
    predicted = known.predict(found)
    names = {str(found.point(i)): bool(predicted.known[i]) for i in np.flatnonzero(found.legal).tolist()}
    assert names == {
        "shufflenet_v2_x0_5 plain": True,
        "shufflenet_v2_x0_5 se": False,
        "shufflenet_v2_x0_5 weightnet M=1 G=1": True,
        "shufflenet_v2_x0_5 weightnet M=64 G=1": False,
    }
    where = filters.condition("latency_ratio < 100")
    assert truth(found, where, predicted).holds[found.legal].tolist() == list(names.values())
    rows = frame_of(found, np.flatnonzero(found.legal), predicted)
    assert rows["latency_is"].fillna("").tolist() == ["predicted", "", "predicted", ""]


CONDITIONS = (
    "latency_ratio < 1.15 and params < 600k",
    "not latency_ms <= 9.2 or M == 1",
    "latency_ratio_high < 1.15",
    "1.1 < latency_ratio <= 1.2 and batch_size == 1",
    "batch_size == 16 or latency_is == measured",
)


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_keeps_what_it_keeps_of_the_rows_of_a_table(known: Calibration, text: str) -> None:
    found = space()
    predicted = known.predict(found)
    points = sample(np.flatnonzero(found.legal), 80, 3)
    rows = filters.truth(frame_of(found, points, predicted), filters.condition(text))
    ours = truth(found, filters.condition(text), predicted)
    assert ours.holds[points].tolist() == rows.holds.tolist()
    assert ours.fails[points].tolist() == rows.fails.tolist()


def test_what_surely_breaks_a_budget_does_so_throughout_its_interval(known: Calibration) -> None:
    found = space()
    predicted = known.predict(found)
    condition = filters.condition("latency_ratio < 1.12")
    ours, low, high = (
        truth(found, condition, predicted, surely=True),
        predicted.column("latency_ratio_low"),
        predicted.column("latency_ratio_high"),
    )
    assert (ours.holds == (high < 1.12))[found.legal].all()
    assert (ours.fails == (low >= 1.12))[found.legal].all()
    assert 0 < ours.holds.sum() + ours.fails.sum() < len(found)


@pytest.mark.parametrize("objectives", [("latency_ms", "params"), ("params", "flops", "latency_ratio")])
def test_the_front_is_that_of_all_rows(known: Calibration, objectives: tuple[str, ...]) -> None:
    found = space()
    predicted = known.predict(found)
    points = open_points(found, None)
    costs = [
        predicted.column(name, points) if name in PREDICTED else getattr(found, name)[points]
        for name in objectives
    ]
    rows = np.array(costs, dtype=float).T.tolist()
    kept = front(found, points, objectives, predicted)
    assert kept.tolist() == points[pareto(rows, ["smaller"] * len(objectives))].tolist()
    others = overlapping(predicted, kept)
    low, high = (predicted.column(f"latency_ratio_{end}", kept) for end in ("low", "high"))
    for at, alike in enumerate(others):
        overlaps = (low <= high[at]) & (low[at] <= high)
        assert set(alike) <= set(kept[overlaps].tolist()) - {int(kept[at])}
    lines = to_csv(found, kept, predicted, others).splitlines()
    assert len(lines) == len(kept) + 1
    assert lines[0].endswith(",latency_ratio_high,latency_is,alike")
    assert all(",predicted," in line for line in lines[1:])


@pytest.mark.parametrize("objectives", [("latency_ms", "params"), ("params", "flops", "latency_ratio")])
def test_near_the_front_is_what_no_feasible_point_certainly_beats(
    known: Calibration, objectives: tuple[str, ...]
) -> None:
    found = space()
    predicted = known.predict(found)
    points = sample(open_points(found, None), 150, 1)
    feasible = points[found.params[points] > np.median(found.params[points])]

    def costs(end: str, at: NDArray[np.intp]) -> NDArray[np.float64]:
        columns = [
            predicted.column(f"{name}{end}", at) if name in PREDICTED else getattr(found, name)[at]
            for name in objectives
        ]
        return np.array(columns, dtype=float).T

    worst = costs("_high", feasible)
    near = [
        not any((other <= best).all() and (other < best).any() for other in worst)
        for best in costs("_low", points)
    ]
    assert NearFront.of(found, feasible, objectives, predicted).has(found, points, predicted).tolist() == near
    assert 0 < sum(near) < len(points)
    # What is on the front by its values may be on it by its intervals.
    all_of_them = NearFront.of(found, points, objectives, predicted)
    kept = front(found, points, objectives, predicted)
    assert all_of_them.has(found, kept, predicted).all()


def test_a_machine_whose_speed_changed_is_told_by_the_plain_networks_times(records: list[Record]) -> None:
    def with_times(record: Record, ms: float) -> Record:
        return replace(record, samples={"baseline_ms": [ms, ms * 1.01, ms * 0.99]})

    steady = [with_times(record, 8 + number % 3 / 10) for number, record in enumerate(records)]
    (plain,) = calibration(steady, "RUN").timed
    assert calibration(steady, "RUN").plain_times(plain) == pytest.approx((8.0, 8.2))
    assert speed_line(*calibration(steady, "RUN").plain_times(plain)) == ""
    changed = [with_times(record, 8 if number < 20 else 11) for number, record in enumerate(records)]
    assert "8 to 11 ms" in speed_line(*calibration(changed, "RUN").plain_times(plain))
    # In one group, whose rounds tell it from others: what changed in between.
    times = [8 + number % 3 / 10 for number in range(50)] + [11 - number % 3 / 10 for number in range(50)]
    seconds = [2.0 * number for number in range(100)]
    together = [replace(r, samples={"baseline_ms": times, "round_s": seconds}) for r in records]
    assert calibration(together, "RUN").plain_times(plain) == pytest.approx((8.1, 10.9))
    # Without samples nothing is known, and nothing said.
    assert speed_line(*calibration(records, "RUN").plain_times(plain)) == ""


def test_networks_of_the_same_rounds_are_a_group_whatever_was_timed_beside_them(
    records: list[Record],
) -> None:
    def timed_at(record: Record, number: int) -> Record:
        # Two groups, in parts of their rounds with other passes of the plain network.
        seconds = [1.0 + number % 2, 2.0 + number % 2, 3.0 + number % 2]
        return replace(record, samples={"baseline_ms": [8.0 + number] * 3, "round_s": seconds})

    (found,) = calibration([timed_at(r, n) for n, r in enumerate(records)], "RUN").timed.values()
    assert len({network.group for network in found}) == 2


def test_one_protocol_is_chosen_by_a_condition(records: list[Record]) -> None:
    at_16 = replace(PROTOCOL, batch_size=16)
    both = [*records, *(latency(r.point, 2 * r.value["latency_ratio"], 0.01, at_16) for r in records)]
    with pytest.raises(InputError, match=r"batch_size is 1 or 16.*--where \"batch_size == 1\""):
        calibration(both, "RUN")
    for size in (1, 16):
        chosen = calibration(both, "RUN", filters.condition(f"batch_size == {size} and latency_ratio < 2"))
        assert chosen.protocol["batch_size"] == size
    with pytest.raises(InputError, match="batch_size is 1 or 16"):
        calibration(both, "RUN", filters.condition("batch_size == 4"))
    with pytest.raises(InputError, match="no latencies"):
        calibration([], "RUN")


def test_networks_that_were_not_timed_are_named(known: Calibration) -> None:
    with pytest.raises(InputError, match=r"RUN has latencies of 0 networks made of resnet18 plain.*needs 19"):
        known.predict(space(backbones=["shufflenet_v2_x0_5", "resnet18"]))
    # Those that a condition leaves out need none.
    mixed = space(backbones=["shufflenet_v2_x0_5", "resnet18"])
    kept = open_points(mixed, filters.condition("backbone == shufflenet_v2_x0_5"))
    assert known.predict(mixed, kept).known[kept].all()


def test_the_newest_latency_of_a_network_counts(records: list[Record]) -> None:
    plain = next(record.point for record in records if record.point.method == "plain")
    again = latency(plain, 1.0, 0.0)
    slower = replace(
        again, value={**again.value, "latency_ms": 20.0, "latency_ms_low": 19.0, "latency_ms_high": 21.0}
    )
    found = calibration([*records, slower], "RUN").plain_latency(plain)
    assert (found.ms, found.relative_error) == (20.0, pytest.approx(0.05))
    # Without a record of its own it is what ratios say.
    without = [record for record in records if record.point != plain]
    assert calibration(without, "RUN").plain_latency(plain).ms == pytest.approx(PLAIN_MS, rel=0.01)
