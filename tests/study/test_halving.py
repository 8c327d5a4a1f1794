from __future__ import annotations

import math
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import ended, started
from tests.examples import examples
from tests.sweeps import committed
from wnexplore.design.external_names import source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.errors import InputError
from wnexplore.report.rungs import lines
from wnexplore.report.rungs import rungs as rungs_told
from wnexplore.results.record import Record
from wnexplore.results.store import Store, read_records
from wnexplore.results.trainings import trainings
from wnexplore.study.halving import Variant, rungs, train_by_halving, variants_of
from wnexplore.study.sweep import plan, remaining, run
from wnexplore.study.tasks import OnPart, Outcome, Task, TrainingTask, perform
from wnexplore.training.training_record import TrainingFigure, trained_record, training_protocol

SPEC = TrainSpec(data="digits", device="cpu", schedule="halving", max_epochs=9, eta=3, seeds=2)

NETWORKS = """\
from torch import nn


def small(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )


class Exploding(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 1e30


def exploding(num_classes):
    return Exploding(*small(num_classes))
"""


class Scripted:
    """An executor of trainings whose top-1 after each epoch is written down, so that only the decisions are
    tested.

    The test losses too: without `losses` they rank as the top-1 does.
    """

    def __init__(
        self,
        scores: Mapping[str, Sequence[float]],
        losses: Mapping[str, Sequence[float | None]] | None = None,
    ) -> None:
        self.scores = scores
        self.losses = losses or {name: [100 - top1 for top1 in found] for name, found in scores.items()}
        self.epochs = 0

    def run(self, tasks: Iterable[Task], on_part: OnPart) -> Iterator[Outcome]:
        for task in tasks:
            assert isinstance(task, TrainingTask)
            assert callable(task.state)
            before, until = task.state(), min(task.until, 9)
            self.epochs += until - (0 if before is None else int(before))
            tested = list(range(1, until + 1))
            top1 = [self.scores[str(task.record.point)][epoch - 1] for epoch in tested]
            loss = list(self.losses[str(task.record.point)][:until])
            figure = TrainingFigure([1.0] * until, tested, top1, loss)
            made = trained_record(task.record, figure, {}, until if task.pauses else None)
            yield Outcome(made, str(until).encode() if task.pauses else None)


def variants(count: int, spec: TrainSpec = SPEC) -> list[Variant]:
    points = [
        DesignPoint.of("resnet18"),
        *(DesignPoint.of("resnet18", "weightnet", M, 1) for M in range(1, count)),
    ]
    return [
        Variant(
            point,
            tuple(Record("training", point, training_protocol(spec, "cpu", 1, seed)) for seed in range(2)),
        )
        for point in points
    ]


