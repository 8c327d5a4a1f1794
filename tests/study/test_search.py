"""Searches: budgets held, stops without loss, real stores and real processes."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import optuna
import pytest

from tests.commands import ended, started
from tests.latencies import true_ratio, write_run
from tests.sweeps import committed, write_sweep
from wnexplore.design.counts import count
from wnexplore.design.external_names import source_hash
from wnexplore.design.latency_protocol import latency_protocols
from wnexplore.design.point import AXES, DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.errors import InputError, Notice
from wnexplore.measure.environment import timing_device
from wnexplore.results.frame import frame
from wnexplore.results.record import Record
from wnexplore.results.store import FILE_NAME, Store, read_records
from wnexplore.space.expansion import expand
from wnexplore.space.prediction import calibrations
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.space.stage_features import StageFeatures
from wnexplore.study.optuna_storage import STUDY
from wnexplore.study.search import POPULATION, Search, search

SPACE = """\
backbones: [own.py:tiny]
methods: [se, weightnet]
M: [1, 2, 4]
G: [1, 2]
per_stage: true
stages: [null, [3, 4]]
resolution: [8]
num_classes: [10]
latency: false
"""
TRADE = ("params", "flops")
HALVED = SweepSpec(train=TrainSpec(schedule="halving", max_epochs=3))


def _spec(tmp_path: Path, text: str = SPACE) -> SweepSpec:
    return load_sweep(write_sweep(tmp_path, text))


def _run(wanted: Search, directory: Path, population: int = POPULATION) -> list[DesignPoint]:
    with Store.create(directory) as store:
        search(wanted, store, population=population)
    records = read_records(directory)
    assert max(Counter(record.key for record in records).values()) == 1
    return [record.point for record in records]


def test_a_smaller_test_loss_is_better_and_has_to_be_in_the_records(tmp_path: Path) -> None:
    text = SPACE.replace("per_stage: true", "per_stage: false")
    training = "train: {data: digits, steps: 2, batch_size: 32, seeds: 1}\n"
    wanted = Search(_spec(tmp_path, text + training), ("test_loss",), trials=2)
    with Store.create(tmp_path / "run") as store:
        search(wanted, store)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'run' / STUDY}")
    records = read_records(tmp_path / "run")
    # Plain networks are trained too, for the differences.
    rows = frame(records).query("method != 'plain'")
    assert study.best_value == rows["test_loss"].min() < rows["test_loss"].max()

    with Store.create(tmp_path / "before") as before:
        for record in records:
            value = {name: figure for name, figure in record.value.items() if name != "test_loss"}
            before.append(replace(record, value=value))
        with pytest.raises(InputError, match=r"earlier version.* test_loss.*--out"):
            search(wanted, before)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_every_point_that_is_built_is_legal_new_and_within_the_budgets(tmp_path: Path, sampler: str) -> None:
    budgets = ("params < 17k", "M <= 2")
    wanted = Search(_spec(tmp_path), TRADE, budgets, trials=23, sampler=sampler)
    points = _run(wanted, tmp_path / "run")
    assert len(set(points)) == 23
    within = expand(_spec(tmp_path, SPACE + "where: params < 17k and M <= 2\n")).points
    assert set(points) <= set(within)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'run' / STUDY}")
    assert study.metric_names == list(TRADE)
    message = [tuple(trial.values) for trial in study.trials if trial.values]
    records = read_records(tmp_path / "run")
    assert {(r.value["params"], r.value["flops"]) for r in records} == set(message)
    # The front that Optuna finds is that of the records.
    best = {tuple(trial.values) for trial in study.best_trials}
    assert best == {a for a in message if not any(b[0] <= a[0] and b[1] <= a[1] and a != b for b in message)}


def test_a_search_ends_where_its_space_does(tmp_path: Path) -> None:
    text = SPACE.replace("per_stage: true", "per_stage: false").replace("M: [1, 2, 4]", "M: [1, 2]")
    spec = _spec(tmp_path, text)
    with Store.create(tmp_path / "run") as store:
        outcome = search(Search(spec, TRADE, trials=1000), store)
    assert outcome.exhausted
    assert {record.point for record in read_records(tmp_path / "run")} == set(expand(spec).points)
    assert outcome.points == len(expand(spec).points)


@pytest.mark.slow
def test_more_trials_continue_from_those_that_are_there(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    first = _run(Search(spec, TRADE, trials=22), tmp_path / "run")
    more = _run(Search(spec, TRADE, trials=24), tmp_path / "run")
    assert more[:22] == first
    assert len(set(more)) == 24
    at_once = _run(Search(spec, TRADE, trials=24), tmp_path / "at_once")
    assert set(at_once) == set(more)


def test_the_seed_decides_what_is_proposed_where_points_are_too_many_to_be_listed(tmp_path: Path) -> None:
    multipliers = ", ".join(str(number) for number in range(1, 281))
    text = (
        SPACE.replace("[se, weightnet]", "[weightnet]")
        .replace("[1, 2, 4]", f"[{multipliers}]")
        .replace("G: [1, 2]", "G: [1]")
        .replace("[null, [3, 4]]", "[null]")
    )
    spec = _spec(tmp_path, text)
    points = {}
    for name, seed in (("zero", 0), ("one", 1)):
        wanted = Search(spec, TRADE, trials=1, seed=seed)
        assert not wanted.within.listed
        points[name] = _run(wanted, tmp_path / name)
    assert points["zero"] != points["one"]


def test_another_search_is_not_mixed_in(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    _run(Search(spec, TRADE, trials=2), tmp_path / "run")
    with Store.create(tmp_path / "run") as store, pytest.raises(InputError, match=str(tmp_path / "run")):
        search(Search(spec, TRADE, ("params < 1M",), trials=2), store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ("top1",)}, "'top1'.*--train"),
        ({"objectives": ("latency_ms",)}, "'latency_ms'.*latency"),
        ({"objectives": ("backbone",)}, "'backbone'"),
        ({"objectives": ()}, "objective"),
        ({"spec": HALVED}, "schedule: halving"),
        ({"sampler": "random"}, "'random'.*nsga2, tpe"),
        ({"budgets": ("parms < 1",)}, "'parms'.*'params'"),
        ({"budgets": ("params < 10",)}, "params < 10"),
        ({"budgets": ("params < 1M", "")}, "filter, character 1"),
    ],
)
def test_what_can_not_be_searched_is_refused_before_anything_runs(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    wanted = Search(**{"spec": _spec(tmp_path), "objectives": TRADE, **change})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        wanted.check()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_search_stopped_at_many_moments_measures_the_same_in_the_same_order(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Search(_spec(tmp_path), TRADE, ("params < 17k",), trials=6, sampler=sampler)
    unbroken = _run(wanted, tmp_path / "unbroken", population=4)
    # Before a trial has all its parameters, and between a measurement and what Optuna is told of it.
    for owner, name, every in ((optuna.Trial, "suggest_categorical", 31), (optuna.Study, "tell", 4)):
        monkeypatch.setattr(owner, name, _stopping(getattr(owner, name), every))
    stops = 0
    while True:
        try:
            points = _run(wanted, tmp_path / "stopped", population=4)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    assert points == unbroken
    assert _reported(tmp_path / "stopped") == _reported(tmp_path / "unbroken")


def _stopping(call: Callable[..., Any], every: int) -> Callable[..., Any]:
    """`call`, interrupted in its stead each so many times."""
    count = itertools.count(1)

    def stopping(*arguments: Any, **named: Any) -> Any:
        if next(count) % every == 0:
            raise KeyboardInterrupt
        return call(*arguments, **named)

    return stopping


def _reported(directory: Path) -> list[list[float]]:
    """What Optuna knows of the trials, in order."""
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{directory / STUDY}")
    return [trial.values for trial in study.trials if trial.values]


@pytest.mark.slow
def test_a_search_killed_half_way_ends_with_the_same_points_none_twice(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, SPACE)
    command = ["search", path, "--objectives", ",".join(TRADE), "--budget", "params < 17k", "--trials", "26"]
    killed = tmp_path / "killed"
    for kills_after in (3, 22):
        with started(*command, "--out", killed) as process:
            deadline = monotonic() + 120
            while committed(killed) < kills_after and process.poll() is None:
                assert monotonic() < deadline
                sleep(0.02)
            assert process.kill() == -signal.SIGKILL
    assert "26 points measured" in ended(*command, "--out", killed)[1]
    records = read_records(killed)
    assert max(Counter(record.key for record in records).values()) == 1
    unbroken = Search(load_sweep(path), TRADE, ("params < 17k",), trials=26)
    assert {record.point for record in records} == set(_run(unbroken, tmp_path / "unbroken"))
    assert (killed / "results.csv").read_text().count("\n") == 27


ONE = (
    SPACE.replace("per_stage: true", "per_stage: false").replace("[1, 2, 4]", "[1]").replace("[1, 2]", "[1]")
)


def test_a_network_is_searched_whichever_path_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its points have one: relative to the working folder, where it is below that."""
    monkeypatch.chdir(tmp_path)
    file = write_sweep(tmp_path)
    for number, name in enumerate((f"{tmp_path}/own.py:tiny", "./own.py:tiny")):
        file.write_text(ONE.replace("own.py:tiny", name))
        wanted = Search(load_sweep(file), TRADE, trials=1)
        assert len(_run(wanted, tmp_path / str(number))) == 1


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    wanted = Search(_spec(tmp_path, ONE), TRADE, trials=2)
    directory = tmp_path / "a?b=1 %41#c{d}"
    assert len(_run(wanted, directory)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"own.py", "tiny.yaml", directory.name}
    assert (directory / STUDY).is_file()
    # It goes on there.
    assert len(_run(replace(wanted, trials=3), directory)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'point'",
        "UPDATE trial_user_attributes SET value_json = '\"[1]\"' WHERE key = 'point'",
        "DELETE FROM trial_user_attributes WHERE key = 'point'",
        "UPDATE study_user_attributes SET value_json = '{'",
        "UPDATE trials SET number = NULL",
        "UPDATE trials SET number = 'x'",
        "UPDATE trial_values SET value = NULL",
        "UPDATE alembic_version SET version_num = 'x'",
    ],
)
def test_a_damaged_study_is_one_line(damage: str, tmp_path: Path) -> None:
    wanted, directory = Search(_spec(tmp_path, ONE), TRADE, trials=2), tmp_path / "run"
    _run(wanted, directory)
    with closing(sqlite3.connect(directory / STUDY)) as connection:
        connection.execute(damage)
        connection.commit()
    with pytest.raises(InputError, match=r"study\.db is damaged: ") as message:
        _run(replace(wanted, trials=3), directory)
    assert "\n" not in str(message.value)


