"""Trainings in one process or in several give the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps import TRAINED, write_sweep
from wnexplore.design.sweep_file import SweepSpec, load_sweep
from wnexplore.errors import Notice
from wnexplore.measure.torch_settings import threads_set
from wnexplore.results.record import Record
from wnexplore.study import local as module
from wnexplore.study.local import locally
from wnexplore.study.sweep import measure, plan

MORTAL = """
import multiprocessing, os

def mortal(num_classes=10):
    if multiprocessing.parent_process() is not None:
        os._exit(1)
    return tiny(num_classes)
"""


def test_jobs_change_no_record(tmp_path: Path) -> None:
    def keys(jobs: object) -> list[str]:
        spec = load_sweep(write_sweep(tmp_path, TRAINED), {("train", "jobs"): ("--jobs", jobs)})
        return [measurement.key for measurement in plan(spec).measurements]

    assert load_sweep(write_sweep(tmp_path, TRAINED)).train.jobs == "auto"  # type: ignore[union-attr]
    assert keys(1) == keys("auto") == keys("2")


@pytest.mark.slow
def test_several_processes_once_they_are_worth_it_learn_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = _trained(load_sweep(write_sweep(tmp_path, TRAINED), {("train", "jobs"): ("--jobs", 1)}))
    begun = _eager(monkeypatch)
    together = _trained(load_sweep(write_sweep(tmp_path, TRAINED)))
    assert begun == [2]
    assert _told(together) == _told(alone)
    assert all(record.status == "ok" for record in together)


@pytest.mark.slow
def test_a_process_that_dies_unasked_for_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_sweep(
        tmp_path, TRAINED.replace("own.py:tiny", "own.py:mortal").replace("[plain, weightnet]", "[plain]")
    )
    (tmp_path / "own.py").write_text((tmp_path / "own.py").read_text() + MORTAL, encoding="utf-8")
    begun = _eager(monkeypatch)
    with pytest.warns(Notice, match="died.*--jobs 1"):
        records = _trained(load_sweep(file))
    assert begun == [2]
    assert len({record.key for record in records}) == len(records) > 0
    assert all(record.status == "ok" for record in records)


def test_short_trainings_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = _eager(monkeypatch)
    monkeypatch.setattr(module, "_WORTH_S", 1e9)
    text = TRAINED.replace("[plain, weightnet]", "[plain]")
    assert len(_trained(load_sweep(write_sweep(tmp_path, text)))) == 2
    assert begun == []


@pytest.mark.parametrize(("free", "expected"), [(0, 1), (10**15, 4)])
def test_no_more_processes_than_memory_has_room_for(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    assert module._jobs_in_memory(4) == expected


def _eager(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let two processes start after the first step; returns how many have been started, each time."""
    begun: list[int] = []
    start = module.Local._start

    def noted(self: module.Local, jobs: int) -> None:
        begun.append(jobs)
        start(self, jobs)

    monkeypatch.setattr(module.Local, "_start", noted)
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    monkeypatch.setattr(module, "_WORTH_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return begun


def _trained(spec: SweepSpec) -> list[Record]:
    with threads_set(2):
        todo = [m for m in plan(spec).measurements if m.figure == "training"]
        # As small networks are trained: one thread each.
        todo = [type(m)(m.figure, m.point, {**m.protocol, "threads": 1}) for m in todo]
        return list(measure(spec, todo))


def _told(records: list[Record]) -> dict[str, object]:
    return {record.key: (record.value["top1"], record.samples) for record in records}


def test_what_is_lent_is_lent_again_and_ends_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[module.Local, bool]] = []
    monkeypatch.setattr(module.Local, "end", lambda self, *, kill: ended.append((self, kill)))
    with locally(lambda: 7) as lend:
        with lend(2) as first:
            assert isinstance(first, module.Local)
            assert first.ahead == 7
        with lend(2) as second:
            assert second is first
        with lend(1) as alone:
            assert not isinstance(alone, module.Local)
        assert ended == []
        with lend(3) as more:
            assert more is not first
        assert ended == [(first, False)]
        with lend(2) as third:
            assert third is not first
    assert ended == [(first, False), (more, False), (third, False)]
    with pytest.raises(KeyError), locally() as lend, lend(2) as last:
        raise KeyError
    assert ended[-1] == (last, True)
