"""Seeds until it is known: a sweep with a target adds seeds where they still decide something."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import ended, started
from tests.sweeps import TINY, committed, write_sweep
from wnexplore.cli import main
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.errors import InputError
from wnexplore.report.known_differences import seed_lines
from wnexplore.results.frame import frame
from wnexplore.results.record import Record
from wnexplore.results.seeds import Verdict, verdicts
from wnexplore.results.sequences import paired_sequence
from wnexplore.results.store import Store, read_records
from wnexplore.study.sweep import plan, remaining, run, trainings_left, with_added
from wnexplore.training.training_record import threads_before

_ONE = TINY.replace("M: [1, 2]", "M: [2]").replace("G: [1, 2]", "G: [2]").replace("latency: {", "#")
_UNTIL = _ONE + (
    "latency: false\n"
    "train: {data: digits, device: cpu, epochs: 1, batch_size: 512, jobs: 1, seeds: 2,"
    " target: 9.0, max_seeds: 9}\n"
)


def _run(spec: SweepSpec, directory: Path) -> list[Verdict]:
    with Store.create(directory) as store:
        planned = plan(spec, threads_before(store.records()))
        planned = with_added(spec, planned, store.keys())
        run(spec, remaining(planned, store.keys()), store, planned=planned)
    return verdicts(read_records(directory))


def _seeds(directory: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for record in read_records(directory):
        if record.figure == "training":
            found.setdefault(record.point.method, []).append(record.protocol["seed"])
    return {method: sorted(seeds) for method, seeds in found.items()}


@pytest.mark.slow
def test_seeds_are_added_in_pairs_until_a_difference_is_known(tmp_path: Path) -> None:
    spec = load_sweep(write_sweep(tmp_path, _UNTIL))
    (verdict,) = _run(spec, tmp_path / "run")
    assert _seeds(tmp_path / "run") == {m: list(range(verdict.seeds)) for m in ("plain", "weightnet")}
    top1: dict[str, list[float]] = {}
    for record in read_records(tmp_path / "run"):
        if record.figure == "training":
            top1.setdefault(record.point.method, []).append(record.value["top1"])
    differences = [b - a for a, b in zip(top1["plain"], top1["weightnet"], strict=True)]
    before, last = paired_sequence(differences[:-1], 1e-9), paired_sequence(differences, 1e-9)
    assert before is None or (before[0] <= 0 <= before[1] and before[1] - before[0] > 18)
    assert last is not None
    ends = {"difference": not last[0] <= 0 <= last[1], "target": last[1] - last[0] <= 18}
    assert verdict.ended_by == "max_seeds" or ends[str(verdict.ended_by)]
    assert verdict.seeds <= 10

    kept = read_records(tmp_path / "run")
    assert _run(spec, tmp_path / "run") == [verdict]
    assert read_records(tmp_path / "run") == kept, "a finished sweep trains nothing again"


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_seeds_and_verdict(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, _UNTIL)
    whole = _run(load_sweep(file), tmp_path / "whole")
    command = ["sweep", file, "--out", tmp_path / "run"]
    until = time.monotonic() + 100
    with started(*command) as process:
        # Two counts and two seeds each, then an odd number of added ones.
        while committed(tmp_path / "run") < 9 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.kill()
    assert 9 <= committed(tmp_path / "run") < 2 + 2 * whole[0].seeds
    shown, _ = ended(*command, "--jobs", "2")
    resumed = verdicts(read_records(tmp_path / "run"))
    assert [(v.seeds, v.ended_by, v.variant.scores) for v in resumed] == [
        (v.seeds, v.ended_by, v.variant.scores) for v in whole
    ]
    assert _seeds(tmp_path / "run") == _seeds(tmp_path / "whole")
    assert any(str(whole[0].point) in line and "seeds" in line for line in shown.splitlines())


def _records(differences: list[float], **limits: float) -> list[Record]:
    from wnexplore.design.point import DesignPoint

    plain, variant = DesignPoint.of("shufflenet_v2_x0_5"), DesignPoint.of("shufflenet_v2_x0_5", method="se")
    value = {"seed_target": 1.0, "first_seeds": 3, "max_seeds": 30, "seconds": 60.0, "epochs": 1} | limits
    return [
        Record(
            "training", point, {"dataset": "digits", "epochs": 1, "seed": seed}, value=value | {"top1": top1}
        )
        for seed, difference in enumerate(differences)
        for point, top1 in ((plain, 50.0), (variant, 50.0 + difference))
    ]


@pytest.mark.parametrize(
    ("differences", "limits", "ended_by", "said"),
    [
        ([10.0, 10.5] * 10, {}, "difference", "certainly not plain's top-1"),
        ([0.25, -0.25] * 10, {}, "target", "known to be smaller than the target"),
        ([5.0, -5.0] * 2, {}, None, r"not known after 4 seeds: .* about \d+ seeds more"),
        ([5.0, -5.0] * 2, {"max_seeds": 4}, "max_seeds", "not known after 4 seeds, ended by max_seeds"),
        ([5.0, -5.0] * 2, {"seed_hours": 0.1}, "hours", "ended by the budget of hours"),
        ([5.0, -5.0] * 2, {"seed_hours": 1.0}, None, "about"),
    ],
)
def test_what_ended_the_seeds_follows_from_the_records(
    differences: list[float], limits: dict[str, float], ended_by: str | None, said: str
) -> None:
    records = _records(differences, **limits)
    for order in (records, records[::-1]):
        (verdict,) = verdicts(order)
        assert verdict.ended_by == ended_by
        assert re.search(said, "\n".join(seed_lines(order)))
    assert (verdict.more == 0) == (ended_by in ("difference", "target"))


def _recorded(folder: Path, train: str, difference: float, seeds: int) -> tuple[SweepSpec, list[Record]]:
    """A sweep with `train`, and records of all its figures as a sweep without a target leaves them."""
    spec = load_sweep(write_sweep(folder, _UNTIL.replace("seeds: 2, target: 9.0, max_seeds: 9", train)))
    records = []
    for m in plan(spec).measurements:
        if m.figure == "complexity":
            records.append(Record(m.figure, m.point, m.protocol, value={"params": 1, "flops": 1}))
        elif m.protocol["seed"] == 0:
            top1 = 50.0 + difference * (m.point.method != "plain")
            value = {"top1": top1, "test_images": 360, "seconds": 60.0, "epochs": 1}
            records += [
                Record(m.figure, m.point, {**m.protocol, "seed": seed}, value=value) for seed in range(seeds)
            ]
    return spec, records


def test_what_is_decided_at_once_is_recorded_once(tmp_path: Path) -> None:
    spec, records = _recorded(tmp_path, "seeds: 8, target: 1.0, max_seeds: 9", 0.0, 8)
    with Store.create(tmp_path / "run") as store:
        for record in records:
            store.append(record)
    assert seed_lines(records) == []
    for target, ended_by, seeds in ((1.0, "target", 8), (1.0, "target", 8), (0.1, "max_seeds", 8)):
        changed = {"target": target, "max_seeds": 8 if target < 1 else 9}
        assert spec.train is not None
        now = spec.model_copy(update={"train": spec.train.model_copy(update=changed)})
        (verdict,) = _run(now, tmp_path / "run")
        assert (verdict.ended_by, verdict.seeds, verdict.until.target) == (ended_by, seeds, target)
    *before, first, second = read_records(tmp_path / "run")
    assert len(before) == len(records), "nothing was trained"
    assert [end.value["ended_by"] for end in (first, second)] == ["target", "max_seeds"]
    assert first.point.method == "weightnet"
    assert first.protocol["seed_target"] == 1.0
    assert (first.value["top1_diff"], first.protocol["seeds"]) == (0.0, 8)
    assert first.value["top1_diff_high"] == -first.value["top1_diff_low"] < 1.0
    # It is no row of a table, and gives that of its training the intervals of a sequence.
    rows = frame([*before, first])
    assert len(rows) == len(frame(before)) == 2
    (high,) = rows.loc[rows["method"] == "weightnet", "top1_diff_high"]
    assert high == first.value["top1_diff_high"]
    assert any("known to be smaller than the target" in line for line in seed_lines([*before, first]))


def test_networks_that_are_always_right_differ_by_less_than_the_target() -> None:
    records = [replace(r, value={**r.value, "top1": 100.0}) for r in _records([0.0] * 8)]
    # Of how many images, the accuracies don't tell.
    assert [v.ended_by for v in verdicts(records)] == [None]
    told = [replace(r, value={**r.value, "test_images": 360}) for r in records]
    (verdict,) = verdicts(told)
    assert (verdict.ended_by, verdict.smaller, verdict.seeds) == ("target", True, 8)
    # One image of 360 for most of the seeds is possible still.
    assert verdict.interval is not None
    assert verdict.interval[1] > 100 / 360 * (1 - 0.05 ** (1 / 8))


def test_the_trainings_that_are_left_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, records = _recorded(tmp_path, "seeds: 2, target: 1.0, max_seeds: 9", 0.0, 8)

    def left(train: dict[str, float], among: list[Record]) -> tuple[int, int]:
        assert spec.train is not None
        now = spec.model_copy(update={"train": spec.train.model_copy(update=train)})
        planned = plan(now)
        todo = remaining(planned, {record.key: "ok" for record in among})
        assert now.train is not None
        return trainings_left(now.train, planned, todo, among)

    # Two networks: nothing is known before 8 seeds, and there are 9 at most.
    assert left({}, []) == (16, 18)
    assert left({"hours": 1.0}, []) == (4, 18)
    assert left({"max_seeds": 5}, []) == (10, 10)
    assert left({}, records) == (0, 0)
    # Three of the 16 are there.
    some = [r for r in records if r.protocol.get("seed") in (0, None)]
    some += [r for r in records if r.protocol.get("seed") == 1 and r.point.method == "plain"]
    assert left({}, some) == (13, 15)
    # Not known to so little by 8, and by 9 there are no more.
    assert left({"target": 0.01}, records) == (2, 2)
    with pytest.raises(SystemExit):
        main(["sweep", str(tmp_path / "tiny.yaml"), "--dry-run", "--out", str(tmp_path / "none")])
    assert "at least 16 and at most 18 trainings in all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("max_seeds: 5", "max_seeds is for seeds until it is known"),
        ("hours: 1", "hours is for seeds until it is known"),
        ("target: 1, seeds: 5, max_seeds: 4", "max_seeds is 4: expected at least seeds, 5"),
        ("target: 0", r"train\.target"),
        ("target: 1, schedule: halving, max_epochs: 3", "target is for 'schedule: full'"),
    ],
)
def test_limits_that_do_not_fit_are_refused(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_sweep(write_sweep(tmp_path, _ONE + f"train: {{{train}}}\n"))


def test_a_target_needs_the_plain_network(tmp_path: Path) -> None:
    spec = load_sweep(write_sweep(tmp_path, _UNTIL.replace("[plain, weightnet]", "[weightnet]")))
    with pytest.raises(InputError, match=r"train\.target needs the plain network"):
        plan(spec)
