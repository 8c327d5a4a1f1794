"""The rooms of wnexplore/ and the one direction in which they import."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wnexplore"

ROOMS = (
    *("errors", "files", "design", "results", "nn", "models", "space", "measure", "data", "training"),
    *("study", "report", "cli"),
)
"""From left to right: each imports only from those before it."""

TORCH_FREE = ("design", "results", "report")

TWICE = {"__init__"}
"""File names that stand in several rooms, apart from those of commands: cli/NAME.py parses and prints what
another room's NAME.py does."""


def test_rooms_import_from_those_before_them_alone() -> None:
    for room, module, imported in _imports():
        assert ROOMS.index(imported) <= ROOMS.index(room), f"{module} imports from {imported}/"


def test_report_reads_results_and_the_command_line_alone_reads_report() -> None:
    for room, module, imported in _imports():
        if room == "report":
            assert imported in ("errors", "files", "design", "results", "report"), module
        if imported == "report":
            assert room in ("report", "cli"), module


def test_nothing_lies_loose() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__", "errors", "files"}
    rooms = {path.parent.relative_to(PACKAGE).parts for path in PACKAGE.rglob("*.py")}
    assert {parts[0] for parts in rooms if parts} | {"errors", "files"} == set(ROOMS)


def test_a_file_name_stands_in_one_room() -> None:
    rooms = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        rooms[path.stem].add(str(path.parent.relative_to(PACKAGE)))
    twice = {name: found - {"cli"} for name, found in rooms.items() if name not in TWICE}
    assert {name: found for name, found in twice.items() if len(found) > 1} == {}


def test_some_rooms_load_no_torch() -> None:
    # The first module after which it is there names the room.
    files = [file for room in TORCH_FREE for file in sorted((PACKAGE / room).rglob("*.py"))]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    script = f"import sys\nfor m in {modules}:\n    __import__(m)\n    assert 'torch' not in sys.modules, m"
    subprocess.run([sys.executable, "-c", script], check=True)


@cache
def _imports() -> list[tuple[str, str, str]]:
    return list(_found_imports())


def _found_imports() -> Iterator[tuple[str, str, str]]:
    """Room, module, and each room that it imports from, wherever in the file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
            if isinstance(node, ast.Import):
                modules = names
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                modules = (
                    [f"wnexplore.{name}" for name in names]
                    if node.module == "wnexplore"
                    else [node.module or ""]
                )
            else:
                continue
            for module in modules:
                if module.startswith("wnexplore.") and module != "wnexplore.__version__":
                    yield parts[0], "/".join(parts), module.split(".")[1]


def test_no_test_imports_from_a_file_of_tests() -> None:
    """What several files of tests use lies in a module of its own, or in a conftest.py."""
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        # Scripts that a test hands to another process import as well.
        text = path.read_text(encoding="utf-8")
        found = re.findall(
            r"^\s*(?:from|import) (?:tests\S*)?\.test_.*|^\s*from tests\S* import .*\btest_.*", text, re.M
        )
        assert not found, path
