from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wnexplore.errors import InputError, Notice
from wnexplore.measure.environment import (
    device_name,
    environment,
    has_code_for,
    resolve_device,
    source_commit,
    unused_bytes,
    usable_cores,
)

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_environment_is_json_and_says_what_this_process_runs() -> None:
    found = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["device_name"] == device_name("cpu")
    assert found["fvcore"]


def test_environment_reads_the_switches_of_torch_as_they_are_now() -> None:
    matmul = torch.backends.cuda.matmul
    threads, tf32 = torch.get_num_threads(), matmul.allow_tf32
    try:
        for value, count in ((True, 1), (False, 2)):
            torch.set_num_threads(count)
            matmul.allow_tf32 = value
            torch.use_deterministic_algorithms(value)
            found = environment("cpu")
            assert (found["threads"], found["matmul_tf32"], found["deterministic"]) == (count, value, value)
    finally:
        torch.set_num_threads(threads)
        matmul.allow_tf32 = tf32
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_usable_cores_are_those_of_the_affinity_mask() -> None:
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, mask)
    assert usable_cores() == len(mask)


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(InputError, match=r"'cuda'.*'cpu'.*'auto'"):
        resolve_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_environment_of_a_gpu_names_it_and_its_driver() -> None:
    found = environment(resolve_device("cuda"))
    assert found["device_name"] == torch.cuda.get_device_properties(0).name
    assert found["cuda"]
    assert found["cudnn"]


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80", "sm_90"], True),
        ((8, 0), ["sm_86", "sm_90"], False),
        ((7, 0), ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"], False),
        ((6, 1), ["sm_75", "compute_75"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90", "compute_90"], True),
        ((12, 1), ["sm_120"], True),
        ((10, 3), ["sm_90a", "compute_90a"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100f"], True),
        ((12, 0), ["compute_100f"], False),
        ((9, 4), ["gfx90a", "gfx942"], True),
        ((9, 0), [], True),
    ],
)
def test_machine_code_runs_on_its_own_generation_and_ptx_on_later_ones(
    capability: tuple[int, int], built_for: list[str], runs: bool
) -> None:
    assert has_code_for(capability, built_for) == runs


def test_a_gpu_that_this_torch_has_no_code_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    with pytest.warns(Notice, match=r"sm_75 sm_80.*Tesla P100 \(sm_60\).*CPU"):
        assert resolve_device("auto") == "cpu"
    with pytest.raises(InputError, match=r"Tesla P100 \(sm_60\).*'cpu'"):
        resolve_device("cuda")
    assert resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_60"])
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"


@pytest.mark.slow
def test_a_command_reports_such_a_gpu_once_and_on_one_line() -> None:
    code = (
        "import torch, wnexplore.cli\n"
        "torch.cuda.is_available = lambda: True\n"
        "torch.cuda.get_device_capability = lambda: (6, 0)\n"
        "torch.cuda.get_device_name = lambda: 'Tesla P100'\n"
        "torch.cuda.get_arch_list = lambda: ['sm_75', 'sm_80']\n"
        "for command in ('evaluate', 'analyze'):\n"
        "    try: wnexplore.cli.main([command, 'missing.safetensors'])\n"
        "    except SystemExit: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 3
    lines = [line for line in done.stderr.splitlines() if "Tesla P100" in line]
    assert len(lines) == 1
    assert "Tesla P100 (sm_60)" in lines[0]
    assert "Warning" not in done.stderr
    assert "warnings.warn" not in done.stderr


def test_what_is_free_in_a_recorded_graph_is_no_other_networks_memory() -> None:
    def segment(total: int, active: int, **more: object) -> dict[str, object]:
        return {"device": 0, "total_size": total, "active_size": active, **more}

    segments = [
        segment(100, 30, segment_pool_id=(0, 0)),
        segment(1000, 10, segment_pool_id=(0, 1)),
        segment(1000, 10, segment_pool_id=(2, 0)),
        segment(50, 0),
        segment(10_000, 0, segment_pool_id=(0, 0)) | {"device": 1},
    ]
    assert unused_bytes(segments, 0) == 70 + 50


def test_unknown_device_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"'cudaa'.*'cuda'"):
        resolve_device("cudaa")


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@needs_git
def test_commit_is_that_of_the_checkout_and_says_if_files_were_changed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("one.py", "two.py", "three.py"):
        (package / name).write_text("")
    _git(tmp_path, "init")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    _git(tmp_path, "tag", "-a", "v1", "-m", "a tag must not change the answer")
    head = _git(tmp_path, "rev-parse", "HEAD")
    assert source_commit(package / "one.py") == head
    (package / "three.py").write_text("changed = True")
    assert source_commit(package / "two.py") == f"{head}-dirty"


@needs_git
def test_commit_of_a_file_that_git_does_not_track_is_none(tmp_path: Path) -> None:
    (tmp_path / "loose.py").write_text("")
    assert source_commit(tmp_path / "loose.py") is None
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    _git(checkout, "init")
    _git(checkout, "commit", "--allow-empty", "-m", "someone else's project")
    (checkout / "installed.py").write_text("")
    assert source_commit(checkout / "installed.py") is None


@pytest.mark.slow
def test_environment_without_any_program_in_reach_still_answers() -> None:
    code = (
        "from wnexplore.measure.environment import environment; found = environment('cpu');"
        "print(found['commit'], found['driver'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["None", "None"]
