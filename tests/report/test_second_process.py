"""A second process draws what this one would, and nothing depends on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.store import make
from tests.results.records import complexity, points
from wnexplore.errors import InputError
from wnexplore.report.figure_files import drawn
from wnexplore.report.figures import standard_files
from wnexplore.report.heatmap import HeatPanel
from wnexplore.report.panels import FigureInfo
from wnexplore.report.second_process import WORTH, SecondProcess, second_process
from wnexplore.results.frame import frame

RECORDS = [complexity(point, params=350_000 + number) for number, point in enumerate(points())]
TABLE = frame(RECORDS)


@pytest.fixture(scope="module")
def helper() -> Iterator[SecondProcess]:
    process = SecondProcess()
    yield process
    process.end()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(standard_files(TABLE, RECORDS))


def heat(value: float | None) -> FigureInfo:
    panel = HeatPanel("", ("1",), ("1",), ((value,),), (("",),))
    return FigureInfo((panel,), columns=1)


def test_its_files_are_the_same(helper: SecondProcess, files: dict[str, bytes]) -> None:
    assert len(files) == 2
    assert list(standard_files(TABLE, RECORDS, helper=helper)) == [*files.items()]
    for suffix in (".svg", ".pdf"):
        assert helper.draw(heat(1.5), suffix) == drawn(heat(1.5), suffix)


def test_what_it_cannot_draw_is_left_to_this_process(helper: SecondProcess) -> None:
    # No value has a colour; matplotlib warns of a letter that its font lacks.
    assert helper.draw(heat(None), ".png") is None
    unusual = FigureInfo(heat(1.5).panels, columns=1, note="\N{EGYPTIAN HIEROGLYPH A001}")
    assert helper.draw(unusual, ".png") is None
    with pytest.warns(UserWarning, match="[Gg]lyph"):
        drawn(unusual, ".png")
    assert helper.draw(heat(1.5), ".png") == drawn(heat(1.5), ".png")


def test_nothing_is_lost_if_it_dies(files: dict[str, bytes]) -> None:
    helper = SecondProcess()
    # While it still imports: what it was given before, and after, is drawn here.
    os.kill(helper.pid, signal.SIGKILL)
    assert list(standard_files(TABLE, RECORDS, helper=helper)) == [*files.items()]
    helper.end()


def test_an_error_of_the_data_ends_it_and_is_raised() -> None:
    with second_process(WORTH) as helper, pytest.raises(InputError, match="nothing to plot"):
        list(standard_files(TABLE.iloc[:0], helper=helper))


def test_little_to_draw_or_one_core_needs_none() -> None:
    with second_process(WORTH - 1) as helper:
        assert helper is None
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            with second_process(WORTH) as helper:
                assert helper is None
        finally:
            os.sched_setaffinity(0, cores)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_it_ends_with_this_process() -> None:
    script = """
import os, signal
from wnexplore.report.second_process import SecondProcess

print(SecondProcess().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    while _runs(int(ended.stdout)):
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be chosen here")
def test_a_large_run_is_drawn_the_same_on_one_core_and_on_all(tmp_path: Path) -> None:
    make(tmp_path / "run", WORTH)
    folders = {}
    for name, cores in (("one", {min(os.sched_getaffinity(0))}), ("all", os.sched_getaffinity(0))):
        out = tmp_path / name
        out.mkdir()
        script = "import os, sys; os.sched_setaffinity(0, {cores}); from wnexplore.cli import main; main()"
        command = [
            sys.executable,
            "-c",
            script.format(cores=cores),
            "plot",
            str(tmp_path / "run"),
            "--out",
            str(out),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        assert said.stderr == ""
        folders[name] = {path.name: path.read_bytes() for path in out.iterdir()}
        assert {Path(line).name for line in said.stdout.splitlines()} == folders[name].keys()
    assert len(folders["one"]) > 4
    assert folders["all"] == folders["one"]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
