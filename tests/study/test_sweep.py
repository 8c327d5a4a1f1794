from pathlib import Path

import pytest

from tests.data.splits import write_folder
from tests.examples import rest_slow
from tests.sweeps import TINY, TRAINED, write_sweep
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.errors import InputError
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models import build
from wnexplore.results.record import Record
from wnexplore.results.store import Store, read_records
from wnexplore.study.sweep import SweepStep, measure, plan, remaining, run
from wnexplore.training.training_record import threads_before


def _spec(folder: Path, text: str = TINY) -> SweepSpec:
    return load_sweep(write_sweep(folder, text))


def _run(spec: SweepSpec, directory: Path, retry_failed: bool = False) -> list[SweepStep]:
    """Run what is left of a sweep; the step at which each measurement began, of those timed together
    that at which each was made ready."""
    steps: list[SweepStep] = []
    with Store.create(directory) as store:
        run(spec, remaining(plan(spec), store.keys(), retry_failed), store, steps.append)
    assert all(0 <= step.done + step.part <= step.total for step in steps)
    begun = {step.measurement.key: step for step in reversed(steps) if step.part == 0}
    return list(reversed(begun.values()))


def test_each_point_is_counted_timed_and_trained(tmp_path: Path) -> None:
    spec = _spec(tmp_path, TRAINED.replace("M: [1, 2]", "M: [2]").replace("G: [1, 2]", "G: [2]"))
    _run(spec, tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert [r.figure for r in records] == ["complexity"] * 2 + ["latency"] * 4 + ["training"] * 4
    assert [r.protocol["batch_size"] for r in records if r.figure == "latency"] == [1, 1, 2, 2]
    assert [r.protocol["seed"] for r in records if r.figure == "training"] == [0, 1, 0, 1]
    assert {r.status for r in records} == {"ok"}
    for record in records:
        assert record.environment["torch"]
        if record.figure == "complexity":
            counts = measure_complexity(build(record.point), record.point.resolution)
            assert record.value == counts.to_dict()
        elif record.figure == "latency":
            assert (
                record.value["latency_ms_low"]
                <= record.value["latency_ms"]
                <= record.value["latency_ms_high"]
            )
            assert ("baseline_ms" in record.samples) == (record.point.method != "plain")
            assert record.protocol["device_name"]
            assert record.protocol["target"] == 0.03
            assert record.value["rounds"] == len(record.samples["latency_ms"])
            weights = sum(p.numel() for p in build(record.point).parameters()) * 4 / 1e6
            assert record.value["peak_memory_mb"] > weights
        else:
            assert 0 <= record.value["top1"] <= 100
            assert len(record.samples["loss"]) == 1


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    spec = _spec(tmp_path, TRAINED)
    todo = [m for m in plan(spec).measurements if m.figure == "training"][:2]
    first, second = list(measure(spec, todo)), list(measure(spec, todo))
    assert [(r.value["top1"], r.samples) for r in first] == [(r.value["top1"], r.samples) for r in second]
    assert first[0].samples != first[1].samples


def test_illegal_points_are_skipped_with_the_reason(tmp_path: Path) -> None:
    planned = plan(_spec(tmp_path))
    ((point, reason),) = planned.expansion.skipped
    assert (point.M, point.G) == (1, 2)
    assert reason.startswith("layer 3: G·C_out = 32 groups")
    assert point not in planned.points


def test_a_finished_sweep_measures_nothing_again(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    assert len(_run(spec, tmp_path / "run")) == 12
    before = read_records(tmp_path / "run")
    assert _run(spec, tmp_path / "run") == []
    assert read_records(tmp_path / "run") == before


@pytest.mark.slow
def test_only_what_is_new_runs_when_the_sweep_changes(tmp_path: Path) -> None:
    _run(_spec(tmp_path), tmp_path / "run")
    wider = _spec(tmp_path, TINY.replace("M: [1, 2]", "M: [2, 4]"))
    steps = _run(wider, tmp_path / "run")
    assert {(s.measurement.point.M, s.measurement.point.G) for s in steps} == {(4, 1), (4, 2)}
    assert [s.total for s in steps] == [6] * 6
    assert [s.done for s in steps] == [0, 1, 2, 2, 4, 4], "latencies of one batch size go together"


def test_trainings_continue_with_the_threads_that_the_run_began_with(tmp_path: Path) -> None:
    spec = _spec(tmp_path, TRAINED)
    plain = plan(spec).points[0].baseline()
    begun = plan(spec, {plain: 3})
    trained = [m for m in begun.measurements if m.figure == "training"]
    assert {m.protocol["threads"] for m in trained} == {3}
    with Store.create(tmp_path / "run") as store:
        store.append(Record("training", trained[0].point, trained[0].protocol, value={"top1": 50.0}))
    goes_on = plan(spec, threads_before(read_records(tmp_path / "run")))
    assert [m.key for m in goes_on.measurements] == [m.key for m in begun.measurements]


def test_what_was_under_way_when_it_stopped_is_all_that_is_lost(tmp_path: Path) -> None:
    spec = _spec(tmp_path)

    def stop_amid_the_second_batch_size(step: SweepStep) -> None:
        if step.done == 8 and step.part > 0:
            raise KeyboardInterrupt

    with Store.create(tmp_path / "run") as store, pytest.raises(KeyboardInterrupt):
        run(spec, remaining(plan(spec), store.keys()), store, stop_amid_the_second_batch_size)
    assert len(read_records(tmp_path / "run")) == 8
    assert len(_run(spec, tmp_path / "run")) == 4
    keys = [r.key for r in read_records(tmp_path / "run")]
    assert sorted(keys) == sorted(m.key for m in plan(spec).measurements)


def _failures(records: list[Record]) -> list[tuple[str, str, str | None]]:
    return [(r.figure, r.status, r.error) for r in records if r.status != "ok"]


def test_a_point_that_does_not_fit_in_memory_becomes_a_row_and_the_sweep_continues(tmp_path: Path) -> None:
    text = (
        "methods: [plain]\nstem: [small]\nresolution: [10000000, 32]\nlatency: {seconds: 0.001, device: cpu}"
    )
    _run(_spec(tmp_path, text), tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert [(r.point.resolution, r.figure, r.status) for r in records] == [
        (10_000_000, "complexity", "out_of_memory"),
        (32, "complexity", "ok"),
        (10_000_000, "latency", "out_of_memory"),
        (32, "latency", "ok"),
    ]
    assert all(r.error and "\n" not in r.error and r.value == {} for r in records[::2])


@pytest.mark.slow
def test_a_training_that_diverges_becomes_a_row_and_is_tried_again_only_when_asked(tmp_path: Path) -> None:
    text = TRAINED.replace("latency: {", "latency: false\n#").replace("epochs: 1", "epochs: 1, lr: 1.0e+30")
    spec = _spec(tmp_path, text.replace("methods: [plain, weightnet]", "methods: [plain]"))
    _run(spec, tmp_path / "run")
    failed = _failures(read_records(tmp_path / "run"))
    assert [f[:2] for f in failed] == [("training", "failed")] * 2
    assert failed[0][2] is not None
    assert "the loss is nan in epoch 1 of 1 (seed 0)" in failed[0][2]
    assert _run(spec, tmp_path / "run") == []
    assert len(_run(spec, tmp_path / "run", retry_failed=True)) == 2
    assert len(read_records(tmp_path / "run")) == 3


def test_what_is_requested_twice_is_measured_once(tmp_path: Path) -> None:
    text = TINY.replace("batch_sizes: [1, 2]", "batch_sizes: [1, 1]")
    keys = [m.key for m in plan(_spec(tmp_path, text)).measurements]
    assert len(keys) == len(set(keys)) == 8


def test_every_axis_of_the_protocol_is_crossed(tmp_path: Path) -> None:
    axes = "{device: cpu, dtypes: [float32, bfloat16], memory_formats: [contiguous, channels_last]"
    axes += ", threads: [1, 2], caches: [warm, cold], modes: [inference, train], seconds: 0.001}"
    spec = _spec(tmp_path, f"methods: [plain]\nlatency: {axes}")
    protocols = [m.protocol for m in plan(spec).measurements if m.figure == "latency"]
    assert len({m.key for m in plan(spec).measurements}) == 1 + 2**5
    assert {p["threads"] for p in protocols} == {1, 2}
    assert {(p["cache"], p["mode"]) for p in protocols} == {
        (cache, mode) for cache in ("warm", "cold") for mode in ("inference", "train")
    }


@pytest.mark.parametrize("asked", ["dtypes: [tf32]", "runtimes: [eager, cudagraph]"])
def test_what_only_a_gpu_has_is_reported_before_anything_is_measured(tmp_path: Path, asked: str) -> None:
    with pytest.raises(InputError, match=r"'(tf32|cudagraph)'.*CUDA"):
        plan(_spec(tmp_path, f"methods: [plain]\nlatency: {{device: cpu, {asked}}}"))


@pytest.mark.slow
def test_the_environment_is_that_of_the_measurement(tmp_path: Path) -> None:
    spec = _spec(tmp_path, TRAINED.replace("seconds: 0.001", "seconds: 0.001, threads: 2"))
    todo = [m for m in plan(spec).measurements if m.point.method == "plain"]
    found = {r.figure: r.environment for r in measure(spec, todo)}
    assert found["latency"]["threads"] == 2
    assert found["training"]["deterministic"]
    assert not found["latency"]["deterministic"]


def test_a_record_is_the_same_however_its_data_set_is_written(tmp_path: Path) -> None:
    def keys(train: str) -> set[str]:
        planned = plan(_spec(tmp_path, f"train: {{{train}, device: cpu, seeds: 2}}"))
        return {m.key for m in planned.measurements if m.figure == "training"}

    protocols = [m.protocol for m in plan(_spec(tmp_path, "train: {device: cpu}")).measurements if m.protocol]
    assert [(p["dataset"], p["path"]) for p in protocols if "dataset" in p][:1] == [("digits", None)]
    assert keys("data: shapes") == keys("data: 'shapes:10x2000'") != keys("data: 'shapes:10x2002'")
    write_folder(tmp_path, 2, 1)
    named = keys(f"data: 'folder:{tmp_path}'")
    assert named == keys(f"data: folder, path: {tmp_path}") != keys("data: digits")


def test_a_missing_data_set_is_reported_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cifar10"):
        plan(_spec(tmp_path, f"train: {{data: cifar10, path: {tmp_path}}}"))
    with pytest.raises(InputError, match="path"):
        plan(_spec(tmp_path, "train: {data: folder}"))


@pytest.mark.parametrize(
    ("where", "trained"),
    rest_slow(
        [("latency_ratio < 0", 0), ("latency_ratio < 1e6 and top1 > 101", 8), ("params < 1", None)],
        ("latency_ratio < 0", 0),
        ("params < 1", None),
    ),
)
def test_a_point_is_trained_only_if_what_was_measured_allows_it(
    tmp_path: Path, where: str, trained: int | None
) -> None:
    spec = _spec(tmp_path, TRAINED.replace("M: [1, 2]", "M: [1, 2]\nwhere: " + where))
    if trained is None:
        assert plan(spec).points == ()
        return
    _run(spec, tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert sum(record.figure == "latency" for record in records) == 8
    assert sum(record.figure == "training" for record in records) == trained