def by_hand(names: Sequence[str], scores: Mapping[str, Sequence[float]]) -> dict[str, int | None]:
    """Successive halving as its paper has it: at each rung the best third of those that are left, or the
    very best while there are fewer than three, go on; the first of `names`, the plain one, always does."""
    dropped: dict[str, int | None] = dict.fromkeys(names)
    left = list(names)
    for rung in (1, 3):
        ranked = sorted(left, key=lambda name: scores[name][rung - 1], reverse=True)
        best = ranked[: max(1, len(left) // 3)]
        dropped |= {name: rung for name in left if name not in best and name != names[0]}
        left = [name for name in left if dropped[name] is None]
    return dropped


def test_networks_of_all_sizes_are_in_one_halving_and_changed_files_are_not(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(NETWORKS)
    name = f"{file}:small"

    def record(backbone: str, threads: int, seed: int, **protocol: str) -> Record:
        point = DesignPoint.of(backbone, resolution=16)
        return Record("training", point, training_protocol(SPEC, "cpu", threads, seed) | protocol)

    now = source_hash(name)
    assert now is not None
    todo = [record("resnet18", 2, 0), record("shufflenet_v2_x0_5", 1, 0), record(name, 1, 0, source=now)]
    ended = [record(name, 1, 0, source="0123456789ab"), record(name, 1, 1, source=now)]
    gone = record(f"{tmp_path}/gone.py:small", 1, 0, source="0123456789ab")
    found = variants_of(todo, {variant.key: variant for variant in (*ended, gone)})
    assert {(record.point.backbone, len(record.records)) for record in found} == {
        ("resnet18", 1),
        ("shufflenet_v2_x0_5", 1),
        (DesignPoint.of(name).backbone, 2),
    }
    assert ended[0] not in [record for variant in found for record in variant.records]


def test_rungs_are_powers_up_to_the_end() -> None:
    assert rungs(SPEC) == [1, 3]
    assert rungs(replace_spec(max_epochs=27)) == [1, 3, 9]
    assert rungs(replace_spec(min_epochs=2, eta=2, max_epochs=10)) == [2, 4, 8]


def replace_spec(**changes: int) -> TrainSpec:
    return TrainSpec(**SPEC.model_dump(exclude={"epochs", "steps"}) | changes)


@examples(25)
@given(st.data(), st.integers(1, 12), st.integers(0, 12))
def test_who_is_dropped_when_and_that_a_stop_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, stop: int
) -> None:
    paused = tmp_path_factory.mktemp("run") / "paused"
    trained = variants(count)
    # No two alike: what is done with those is the pruner's own affair.
    flat = data.draw(st.lists(st.floats(0, 100), min_size=9 * count, max_size=9 * count, unique=True))
    scores = {str(v.point): flat[9 * i : 9 * i + 9] for i, v in enumerate(trained)}
    at_work = Scripted(scores)
    full = list(train_by_halving(SPEC, trained, {}, at_work, paused))
    assert not paused.exists()
    assert len(full) == 2 * count
    expected = by_hand(list(scores), scores)
    assert {str(r.point): r.value["dropped_at"] for r in full} == expected
    for record in full:
        epochs = record.value["dropped_at"] or 9
        assert record.value["epochs"] == epochs
        assert record.value["top1"] == scores[str(record.point)][epochs - 1]
    assert at_work.epochs == 2 * sum(at or 9 for at in expected.values())
    # The first so many records are known: the others come out as they did, in whatever order they are given.
    done = {record.key: record for record in full[:stop]}
    rest = Scripted(scores)
    again = list(train_by_halving(SPEC, list(reversed(trained)), done, rest, paused))
    assert again == full[stop:]
    assert rest.epochs == sum(record.value["epochs"] for record in again)


def test_what_was_decided_stays_when_more_variants_are_added(tmp_path: Path) -> None:
    trained = variants(8)
    scores = {str(v.point): [float(i)] * 9 for i, v in enumerate(trained)}
    few = trained[:4]
    before = list(train_by_halving(SPEC, few, {}, Scripted(scores), tmp_path / "paused"))
    assert {str(r.point): r.value["dropped_at"] for r in before} == by_hand(
        [str(v.point) for v in few], scores
    )
    done = {record.key: record for record in before}
    added = [Variant(v.point, tuple(done.get(r.key, r) for r in v.records)) for v in trained]
    after = list(train_by_halving(SPEC, added, done, Scripted(scores), tmp_path / "paused"))
    assert {str(r.point) for r in after} == {str(v.point) for v in trained[4:]}
    # Among all eight, the two best of the first rung, and the best of the second.
    dropped = {str(r.point): r.value["dropped_at"] for r in after}
    assert [dropped[str(v.point)] for v in trained[4:]] == [1, 1, 3, None]


def test_by_test_loss_the_smallest_stay_whatever_their_top1(tmp_path: Path) -> None:
    spec = TrainSpec(**SPEC.model_dump(exclude={"epochs", "steps"}) | {"by": "test_loss"})
    trained = variants(7, spec)
    names = [str(variant.point) for variant in trained]
    # The plain network first, which is kept. By top-1 the last would stay.
    scores = {name: [10.0 * number] * 9 for number, name in enumerate(names)}
    after_1 = [9.0, 0.5, 0.9, 2.0, 1.5, None, 3.0]
    after_3 = [9.0, 0.8, 0.4, 2.0, 1.5, None, 3.0]
    losses = {
        name: [one, one, three, *[three] * 6]
        for name, one, three in zip(names, after_1, after_3, strict=True)
    }
    found = list(train_by_halving(spec, trained, {}, Scripted(scores, losses), tmp_path / "paused"))
    # Of 7 the best 7 // 3 = 2 go on: 0.5 and 0.9. Of these and plain the best 1: 0.4.
    expected = dict(zip(names, [None, 3, None, 1, 1, 1, 1], strict=True))
    assert {str(record.point): record.value["dropped_at"] for record in found} == expected
    assert {record.protocol["by"] for record in found} == {"test_loss"}
    # Its keys are others than those by top-1, and these are as they were.
    assert "by" not in training_protocol(SPEC, "cpu", 1, 0)

    first, second = rungs_told(trainings(found))
    assert [loss for _, loss in first.dropped] == [1.5, 2.0, 3.0, math.inf]
    assert [(str(point), loss) for point, loss in second.dropped] == [(names[1], 0.8)]
    told = lines(found)
    assert re.search(
        r"by test loss after 1 of 9 epochs: .*, 4 dropped: .* 1\.500 nats, .* not finite$", told[0]
    )
    assert re.search(r"trained in full: .* 0\.400 nats, plain 9\.000 nats$", told[2])


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(NETWORKS)
    return path


def a_sweep(networks: Path, folder: Path, train: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(
        f"backbones: ['{networks}:small']\nmethods: [plain, condconv, weightnet]\nM: [1, 2, 4]\nG: [1]\n"
        f"resolution: [16]\nlatency: false\ntrain: {{data: digits, device: cpu, batch_size: 256, {train}}}\n"
    )
    return path


def measured(spec: SweepSpec, directory: Path) -> list[Record]:
    with Store.create(directory) as store:
        run(spec, remaining(plan(spec), store.keys()), store)
    return [record for record in read_records(directory) if record.figure == "training"]


def told(records: list[Record]) -> dict[str, tuple[object, ...]]:
    """What records say of everything but time."""
    return {
        r.key: (
            str(r.point),
            r.protocol["seed"],
            r.status,
            r.value.get("top1"),
            r.value.get("dropped_at"),
            r.samples,
        )
        for r in records
    }


@pytest.mark.slow
def test_several_at_once_give_what_one_after_another_gives(networks: Path, tmp_path: Path) -> None:
    path = a_sweep(networks, tmp_path, "schedule: halving, max_epochs: 3, seeds: 2, jobs: 1")
    alone = measured(load_sweep(path), tmp_path / "alone")
    two = load_sweep(path, {("train", "jobs"): ("--jobs", 2)})
    together = measured(two, tmp_path / "together")
    # One thread for each in tests, whether one or two train at once.
    assert told(together) == told(alone)
    assert len(alone) == 10
    dropped = {r.value["dropped_at"] for r in alone}
    assert dropped == {None, 1}
    plain = [r for r in alone if r.point.method == "plain"]
    assert [r.value["epochs"] for r in plain] == [3, 3]
    assert all(r.samples["tested_epochs"] == [1, 2, 3] for r in plain)


def test_a_variant_that_diverges_is_a_row_and_the_others_continue(networks: Path, tmp_path: Path) -> None:
    spec = SweepSpec.model_validate(
        {
            "backbones": [f"{networks}:exploding", f"{networks}:small"],
            "methods": ["plain"],
            "resolution": [16],
            "latency": False,
            "train": {"data": "digits", "device": "cpu", "epochs": 1, "seeds": 2, "batch_size": 512},
        }
    )
    records = measured(spec, tmp_path / "run")
    status = {(r.point.backbone.rpartition(":")[2], r.protocol["seed"]): r.status for r in records}
    assert status == {
        ("exploding", 0): "failed",
        ("exploding", 1): "failed",
        ("small", 0): "ok",
        ("small", 1): "ok",
    }
    errors = [r.error for r in records if r.status == "failed"]
    assert all(error is not None and "the training diverged" in error for error in errors)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_training_that_waited_in_a_file_is_the_unbroken_one(
    networks: Path, tmp_path: Path, damaged: bool
) -> None:
    spec = TrainSpec(**SPEC.model_dump(exclude={"epochs", "steps"}) | {"batch_size": 512, "ema": 0.9})
    point = DesignPoint.of(f"{networks}:small", "weightnet", 2, 2, resolution=16)
    record = Record("training", point, training_protocol(spec, "cpu", 1, 0))
    (full,) = perform(TrainingTask(spec, record))
    (part,) = perform(TrainingTask(spec, record, 1, pauses=True))
    assert part.state is not None
    assert part.record.samples["tested_epochs"] == [1]
    (rest,) = perform(TrainingTask(spec, record, state=part.state[:1000] if damaged else part.state))
    assert rest.record.samples == full.record.samples
    assert rest.state is full.state is None


def test_fewer_tests_leave_what_is_learnt_as_it_is(networks: Path) -> None:
    spec = TrainSpec(data="digits", device="cpu", epochs=3, batch_size=512)
    record = Record(
        "training", DesignPoint.of(f"{networks}:small", resolution=16), training_protocol(spec, "cpu", 1, 0)
    )
    rarely = TrainSpec(data="digits", device="cpu", epochs=3, batch_size=512, test_every=2)
    assert training_protocol(rarely, "cpu", 1, 0) == record.protocol
    (often,), (few,) = (list(perform(TrainingTask(one, record))) for one in (spec, rarely))
    all_tests, later_tests = often.record.samples, few.record.samples
    assert (all_tests["tested_epochs"], later_tests["tested_epochs"]) == ([1, 2, 3], [2, 3])
    assert later_tests["loss"] == all_tests["loss"]
    assert later_tests["tested_top1"] == all_tests["tested_top1"][1:]
    assert later_tests["tested_loss"] == all_tests["tested_loss"][1:]


def test_halving_tests_after_every_epoch() -> None:
    with pytest.raises(ValueError, match="test_every is for 'schedule: full'"):
        replace_spec(test_every=2)


@pytest.mark.slow
def test_a_halving_that_is_killed_resumes_to_the_same_records(networks: Path, tmp_path: Path) -> None:
    path = a_sweep(networks, tmp_path, "schedule: halving, max_epochs: 9, seeds: 2, jobs: 1")
    full = measured(load_sweep(path), tmp_path / "whole")
    command = ("sweep", path, "--out", tmp_path / "parts")
    # Five points are counted first. Killed in the first rung, of which two train at once, then later twice.
    for jobs, least, waiting in ((2, 5, 1), (1, 6, 0), (1, 9, 0)):
        with started(*command, "--jobs", jobs) as process:
            deadline = time.monotonic() + 120
            while not reached(tmp_path / "parts", least, waiting) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    ended(*command)
    parts = [r for r in read_records(tmp_path / "parts") if r.figure == "training"]
    assert told(parts) == told(full)
    assert not (tmp_path / "parts/paused").exists()


def reached(directory: Path, records: int, waiting: int) -> bool:
    """Whether so many records are committed and so many trainings wait in files."""
    return committed(directory) >= records and len(list(directory.glob("paused/*.state"))) >= waiting


def test_without_optuna_it_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"wnexplore\[search\]"):
        plan(SweepSpec(latency=None, train=SPEC, resolution=(16,), stem=("small",)))