@pytest.mark.slow
def test_what_is_no_study_is_one_line(tmp_path: Path) -> None:
    wanted, directory = Search(_spec(tmp_path, ONE), TRADE, trials=2), tmp_path / "run"
    _run(wanted, directory)
    (directory / STUDY).write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"study\.db is damaged"):
        _run(wanted, directory)


def test_a_study_runs_no_file_that_the_search_does_not_name(tmp_path: Path) -> None:
    wanted, directory = Search(_spec(tmp_path, ONE), TRADE, trials=2), tmp_path / "run"
    _run(wanted, directory)
    (tmp_path / "evil.py").write_text(
        "from own import tiny\nfrom pathlib import Path\nPath(__file__).with_name('mark').touch()\n"
    )
    with closing(sqlite3.connect(directory / STUDY)) as connection:
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = replace(value_json, 'own.py', 'evil.py')"
            " WHERE key = 'point'"
        )
        connection.commit()
    with pytest.raises(InputError, match="trial 0 has backbone"):
        _run(replace(wanted, trials=3), directory)
    assert not (tmp_path / "mark").exists()


PIDS = """

import os
from pathlib import Path

made = tiny

def tiny(num_classes=10):
    with Path("PIDS").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return made(num_classes)
"""


@pytest.mark.slow
def test_processes_are_started_once_for_all_points(tmp_path: Path) -> None:
    training = "train: {data: digits, device: cpu, steps: 2, batch_size: 32, seeds: 2, jobs: 2}\n"
    path = write_sweep(tmp_path, SPACE.replace("per_stage: true", "per_stage: false") + training)
    with (tmp_path / "own.py").open("a") as file:
        file.write(PIDS.replace("PIDS", str(tmp_path / "pids")))
    _run(Search(load_sweep(path), ("test_loss",), trials=2), tmp_path / "run")
    others = set((tmp_path / "pids").read_text().split()) - {str(os.getpid())}
    assert len(others) == 2


