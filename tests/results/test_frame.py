from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.results.records import LATENCY, SMALL, complexity, failure, latency, sweep, training
from wnexplore.design.point import DesignPoint
from wnexplore.results.columns import COLUMNS, compact, decimals, prefixed, ratio_text, with_interval
from wnexplore.results.frame import cells, frame, shared

POINT = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", "1/48", "1/48", stem="small", num_classes=10)
PLAIN = DesignPoint.of("shufflenet_v2_x0_5", **SMALL)  # type: ignore[arg-type]


def one(*records: object) -> dict[str, object]:
    table = frame(records)  # type: ignore[arg-type]
    assert len(table) == 1
    return {name: cells(table, name)[0] for name in COLUMNS}


def test_no_records_give_all_columns_and_no_row() -> None:
    assert list(frame([]).columns) == list(COLUMNS)
    assert len(frame([])) == 0


def test_counts_are_exact_integers_and_the_rest_is_empty() -> None:
    row = one(complexity(POINT, params=2**53 + 1))
    assert row["params"] == 2**53 + 1
    assert row["M"] == Fraction(1, 48)
    assert row["latency_ms"] is row["top1"] is row["seeds"] is row["error"] is None
    assert row["status"] == "ok"


def test_rows_are_latency_protocols_times_training_protocols() -> None:
    records = [complexity(PLAIN), latency(PLAIN), latency(PLAIN, batch_size=16)]
    records += [training(PLAIN, dataset=name, seed=seed) for name in ("a", "b") for seed in range(3)]
    table = frame(records)
    assert sorted(zip(cells(table, "batch_size"), cells(table, "dataset"), strict=True)) == [
        (1, "a"),
        (1, "b"),
        (16, "a"),
        (16, "b"),
    ]
    assert cells(table, "seeds") == [3] * 4
    assert cells(table, "device") == ["cpu"] * 4  # not the training's


def test_student_t_interval_against_a_printed_table() -> None:
    row = one(*(training(PLAIN, top1, seed=seed) for seed, top1 in enumerate((90.0, 91.0, 92.0))))
    assert row["top1"] == 91.0
    half = 4.302653 / 3**0.5  # t(0.975, 2) from the table, standard deviation 1
    assert row["top1_low"] == pytest.approx(91 - half, abs=1e-5)
    assert row["top1_high"] == pytest.approx(91 + half, abs=1e-5)


def test_interval_is_clipped_to_percent_and_empty_for_one_seed() -> None:
    row = one(training(PLAIN, 99.9, seed=0), training(PLAIN, 90.0, seed=1))
    assert row["top1_high"] == 100.0
    assert row["top1_low"] == 0.0 or row["top1_low"] > 0  # type: ignore[operator]
    single = one(training(PLAIN, 90.0))
    assert (single["top1"], single["top1_low"], single["seeds"]) == (90.0, None, 1)


def test_newest_of_the_same_visible_cell_wins() -> None:
    assert one(latency(PLAIN, 5.0), latency(PLAIN, 7.0, seconds=9.0))["latency_ms"] == 7.0
    assert one(complexity(PLAIN, 1), complexity(PLAIN, 2))["params"] == 2


def test_seeds_of_different_hidden_settings_are_never_averaged() -> None:
    old = [training(PLAIN, 50.0, seed=seed) for seed in range(3)]
    row = one(*old, training(PLAIN, 90.0, seed=0, lr=0.5))
    assert (row["top1"], row["seeds"]) == (90.0, 1)


def test_worst_status_wins_and_errors_are_kept() -> None:
    row = one(
        complexity(PLAIN),
        failure("latency", PLAIN, "out_of_memory", "no memory"),
        failure("training", PLAIN, "failed", "diverged"),
    )
    assert (row["status"], row["error"]) == ("failed", "no memory; diverged")
    assert (row["params"], row["latency_ms"], row["top1"], row["seeds"]) == (350_001, None, None, 0)


def test_failed_seed_is_left_out_of_the_mean() -> None:
    row = one(
        training(PLAIN, 80.0, seed=0), training(PLAIN, 90.0, seed=1), failure("training", PLAIN, seed=2)
    )
    assert (row["top1"], row["seeds"], row["status"]) == (85.0, 2, "failed")


def test_old_records_without_optional_keys_are_read() -> None:
    bare = [replace(r, protocol={}, value={}) for r in (complexity(PLAIN), latency(PLAIN), training(PLAIN))]
    assert one(*bare)["status"] == "ok"


