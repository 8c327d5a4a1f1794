"""A Python file run from its path, the other files of its folder importable as a script's neighbours are."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType


@contextmanager
def module_of(path: Path) -> Iterator[ModuleType]:
    """The module that the file `path` is, under a name of its own; its folder is importable in the meantime.

    It is run once, and again when it or a neighbour that was imported has changed: its classes are the
    same ones for all networks that it makes. Raises whatever the file raises.
    """
    path = path.resolve()
    with _importable(path.parent) as unchanged:
        source = path.read_bytes()
        if path not in _files or not unchanged or _files[path][1] != source:
            _files[path] = _run(path, source), source
        yield _files[path][0]


_files: dict[Path, tuple[ModuleType, bytes]] = {}
"""File that was run -> its module, and what the file said."""
_neighbours: dict[Path, dict[str, tuple[ModuleType, bytes]]] = {}
"""Folder -> name -> module that was imported from it, and what its file said."""
_PREFIX = "_wnexplore_brought_"
_numbers = itertools.count()


def _run(path: Path, source: bytes) -> ModuleType:
    # Each under a new name: a network that was made by an earlier state of the file still finds its own.
    name = f"{_PREFIX}{next(_numbers)}"
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Not by way of the bytecode on disk, which can be that of a file changed in the same second.
    exec(loader.source_to_code(source, str(path)), module.__dict__)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[bool]:
    """`folder` first of all to import from; says whether what was imported from it before is unchanged.

    Two folders may have files of the same name: only one folder's are known at a time.
    """
    for names in _neighbours.values():
        for name in names:
            sys.modules.pop(name, None)
    neighbours = _neighbours.setdefault(folder, {})
    unchanged = all(_content(module) == content for module, content in neighbours.values())
    if not unchanged:
        neighbours.clear()
    sys.modules.update({name: module for name, (module, _) in neighbours.items()})
    before = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield unchanged
    finally:
        sys.path.remove(str(folder))
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        neighbours |= {
            name: (module, _content(module)) for name, module in new.items() if _is_of(folder, name, module)
        }


def _is_of(folder: Path, name: str, module: ModuleType) -> bool:
    """Whether a module is a file of `folder` or of a package there, not of an environment below it."""
    file = getattr(module, "__file__", None)
    if file is None or name.startswith(_PREFIX):
        return False
    place = Path(file).parent if Path(file).name == "__init__.py" else Path(file)
    return list(place.parents)[name.count(".") : name.count(".") + 1] == [folder]


def _content(module: ModuleType) -> bytes:
    try:
        return Path(str(module.__file__)).read_bytes()
    except OSError:
        return b""
