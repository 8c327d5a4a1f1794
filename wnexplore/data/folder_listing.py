"""Lists the image files in folders by class."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wnexplore.errors import InputError, shown

MOST_FILES, MOST_BYTES = 16_384, 2**28
"""How much of a data set is read to tell whether it has changed."""


@dataclass(frozen=True)
class ImageFiles:
    """The image files in root/CLASS, at any depth."""

    root: Path
    classes: tuple[str, ...]
    """Names in the order of their labels."""
    samples: list[tuple[str, int]]
    """Path and label of each image, sorted by class, folder and name."""

    def __len__(self) -> int:
        return len(self.samples)


def image_files(root: Path) -> ImageFiles:
    """The image files of the data set's part `root`, recognised by their suffixes.

    Hidden folders and files (".ipynb_checkpoints", "._photo.jpg") and those left by archives and servers
    ("__MACOSX", "@eaDir") are ignored. Links are followed, a folder once per class; but not links to `root`
    or above it, which would put the images of all classes into one. Raises `InputError` if there are no
    classes, a class has no image, or a folder can't be read.
    """
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    folders = [entry for entry in _entries(str(root)) if _is_folder(entry)]
    classes = tuple(entry.name for entry in folders if _identity(entry.path) not in above)
    expected = f"expected images as {shown(root, 300)}/CLASS/NAME.jpg"
    if not classes:
        raise InputError(f"data set 'folder': can't find any class folder in {shown(root, 300)}: {expected}")
    by_class = [_images_below(str(root / name), above) for name in classes]
    empty = [shown(name) for name, paths in zip(classes, by_class, strict=True) if not paths]
    if empty:
        names = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        raise InputError(
            f"data set 'folder': no valid file in class {names}: {expected} ({', '.join(_ENDS)})"
        )
    samples = [(path, label) for label, paths in enumerate(by_class) for path in paths]
    return ImageFiles(root, classes, samples)


def listing_hash(*parts: ImageFiles) -> str:
    """What tells the image files of a data set from others: 12 hex digits of SHA-256 of the classes and the
    files' names, a hyphen, and 12 of what they hold.

    That is the size of every file, and the bytes of as many, spread evenly over the data set, as make
    `MOST_FILES` files and `MOST_BYTES` bytes: of a small one all, of ImageNet, which takes as long as an
    epoch to read, some thousands. Times of change say nothing: a copy is the same data set.
    """
    names = hashlib.sha256()
    paths: list[str] = []
    for part in parts:
        root = len(os.path.join(part.root, ""))
        paths += (path for path, _ in part.samples)
        for name in (*part.classes, "", *(path[root:] for path, _ in part.samples), ""):
            names.update(os.fsencode(name) + b"\0")
    return f"{names.hexdigest()[:12]}-{_contents_hash(paths)}"


def _contents_hash(paths: Sequence[str]) -> str:
    sizes = [_size(path) for path in paths]
    found = hashlib.sha256(repr(sizes).encode())
    total = sum(size for size in sizes if size > 0)
    every = max(1, -(-len(paths) // MOST_FILES), -(-total // MOST_BYTES))
    left = MOST_BYTES
    for number in range(0, len(paths), every):
        if sizes[number] > 0:
            data = _start_of(paths[number], min(sizes[number], left))
            left -= len(data)
            found.update(data)
    return found.hexdigest()[:12]


def _size(path: str) -> int:
    """In bytes; -1 of what is no file, such as a pipe, which must not be waited for."""
    try:
        status = os.stat(path)
    except OSError:  # found to be no image when it is read
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _start_of(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def _images_below(folder: str, above: Set[tuple[int, int]]) -> list[str]:
    found: list[tuple[str, list[str]]] = []
    seen = set(above)
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        identity = _identity(here)
        if identity in seen:
            continue
        seen.add(identity)
        names = []
        folders = []
        for entry in _entries(here):
            if _is_folder(entry):
                folders.append(entry.path)
            elif entry.name.lower().endswith(_ENDS):
                names.append(entry.name)
        waiting += reversed(folders)
        found.append((here, names))
    return [os.path.join(place, name) for place, names in sorted(found) for name in names]


def _identity(folder: str | Path) -> tuple[int, int]:
    with _translate_errors(str(folder)):
        status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The relevant entries of `folder`, sorted by name."""
    with _translate_errors(folder), os.scandir(folder) as entries:
        return sorted((e for e in entries if not _is_hidden(e.name)), key=lambda entry: entry.name)


@contextmanager
def _translate_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(f"data set 'folder': can't read folder {shown(folder, 300)}: {why}") from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISDIR(entry.stat().st_mode) if entry.is_symlink() else entry.is_dir()
    except OSError:  # a dangling or circular link: reported when it is read
        return False


_ENDS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The suffixes of torchvision's ImageFolder."""
