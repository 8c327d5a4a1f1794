from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wnexplore.errors import InputError, RunError
from wnexplore.files import check_folder, check_writable, make_folder, write_atomically


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"one")
    path.chmod(0o640)
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a"]


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old" * 10)
    with path.open("rb", buffering=0) as reader:
        start = reader.read(3)
        write_atomically(path, b"new")
        assert start + reader.read() == b"old" * 10
    assert path.read_bytes() == b"new"


def test_what_can_not_be_written_shows_beforehand(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    for path in (tmp_path / "there", tmp_path / "not yet", Path("/dev/null")):
        check_writable(path)
    assert os.listdir(tmp_path) == ["there"]
    for wrong in ("nowhere/a", "there/a", "."):
        with pytest.raises(InputError, match=str(tmp_path)):
            check_writable(tmp_path / wrong)


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["file", "file/folder", "link"])
def test_folders_that_can_not_be_made_show_beforehand(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for work in (check_folder, make_folder):
        with pytest.raises(InputError, match=name):
            work(tmp_path / name)


def test_follows_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_a_device_is_written_to_and_stays() -> None:
    write_atomically("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write_atomically(path, b"x" * 200_000)
    reader.join(10)
    assert found == [b"x" * 200_000]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("redirect", [">", ">>", "|"])
def test_standard_output(tmp_path: Path, redirect: str) -> None:
    code = "from wnexplore.files import write_atomically; write_atomically('/dev/stdout', b'data')"
    log = tmp_path / "log"
    log.write_text("kept " if redirect == ">>" else "")
    target = f"| cat > {log}" if redirect == "|" else f"{redirect} {log}"
    subprocess.run(f'{sys.executable} -c "{code}" {target}', shell=True, check=True)
    assert log.read_text() == ("kept data" if redirect == ">>" else "data")


@pytest.mark.parametrize("name", ["missing/x", "", ".", "file/x", "a\0b", "n" * 300, "loop"])
def test_wrong_paths_are_input_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError):
        write_atomically(name, b"x")
    assert sorted(os.listdir()) == ["file", "loop"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_permissions_are_respected(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(InputError, match="permission"):
        write_atomically(path, b"new")
