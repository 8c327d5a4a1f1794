"""Tasks as submitit's jobs, by its executor for one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps import TRAINED, write_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.results.record import Record
from wnexplore.results.store import Store, read_records
from wnexplore.study.dispatch import Dispatcher
from wnexplore.study.executor import lends
from wnexplore.study.hardware import of_nodes
from wnexplore.study.remote import Needs
from wnexplore.study.slurm import SlurmJobs
from wnexplore.study.sweep import plan, run

TEXT = TRAINED.replace("methods: [plain, weightnet]", "methods: [plain]").replace("[1, 2]", "[1]")


@pytest.mark.slow
def test_a_sweep_by_jobs_is_that_in_one_process(tmp_path: Path) -> None:
    spec = load_sweep(write_sweep(tmp_path, TEXT))
    jobs = SlurmJobs(tmp_path / "shared", 2, Needs.of(spec), cluster="local", timeout_min=5)
    planned = plan(spec, hardware=of_nodes(jobs.nodes(), None))
    with Store.create(tmp_path / "run") as store:
        assert run(spec, list(planned.measurements), store, lend=lends(Dispatcher(jobs))) == []
    with Store.create(tmp_path / "alone") as store:
        run(spec, list(plan(spec).measurements), store)
    by_jobs, alone = (
        {record.key: _alike(record) for record in read_records(tmp_path / name) if record.figure != "latency"}
        for name in ("run", "alone")
    )
    assert by_jobs == alone
    assert {record.environment["node"] for record in read_records(tmp_path / "run")} == {"job 1", "job 2"}


def _alike(record: Record) -> object:
    return {k: v for k, v in record.value.items() if k != "seconds"}, record.samples