BEFORE = Path(__file__).parent / "before"


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search of 3 points, by params and top1, as an earlier version wrote it (at commit 106abbe).

    Its databases are kept as SQL. Neither parity of learning rates nor other starts were known.
    """
    run = tmp_path / "run"
    run.mkdir()
    for name in (FILE_NAME, STUDY):
        with closing(sqlite3.connect(run / name)) as connection:
            connection.executescript((BEFORE / f"{name}.sql").read_text(encoding="utf-8"))
    shutil.copy(BEFORE / "space.yaml", tmp_path)
    # Not formatted: its hash is in the records.
    shutil.copy(BEFORE / "own.py.txt", tmp_path / "own.py")
    monkeypatch.chdir(tmp_path)
    return run


def test_a_search_that_an_earlier_version_began_goes_on_as_it_was(before: Path) -> None:
    wanted = Search(load_sweep(Path("space.yaml")), ("params", "top1"), trials=4)
    assert wanted.spec.train is not None
    assert wanted.spec.train.lr_parity
    old = [record.key for record in read_records(before)]
    for _ in range(2):
        # The second time it is as a search of before too, and there is nothing left to do.
        with Store.create(before) as store, pytest.warns(Notice, match="goes on as it did: lr_parity False"):
            outcome = search(wanted, store)
        assert outcome.points == 4
        assert outcome.spec.train is not None
        assert not outcome.spec.train.lr_parity
        records = read_records(before)
        assert [record.key for record in records][: len(old)] == old
        assert [record.figure for record in records[len(old) :]] == ["complexity", "training"]
        # Trained as the others, which don't name what there wasn't.
        protocols = [record.protocol for record in records if record.figure == "training"]
        assert all(protocol == protocols[0] for protocol in protocols)


@pytest.mark.parametrize("change", ["lr_parity: true", "optimizer: adamw", "lr: 0.1"])
def test_what_is_set_otherwise_is_another_search(before: Path, change: str) -> None:
    path = Path("space.yaml")
    path.write_text(path.read_text().replace("steps: 2", f"steps: 2, {change}"))
    wanted = Search(load_sweep(path), ("params", "top1"), trials=4)
    with Store.create(before) as store, pytest.raises(InputError, match="another search"):
        search(wanted, store)


@pytest.mark.parametrize(
    "identity", ["", "[]", "null", "[1]", '["a: [", 1, 2, 3, 4]', '["- 1", [], null, "", 0]']
)
def test_a_damaged_identity_is_another_search(identity: str) -> None:
    assert Search(SweepSpec(), TRADE).going_on(identity) is None


@pytest.mark.slow
def test_points_whose_predicted_latency_breaks_a_budget_are_never_built(tmp_path: Path) -> None:
    spec = _spec(tmp_path, PREDICTED_SPACE)
    points = expand(spec).points
    records = _timed(spec, tmp_path / "timed", _growing)
    middle = sorted(true_ratio(point, _growing) for point in points)[len(points) // 2]
    wanted = Search(
        spec, TRADE, (f"latency_ratio < {middle}",), trials=100, timed=calibrations(records, "RUN")
    )
    wanted.check()
    assert wanted.calibration is not None
    surely = [
        point
        for point in points
        if (wanted.calibration.predict_point(point)["latency_ratio_low"] or 0) >= middle
    ]
    assert 0 < len(surely) < len(points)
    assert wanted.within.size == len(points) - len(surely)
    with Store.create(tmp_path / "run") as store:
        outcome = search(replace(wanted, trials=5), store)
    assert outcome.points == 5
    assert not {record.point for record in read_records(tmp_path / "run")} & set(surely)
    # Another protocol, or no budget, is refused before anything is built.
    other = calibrations(write_run(tmp_path / "other", points[::2], terms=_growing), "OTHER")
    with pytest.raises(InputError, match="OTHER has no latencies under the protocol of this search"):
        replace(wanted, timed=other).check()
    with pytest.raises(InputError, match="--budget"):
        replace(wanted, budgets=()).check()
    assert wanted.identity != replace(wanted, timed=()).identity


def _timed(spec: SweepSpec, directory: Path, terms: Callable[[StageFeatures], float]) -> list[Record]:
    """A run with made-up latencies of every second point, under the protocol of `spec`."""
    assert spec.latency is not None
    (protocol,) = latency_protocols(spec.latency, timing_device("cpu"))
    points = expand(spec).points
    of_file = replace(protocol, source=source_hash(points[0].backbone))
    return write_run(directory, points[::2], protocol=of_file, terms=terms)


PREDICTED_SPACE = (
    SPACE.replace("[se, weightnet]", "[weightnet]")
    .replace("G: [1, 2]", "G: [1]")
    .replace("[1, 2, 4]", "[1, 2, 4, 8]")
    .replace("stages: [null, [3, 4]]\n", "")
    .replace("latency: false", "latency: {device: cpu, seconds: 0.001}")
)


@pytest.mark.slow
def test_where_all_is_foreseen_points_certainly_off_the_front_are_never_built(tmp_path: Path) -> None:
    spec = _spec(tmp_path, PREDICTED_SPACE)
    timed = calibrations(_timed(spec, tmp_path / "timed", _in_any_order), "RUN")
    wanted = Search(spec, ("flops", "latency_ratio"), trials=100, timed=timed)
    near = wanted.within.size
    assert 0 < near < len(expand(spec).points)
    with Store.create(tmp_path / "run") as store:
        outcome = search(wanted, store)
    assert outcome.exhausted
    assert outcome.points == near
    assert wanted.calibration is not None
    bounds = {}
    for point in expand(spec).points:
        row, flops = wanted.calibration.predict_point(point), count(point, skeleton_of(point)).flops
        ends = row["latency_ratio_low"], row["latency_ratio_high"]
        # Of what can't be predicted nothing is certain.
        bounds[point] = (flops, ends[0] or 0.0), (flops, ends[1] or math.inf)
    built = {record.point for record in read_records(tmp_path / "run")} & set(bounds)
    for point, (best, _) in bounds.items():
        beaten = any(a <= best[0] and b <= best[1] and (a, b) != best for _, (a, b) in bounds.values())
        assert beaten == (point not in built)


@pytest.mark.slow
def test_points_off_the_front_by_their_predicted_latency_are_trained_and_not_timed(tmp_path: Path) -> None:
    training = "train: {data: digits, steps: 2, batch_size: 32, seeds: 1}\n"
    spec = _spec(tmp_path, PREDICTED_SPACE + training)
    # Slower than they are: which is off the front then depends on top-1.
    timed = calibrations(_timed(spec, tmp_path / "timed", _slow), "RUN")
    wanted = Search(spec, ("top1", "latency_ratio"), trials=8, timed=timed)
    with Store.create(tmp_path / "run") as store:
        outcome = search(wanted, store)
    records = read_records(tmp_path / "run")
    points = {record.point for record in records if record.figure == "training"}
    points -= {point.baseline() for point in points}
    there = {record.point for record in records if record.figure == "latency"}
    assert outcome.points == len(points) == 8
    assert 0 < outcome.untimed == len(points - there) < 8
    # Each of them is certainly worse than one that was timed.
    rows = frame(record for record in records if record.point in points)
    ours = [DesignPoint.from_dict({axis: row[axis] for axis in AXES}) for row in rows.to_dict("records")]
    top1, ratio = (dict(zip(ours, rows[name].astype("float64"), strict=True)) for name in wanted.objectives)
    assert wanted.calibration is not None
    for point in points - there:
        low = wanted.calibration.predict_point(point)["latency_ratio_low"] or 0.0
        assert any(top1[other] >= top1[point] and ratio[other] <= low for other in points & there)
    # Stopped and resumed, or called again, it does the same.
    with Store.create(tmp_path / "run") as store:
        assert search(wanted, store) == outcome
        assert search(replace(wanted, trials=10), store).points == 10
    # Where a budget may be broken within the interval, the latency is measured first.
    budgets = (f"latency_ratio < {sorted(true_ratio(point, _slow) for point in points)[4]}",)
    tight = replace(wanted, budgets=budgets)
    expected = [tight.expected(point) for point in expand(spec).points]
    assert None in expected
    assert all(row is None or (row["latency_ratio_high"] or 0) < float(budgets[0][16:]) for row in expected)


def _in_any_order(design: StageFeatures) -> float:
    return 0.1 + 0.1 * (round(1e4 * design.costs[0]) % 7)


def _slow(design: StageFeatures) -> float:
    return 10 + _in_any_order(design)


def _growing(design: StageFeatures) -> float:
    return 0.02 + 0.5 * design.costs[0]
