"""Atomic file writes: a reader sees all of a file or nothing."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from wnexplore.errors import InputError, RunError, WnexploreError

try:
    import fcntl
except ImportError:  # not on Windows, where a killed process's unfinished files stay
    fcntl = None  # type: ignore[assignment]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GIVEN_WRONG = {
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "part of its path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "it is no folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its symbolic links are circular",
    errno.ENXIO: "nothing can be written there",
}


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically: the file is complete, or unchanged.

    A symbolic link is followed and kept; an existing file's permissions are kept. Anything that is not a
    regular file (a pipe, /dev/stdout, /dev/null) is written to and never replaced. Raises `InputError` if the
    path can't be written (no such folder, a folder itself, no permission), `RunError` if the disk is full or
    fails. Unfinished files of killed processes in the same folder are removed, once per process.
    """
    with translate_errors(path):
        target = _resolve(path)
        if target is None:
            _write_into(path, data)
            return
        if target.parent not in _cleaned:
            _cleaned.add(target.parent)
            remove_unfinished(target.parent)
        _replace(target, data)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the `InputError` that `write_atomically` would, before anything is written."""
    with translate_errors(path):
        target = _resolve(path)
        if target is None:
            return
        target.parent.stat()
        if not os.access(target.parent, os.W_OK):
            raise OSError(errno.EACCES, "")


def make_folder(path: Path) -> None:
    """Create the folder `path` and its parents if missing.

    Raises `InputError` if it can't be created or is not a folder, `RunError` if the disk is full or fails.
    """
    check_folder(path)
    with translate_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def check_folder(path: Path) -> None:
    """Raise the `InputError` that `make_folder` would, before it is created."""
    with translate_errors(path):
        there = next(ancestor for ancestor in (path, *path.absolute().parents) if os.path.lexists(ancestor))
        if not stat.S_ISDIR(there.stat().st_mode):
            raise OSError(errno.ENOTDIR, "")
        if not os.access(there, os.W_OK):
            raise OSError(errno.EACCES, "")


@contextmanager
def translate_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Translate errors inside about writing `path` into errors that name it; raises as `write_atomically`."""
    try:
        yield
    except OSError as error:
        raise _readable(path, error) from error
    except ValueError:  # a NUL in the name
        raise InputError(f"can't write {os.fspath(path)!r}: it is not a file name") from None


def write_all(file: FileIO, data: bytes) -> None:
    """Write `data` to an unbuffered file, which may take a part of it at a time; raises `OSError`."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def cache_folder() -> Path:
    """The cache: $XDG_CACHE_HOME/wnexplore, or ~/.cache/wnexplore."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # By the specification relative paths are ignored.
    if given.is_absolute():
        return given / "wnexplore"
    try:
        return Path.home() / ".cache" / "wnexplore"
    except RuntimeError:
        # A user without a home: a path that can't be created.
        return Path(os.devnull) / "wnexplore"


def remove_unfinished(directory: Path) -> None:
    """Remove unfinished files of killed processes from `directory`.

    Files being written by other processes stay: they are locked as long as the process lives. Where files
    can't be locked, all stay.
    """
    if fcntl is None:
        return
    for path in directory.glob(f"{_PREFIX}*{_ENDING}"):
        # A link, a folder or a pipe of that name isn't ours; and files that can't be removed stay.
        with suppress(OSError, _HeldError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    _lock(descriptor, wait=False)
                    path.unlink()
            finally:
                os.close(descriptor)


def _resolve(path: str | os.PathLike[str]) -> Path | None:
    """The regular file, existing or not, that `path` refers to; None if it must be written in place."""
    link = Path(os.path.abspath(path)) if os.fspath(path) else Path("")
    if link == Path(""):
        raise OSError(errno.EISDIR, "")
    seen = 0
    # /dev/stdout may refer to a regular file opened by a shell: replacing it would lose its content.
    while not _is_descriptor(link):
        if not link.is_symlink():
            return _regular(Path(os.path.realpath(link)))
        seen += 1
        if seen > 40:
            raise OSError(errno.ELOOP, "")
        link = Path(os.path.abspath(link.parent.resolve() / os.readlink(link)))
    return None


def _is_descriptor(path: Path) -> bool:
    text = str(path)
    return text in ("/dev/stdout", "/dev/stderr") or text.startswith(("/dev/fd/", "/proc/"))


def _regular(path: Path) -> Path | None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "")
    if not stat.S_ISREG(mode):
        return None
    if not os.access(path, os.W_OK):
        # A rename would bypass a read-only file's permissions.
        raise OSError(errno.EACCES, "")
    return path


def _write_into(path: str | os.PathLike[str], data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb", buffering=0) as file:
        write_all(file, data)


def _replace(target: Path, data: bytes) -> None:
    temporary, descriptor = _begun(target)
    try:
        # Open until it is renamed: closing it would release the lock.
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            write_all(file, data)
            os.fsync(descriptor)
            if target.exists():
                _keep_ownership(target, temporary)
            os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _begun(target: Path) -> tuple[Path, int]:
    """A new file in the folder of `target`, and its descriptor, which holds the file's lock if supported."""
    while True:
        temporary = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_ENDING}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(_HeldError):
            _lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        # Between the two calls another process took it for an unfinished file and removed it.
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> None:
    """Lock a file until it is closed. Raises `_HeldError` if another process holds the lock, or if
    unsupported.
    """
    if fcntl is None:
        raise _HeldError
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        raise _HeldError from None


class _HeldError(Exception):
    """A file can't be locked."""


_PREFIX, _ENDING = ".wnexplore-", ".tmp"
"""Parts of the name of a file that is being written."""
_cleaned: set[Path] = set()
"""Folders that this process has cleaned."""


def _keep_ownership(target: Path, temporary: Path) -> None:
    old = target.stat()
    with suppress(OSError):  # only root may give a file away
        os.chown(temporary, old.st_uid, old.st_gid)
    with suppress(OSError):  # file systems without permissions
        os.chmod(temporary, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    # The rename is done; its durability across a power failure is optional, as some file systems refuse it.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _readable(path: str | os.PathLike[str], error: OSError) -> WnexploreError:
    name = repr(os.fspath(path))
    if error.errno in _FULL:
        return RunError(f"can't write {name}: no space left (disk, quota or file size limit)")
    if error.errno in _GIVEN_WRONG:
        return InputError(f"can't write {name}: {_GIVEN_WRONG[error.errno]}")
    return RunError(f"can't write {name}: {error.strerror or error}")