def test_what_older_records_leave_out_is_what_they_were_measured_with() -> None:
    new = ("memory_format", "cache", "mode")
    old = latency(PLAIN, 7.0)
    old = replace(old, protocol={name: value for name, value in old.protocol.items() if name not in new})
    assert [one(old)[name] for name in new] == ["contiguous", "warm", "inference"]
    # The same measurement made again, by a version that writes the keys, takes its place.
    assert one(old, latency(PLAIN, 5.0))["latency_ms"] == 5.0
    assert one(complexity(PLAIN))["cache"] is None


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *(("device", "cuda"), ("device_name", "H100"), ("dtype", "tf32"), ("batch_size", 2), ("threads", 1)),
        *(("runtime", "compile"), ("memory_format", "channels_last"), ("cache", "cold"), ("mode", "train")),
    ],
)
def test_what_is_measured_otherwise_is_a_separate_row(name: str, other: object) -> None:
    table = frame([latency(PLAIN), latency(PLAIN, 9.0, **{name: other})])  # type: ignore[arg-type]
    assert cells(table, name) == [LATENCY[name], other]
    assert cells(table, "latency_ms") == [5.25, 9.0]


def test_warnings_are_their_kinds() -> None:
    assert one(latency(PLAIN, warnings=("drift", "throttled", "drift")))["warnings"] == "drift; throttled"
    assert one(latency(PLAIN))["warnings"] is None


def test_what_a_latency_says_besides_its_times() -> None:
    row = one(latency(PLAIN, 4.0))
    assert (row["peak_memory_mb"], row["rounds"], row["stopped_by"]) == (24.25, 120, "target")
    assert row["compile_s"] is row["energy_j"] is None


def test_captions_leave_out_what_goes_without_saying_and_nothing_else() -> None:
    names = ("runtime", "memory_format", "cache", "mode")
    assert shared(frame([latency(PLAIN)]), names) == "eager"
    assert (
        shared(frame([latency(PLAIN)]), names, usual=True)
        == "eager · contiguous · warm cache · inference mode"
    )
    other = latency(PLAIN, memory_format="channels_last", cache="cold", mode="train")
    assert shared(frame([other]), names) == "eager · channels_last · cold cache · train mode"


def test_nan_is_a_missing_value() -> None:
    assert one(latency(PLAIN, float("nan")))["latency_ms"] is None


def test_whole_sweep() -> None:
    table = frame(sweep())
    assert cells(table, "status").count("out_of_memory") == 1
    assert cells(table, "status").count("failed") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_999, "1.00 M"),
        (1_460_000, "1.46 M"),
        (4.07e7, "40.70 M"),
    ],
)
def test_prefixed(value: float, text: str) -> None:
    assert prefixed(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(4e7, "40M"), (1_456_000, "1.46M"), (999_999, "1M"), (0, "0"), (2.5e9, "2.5G")]
)
def test_compact(value: float, text: str) -> None:
    assert compact(value) == text


def test_digits_follow_the_interval() -> None:
    latency_ms = COLUMNS["latency_ms"]
    assert with_interval(5.3211, 5.2, 5.42, latency_ms) == "5.32 ± 0.12"
    assert with_interval(5.3211, 5.3201, 5.3221, latency_ms) == "5.321 ± 0.001"
    assert with_interval(5.3211, None, None, latency_ms) == "5.32"
    # Beyond ±30 % it says nothing; other figures may be small beside their intervals.
    assert with_interval(10.0, 6.9, 12.0, latency_ms) == "10.0 ± 3.1 (worthless)"
    assert with_interval(10.0, 7.1, 12.9, latency_ms) == "10.0 ± 2.9"
    assert with_interval(10.0, 5.0, 15.0, COLUMNS["top1"]) == "10.0 ± 5.0"
    ratio = COLUMNS["latency_ratio"]
    assert ratio_text(1.204, 1.1, 1.3, ratio) == "1.20"
    assert ratio_text(1.204, 0.7, 1.3, ratio) == "1.20 ± 0.50 (worthless)"
    assert with_interval(91.2, 89.9, 92.5, COLUMNS["top1"]) == "91.2 ± 1.3"
    assert (decimals(9.996), decimals(0.0532), decimals(0)) == (1, 4, 0)
