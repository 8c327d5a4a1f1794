"""wnexplore compare on run directories whose figures are known."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.results.records import complexity, latency, points, training
from wnexplore.results.record import Record
from wnexplore.results.store import Store

PLAIN, SE, CONDCONV, WEIGHTNET = points()[:4]


def write(directory: Path, records: Iterable[Record]) -> Path:
    with Store.create(directory) as store:
        for record in records:
            store.append(record)
    return directory


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """In B plain is 25 % slower, se hardly, weightnet twice as fast and counted otherwise."""
    times = ((PLAIN, 4.0, 5.0), (SE, 4.0, 4.05), (WEIGHTNET, 4.0, 2.0))
    ours = [r for p, ms, _ in times for r in (complexity(p), latency(p, ms))]
    theirs = [latency(p, ms, runtime="compile") for p, _, ms in times]
    theirs += [complexity(PLAIN), complexity(SE), complexity(WEIGHTNET, params=350_002)]
    accuracies = [training(PLAIN, 90.0 - seed / 100, seed=seed) for seed in range(3)]
    worse = [training(PLAIN, 60.0 - seed / 100, seed=seed) for seed in range(3)]
    return (
        write(tmp_path / "a", [*ours, latency(CONDCONV), *accuracies]),
        write(tmp_path / "b", [*theirs, *worse]),
    )


def test_a_table_and_what_one_run_alone_has(command: Command, runs: tuple[Path, Path]) -> None:
    outcome = command("compare", *runs)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].endswith("a · eager")
    assert lines[1].endswith("b · compile")
    rows = [line.split() for line in lines if line.startswith(("plain", "se", "weightnet"))]
    assert {row[0]: row[-1] for row in rows} == {"plain": "slower", "se": "unclear", "weightnet": "faster"}
    assert "counted differently: shufflenet_v2_x0_5, weightnet" in outcome.out
    assert outcome.err == "only in A: shufflenet_v2_x0_5, condconv\n"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--fail-above", 1.24), 1),
        (("--fail-above", 1.26), 0),
        (("--fail-above", 1, "--where", "method == se"), 0),  # slower, but within the noise
        (("--fail-above", 1, "--where", "method == weightnet"), 0),
        (("--fail-above", 1.2, "--column", "latency_ratio"), 1),
        (("--fail-above", 1, "--column", "params"), 1),
        (("--fail-above", 1.01, "--column", "params"), 0),
        (("--fail-above", 1, "--column", "flops"), 0),
        (("--fail-above", 1.49, "--column", "top1"), 1),  # 90 over 60: larger is better
        (("--fail-above", 1.51, "--column", "top1"), 0),
        (("--fail-above", 1, "--column", "peak_memory_mb"), 1),
    ],
)
def test_only_what_is_certainly_worse_fails(
    command: Command, runs: tuple[Path, Path], options: tuple[object, ...], code: int
) -> None:
    outcome = command("compare", *runs, *options)
    assert outcome.code == code
    assert bool(outcome.err.replace("only in A: shufflenet_v2_x0_5, condconv\n", "")) == bool(code)
    assert ("✗" in outcome.out) == bool(code)


def test_the_other_way_round_nothing_that_got_faster_fails(command: Command, runs: tuple[Path, Path]) -> None:
    outcome = command("compare", *reversed(runs), "--fail-above", 1.05)
    assert outcome.code == 1
    (failed,) = (line for line in outcome.err.splitlines() if not line.startswith("only in"))
    assert "weightnet" in failed


def test_one_json_object_and_nothing_else_on_standard_output(
    command: Command, runs: tuple[Path, Path]
) -> None:
    outcome = command("compare", *runs, "--json", "--fail-above", 1.2)
    assert outcome.code == 1
    message = json.loads(outcome.out)
    assert (message["column"], message["apart"], message["fail_above"]) == (
        "latency_ms",
        {"runtime": ["eager", "compile"]},
        1.2,
    )
    assert {pair["method"]: (pair["ratio"], pair["failed"]) for pair in message["pairs"]} == {
        "plain": (1.25, True),
        "se": (1.0125, False),
        "weightnet": (0.5, False),
    }
    assert [entry["method"] for entry in message["only_a"]] == ["condconv"]
    assert [(entry["method"], entry["a"], entry["b"]) for entry in message["counts"]] == [
        ("weightnet", 350_001, 350_002)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fail-above", "0.9"), "--fail-above is 0.9"),
        (("--fail-above", "nan"), "--fail-above is nan"),
        (("--fail-above", "inf"), "--fail-above is inf"),
        (("--fail-above", "much"), "--fail-above"),
        (("--column", "latency"), "'latency_ms'"),
        (("--column", "energy_j"), "'energy_j'"),
        (("--where", "method == se and batch_size == 2"), "compare"),
        (("--where", "params <"), "character 9"),
    ],
)
def test_bad_input_is_one_line(
    command: Command, runs: tuple[Path, Path], options: tuple[str, ...], message: str
) -> None:
    outcome = command("compare", *runs, *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err


def test_runs_without_a_point_in_common(command: Command, tmp_path: Path) -> None:
    directories = [write(tmp_path / p.method, [latency(p)]) for p in (PLAIN, SE)]
    outcome = command("compare", *directories)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert command("compare", directories[0], tmp_path / "nowhere").code == 2
