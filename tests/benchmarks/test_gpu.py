"""The validation of the GPU path runs whole on a CPU, and none of its steps can stop the next."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import gpu


def _gpu(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu", "--out", str(out), *options]
    return subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    done = _gpu(tmp_path, "--minutes", "30")
    assert done.returncode == 0, done.stdout
    findings = {found["step"]: found for found in json.loads((tmp_path / "findings.json").read_text())}
    assert list(findings) == list(gpu.LIMITS_S)
    skipped = {step for step, found in findings.items() if found["status"] == "skipped"}
    assert skipped == {"energy", "fused_tests"}
    assert all(found["status"] == "ok" for step, found in findings.items() if step not in skipped)
    assert "trainings by 2 and 1 processes equal" in findings["sweep_jobs_2"]["finding"]
    for step in gpu.LIMITS_S:
        assert f"\n{step} " in "\n" + done.stdout
        assert (tmp_path / f"{step}.log").exists()
        assert f"| {step} |" in (tmp_path / "findings.md").read_text()
    for table in ("formulations", "runtimes", "compile", "speed", "roofline_copies"):
        assert len((tmp_path / f"{table}.csv").read_text().splitlines()) > 1


def test_a_step_that_takes_too_long_is_ended_and_the_next_one_follows(tmp_path: Path) -> None:
    done = _gpu(tmp_path, "--steps", "versions", "energy", "--minutes", "0.001")
    first, second, last = done.stdout.splitlines()
    assert first.split()[:3] == ["versions", "timed", "out"]
    assert second.split()[0] == "energy"
    assert last.startswith("NOT all passed")
    assert done.returncode == 1


def test_the_steps_take_eight_minutes_at_most() -> None:
    from tests.benchmarks.gpu_steps import STEPS

    assert sum(gpu.LIMITS_S.values()) <= 8 * 60
    assert list(STEPS) == list(gpu.LIMITS_S)
    assert list(gpu.LIMITS_S)[-1] == "poisoned", "it leaves a context that is lost"
