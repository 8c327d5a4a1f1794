"""Runs a Python file from its path; the other files of its folder can be imported, as from a script."""

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
    """The module of the file `path`, under a unique name; inside, its folder can be imported from.

    It is run once, and again when it or an imported neighbour has changed: all its networks share its
    classes. Raises whatever the file raises.
    """
    path = path.resolve()
    with _importable(path.parent) as unchanged:
        source = path.read_bytes()
        if path not in _files or not unchanged or _files[path][1] != source:
            _files[path] = _run(path, source), source
        yield _files[path][0]


_files: dict[Path, tuple[ModuleType, bytes]] = {}
"""File that was run -> its module, and the file's content."""
_neighbours: dict[Path, dict[str, tuple[ModuleType, bytes]]] = {}
"""Folder -> name -> module that was imported from it, and its file's content."""
_PREFIX = "_wnexplore_external_"
_numbers = itertools.count()


def _run(path: Path, source: bytes) -> ModuleType:
    # A new name each time: networks of an earlier version of the file keep their module.
    name = f"{_PREFIX}{next(_numbers)}"
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Not from cached bytecode, which misses changes within the same second.
    exec(loader.source_to_code(source, str(path)), module.__dict__)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[bool]:
    """Put `folder` first on the import path; yields whether what was imported from it before is unchanged.

    Two folders may have files of the same name: only one folder's modules are in sys.modules at a time.
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
    # Cached bytecode of a neighbour would miss changes within the same second.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield unchanged
    finally:
        sys.dont_write_bytecode = writes_none
        sys.path.remove(str(folder))
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        neighbours |= {
            name: (module, _content(module)) for name, module in new.items() if _is_of(folder, name, module)
        }


def _is_of(folder: Path, name: str, module: ModuleType) -> bool:
    """Whether a module is a file in `folder` or in a package there, not in an environment below it."""
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
