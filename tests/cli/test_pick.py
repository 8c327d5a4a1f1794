"""wnexplore pick on a run directory whose figures are known."""

import json
import re
from pathlib import Path

import pytest
import torch

import wnexplore
from tests.cli.conftest import Command
from tests.results.records import complexity, latency, points, training
from wnexplore.design.point import DesignPoint
from wnexplore.results.store import Store

PLAIN, SE, _, WEIGHTNET = points()[:4]
STAGED = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", 2, "1/48", stages="4", stem="small", reduction=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """STAGED is best, WEIGHTNET can't be told from it and is faster, plain is far off."""
    directory = tmp_path_factory.mktemp("pick") / "run"
    figures = ((PLAIN, 85.0, 3.0), (SE, 88.0, 4.0), (WEIGHTNET, 90.9, 4.0), (STAGED, 91.0, 5.0))
    with Store.create(directory) as store:
        for number, (point, top1, ms) in enumerate(figures):
            store.append(complexity(point, 300_000 + number))
            for batch in (1, 16):
                store.append(latency(point, ms * batch, batch_size=batch))
            for seed in range(3):
                store.append(training(point, top1 + (seed - 1) / 10, seed=seed))
    return directory


@pytest.mark.parametrize(
    ("options", "point"),
    [
        ((), STAGED),
        (("--where", "batch_size == 1", "--prefer", "latency_ms"), WEIGHTNET),
        (("--where", "params < 300001"), PLAIN),
        (("--where", "M != 2"), WEIGHTNET),
    ],
)
def test_the_last_line_builds_the_network_to_take(
    command: Command, run: Path, options: tuple[str, ...], point: DesignPoint
) -> None:
    outcome = command("pick", run, "--objective", "top1", *options)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == str(point)
    assert [line.split()[0] for line in lines if line.startswith(("take", "runner-up"))][:1] == ["take"]
    torch.manual_seed(0)
    built = eval(lines[-1], {"wnexplore": wnexplore}).eval()
    torch.manual_seed(0)
    expected = wnexplore.build(point).eval()
    assert str(built) == str(expected)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(built(images), expected(images))


def test_one_json_object_and_nothing_else(command: Command, run: Path) -> None:
    outcome = command("pick", run, "--objective", "latency_ms", "--where", "batch_size==16", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = json.loads(outcome.out)
    assert (told["take"]["method"], told["take"]["latency_ms"]) == ("plain", 48.0)
    assert (told["rows"], told["satisfy"], told["points"]) == (8, 4, 4)
    assert told["runner_up"]["latency_ms_low"] == 0.99 * 64
    assert told["protocol"]["batch_size"] == 16
    assert told["python"] == 'wnexplore.build("shufflenet_v2_x0_5", stem="small", num_classes=10)'
    assert re.search(r"\b4 points\b.* batch_size==16\b.* 48\.0 ± 1\.0 ms", told["why"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "'--objective'"),
        (("--objective", "latency_ms"), '--where "batch_size == 1"'),
        (("--objective", "topp1"), "'top1'"),
        (("--objective", "top1", "--prefer", "params,,flops"), "column ''"),
        (("--objective", "top1", "--where", "params<1"), "'params<1'"),
        (("--objective", "top1", "--where", "params<"), "character 8"),
    ],
)
def test_bad_input_is_one_line(command: Command, run: Path, options: tuple[str, ...], message: str) -> None:
    outcome = command("pick", run, *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err
