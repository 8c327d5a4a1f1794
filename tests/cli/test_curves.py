"""Learning curves and halving's report from the command line, on runs whose records are known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.results.records import complexity, curves, halved, points
from wnexplore.results.record import Record
from wnexplore.results.store import Store


def write(directory: Path, records: Iterable[Record]) -> Path:
    with Store.create(directory) as store:
        for record in records:
            store.append(record)
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Counted, and trained with halving."""
    return write(tmp_path / "run", [*map(complexity, points()), *halved(curves(3))])


def test_curves_are_a_separate_plot_and_part_of_the_standard_set(command: Command, run: Path) -> None:
    outcome = command("plot", run, "--curves")
    assert (outcome.code, outcome.out.split()) == (0, [str(run / "learning_curves.png")])
    with Image.open(run / "learning_curves.png") as picture:
        alone = picture.tobytes()
        assert picture.width > 1000
    standard = command("plot", run, "--out", run / "all.png")
    assert str(run / "all_learning_curves.png") in standard.out.split()
    with Image.open(run / "all_learning_curves.png") as picture:
        assert picture.tobytes() == alone
    out = run / "some.svg"
    assert command("plot", run, "--curves", "--where", "epochs == 9", "--out", out).code == 0
    assert out.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--curves", "--x", "flops"), "--curves"),
        (("--curves", "--ranks"), "--curves"),
        (("--curves", "--strict"), "--pareto"),
        (("--curves", "--pareto"), "--pareto"),
        (("--curves", "--where", "epochs == 7"), "2 epochs"),
    ],
)
def test_what_has_no_curves(command: Command, run: Path, options: tuple[str, ...], message: str) -> None:
    outcome = command("plot", run, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_the_table_says_what_halving_did(command: Command, run: Path) -> None:
    full = command("table", run).out
    assert "dropped at" in full
    assert "\nhalving after 1 of 9 epochs: 12 variants, 8 dropped: " in full
    assert "Kendall's tau-b" in full
    for part in (("--where", "epochs == 9"), ("--pareto",)):
        assert "halving after" not in command("table", run, *part).out
