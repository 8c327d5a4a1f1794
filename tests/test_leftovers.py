"""What a killed process leaves of a write goes; what another one is writing, or anybody's file, stays."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from wnexplore.files import remove_unfinished, write_atomically

WRITING = """
import os, sys
from pathlib import Path
from wnexplore import files
# Where it is when it has written all but given it its name.
os.replace = lambda *names: (print("written", flush=True), sys.stdin.read())
files.write_atomically(Path(sys.argv[1]), b"x" * 100_000)
"""

needs_locks = pytest.mark.skipif(find_spec("fcntl") is None, reason="no locks")


@pytest.fixture
def writing(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process in the middle of a write of tmp_path/out.csv."""
    command = [sys.executable, "-c", WRITING, str(tmp_path / "out.csv")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def _unfinished(folder: Path) -> list[Path]:
    return list(folder.glob(".wnexplore-*.tmp"))


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


@needs_locks
def test_the_next_write_removes_what_a_killed_one_left(
    tmp_path: Path, writing: subprocess.Popen[str]
) -> None:
    (left,) = _unfinished(tmp_path)
    remove_unfinished(tmp_path)
    write_atomically(tmp_path / "other.csv", b"other")
    assert _unfinished(tmp_path) == [left], "its process is alive"
    _end(writing)
    assert _unfinished(tmp_path) == [left]
    # Each process looks through a folder once.
    again = "import sys; from wnexplore.files import write_atomically as w; w(sys.argv[1], b'another')"
    subprocess.run([sys.executable, "-c", again, tmp_path / "other.csv"], check=True)
    assert _unfinished(tmp_path) == []
    assert (tmp_path / "other.csv").read_bytes() == b"another"
    assert not (tmp_path / "out.csv").exists()


@needs_locks
def test_what_is_no_file_of_ours_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / ".wnexplore-link.tmp").symlink_to(precious)
    os.mkfifo(tmp_path / ".wnexplore-pipe.tmp")
    (tmp_path / ".wnexplore-folder.tmp").mkdir()
    (tmp_path / ".other.tmp").write_text("x")
    before = sorted(tmp_path.iterdir())
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    write_atomically(tmp_path / "out", b"x")


def _write_often(folder: str, number: int) -> None:
    for count in range(60):
        remove_unfinished(Path(folder))
        write_atomically(Path(folder) / f"{number}-{count}", b"x" * 1000)


def test_processes_that_write_and_clean_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_often, args=(str(tmp_path), number)) for number in range(3)]
    for process in processes:
        process.start()
    until = time.monotonic() + 60
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        assert process.exitcode == 0
    assert len(list(tmp_path.iterdir())) == 180
