from __future__ import annotations

import json
import math
import re

import pytest
from rich.console import Console

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.report.formulation_table import crossover_words, problems, render
from wnexplore.results.formulation_timings import (
    BenchmarkedLayer,
    ConvNumbers,
    FailedFormulation,
    LayerBenchmark,
    NetworkBenchmark,
    TimedFormulation,
)
from wnexplore.results.intervals import MedianInterval

SHAPE = ConvNumbers(64, 128, (3, 3), (2, 2), (1, 1), (1, 1), 1, 256, 2)
POINT = DesignPoint.of("resnet18", "weightnet", 4, 2)
NO_ROOM = FailedFormulation("out_of_memory", "OutOfMemoryError: no room")


def _spread(value: float) -> MedianInterval:
    return MedianInterval(value, value * 0.99, value * 1.01)


def _entry(ratio: float, difference: float = 1e-7, agrees: bool = True) -> TimedFormulation:
    return TimedFormulation(_spread(2 * ratio), _spread(ratio), 20, "target", difference, agrees)


def _benchmark(
    batch_size: int, fastest: str, regret: float, **found: TimedFormulation | FailedFormulation
) -> LayerBenchmark:
    return LayerBenchmark(batch_size, _spread(2.0), found, "kernel", fastest, _spread(regret))


def _result(*benchmarks: LayerBenchmark) -> NetworkBenchmark:
    protocol = LatencyProtocol(
        device="cpu", device_name="AMD EPYC", dtype="float32", batch_size=1, mode="train", threads=2
    )
    layer = BenchmarkedLayer("layer2.0.conv1", 3, 56, 56, SHAPE, benchmarks)
    return NetworkBenchmark(POINT, protocol, (layer,), {})


TWO = _result(
    _benchmark(1, "kernel", 1.0, published=_entry(3.0), kernel=_entry(1.1), shared=_entry(1.7)),
    _benchmark(16, "shared", 1.25, published=NO_ROOM, kernel=_entry(1.5), shared=_entry(1.2)),
)


def _printed(result: NetworkBenchmark, *, styled: bool = False) -> list[str]:
    console = Console(width=200, force_terminal=styled, color_system="standard" if styled else None)
    with console.capture() as printed:
        for part in render(result):
            console.print(part)
    return printed.get().splitlines()


def test_a_row_is_a_layer_at_a_batch_size() -> None:
    title, heading, first, second, *rest = _printed(TWO)
    assert title == "resnet18 · weightnet · M = 4 · G = 2 · imagenet stem · 224 px · 1000 classes"
    assert heading.split() == [
        *("layer", "×", "shape", "batch", "plain", "ms", "published", "kernel", "shared", "regret")
    ]
    assert first.split()[:5] == ["layer2.0.conv1", "3", "64→128", "3×3", "/2"]
    assert "g1, 56×56" in first
    assert "→ 1.10 ± 0.01" in first
    assert second.split()[0] == "16", "the layer is named once"
    assert "out of memory" in second
    assert any("AMD EPYC · float32 · train mode · contiguous · 2 threads" in line for line in rest)


def test_the_fastest_is_bold() -> None:
    _, _, first, second, *_ = _printed(TWO, styled=True)
    assert "\x1b[1m→ 1.10 ± 0.01\x1b[0m" in first
    assert "\x1b[1m1.20 ± 0.01\x1b[0m" in second
    assert "\x1b[1m→" not in second


def test_crossover_regret_and_problems_are_message_below() -> None:
    lines = _printed(TWO)
    assert any(line.rstrip().endswith("kernel up to 1, shared from 16") for line in lines)
    assert any(re.search(r"\bregret\b.*\b1\.118$", line) for line in lines)
    assert any(
        re.search(r"1\.25 ± 0\.01\b.*layer2\.0\.conv1, batch 16: kernel\b.*shared\b", line) for line in lines
    )
    assert re.fullmatch(r"✗ layer2\.0\.conv1, batch 16: published\b.*OutOfMemoryError: no room", lines[-1])
    assert problems(TWO) == [lines[-1]]


def test_a_disagreement_is_message() -> None:
    wrong = _entry(1.0, difference=0.25, agrees=False), _entry(1.0, difference=math.nan, agrees=False)
    result = _result(_benchmark(1, "published", 1.0, published=_entry(1), kernel=wrong[0], shared=wrong[1]))
    by, no_number = problems(result)
    assert re.search(r"batch 1: kernel\b.*\b2\.5e-01\b", by)
    assert "batch 1: shared " in no_number
    assert by in _printed(result)


def test_where_nothing_was_timed_the_cells_are_empty() -> None:
    lines = _printed(_result(LayerBenchmark(1, None, {"kernel": NO_ROOM}, None, None, None)))
    assert lines[2].split()[-4:] == ["1", "out", "of", "memory"]
    assert not any("geometric" in line for line in lines)


@pytest.mark.parametrize(
    ("crossover", "message"),
    [
        ([], ""),
        ([(1, "kernel")], "kernel throughout"),
        ([(1, "kernel"), (16, "shared")], "kernel up to 4, shared from 16"),
        ([(1, "a"), (4, "b"), (16, "c")], "a up to 1, b at 4, c from 16"),
        ([(1, "a"), (4, "b"), (64, "c")], "a up to 1, b from 4 to 16, c from 64"),
    ],
)
def test_a_crossover_in_words(crossover: list[tuple[int, str]], message: str) -> None:
    assert crossover_words(crossover, [1, 4, 16, 64]) == message


def test_json_has_every_figure_with_its_interval() -> None:
    content = json.loads(json.dumps(TWO.to_dict(), allow_nan=False))
    assert list(content)[-4:] == ["protocol", "layers", "regret", "environment"]
    assert (content["backbone"], content["M"], "batch_size" in content["protocol"]) == ("resnet18", 4, False)
    (layer,) = content["layers"]
    assert list(layer) == ["name", "count", "height", "width", "shape", "races", "crossover"]
    assert (layer["shape"]["kernel_size"], layer["crossover"]) == ([3, 3], [[1, "kernel"], [16, "shared"]])
    published = layer["races"][1]["formulations"]["published"]
    assert published == {"status": "out_of_memory", "error": "OutOfMemoryError: no room"}
    figures = ("latency_ms", "latency_ratio")
    assert list(layer["races"][0]["formulations"]["kernel"]) == [
        *("status", "error", *(f"{name}{end}" for name in figures for end in ("", "_low", "_high"))),
        *("rounds", "stopped_by", "difference", "agrees"),
    ]
    assert content["regret"] == {
        "geometric_mean": pytest.approx(1.25**0.5),
        "worst": {
            "layer": "layer2.0.conv1",
            "batch_size": 16,
            "picked": "kernel",
            "fastest": "shared",
            "regret": 1.25,
            "regret_low": 1.25 * 0.99,
            "regret_high": 1.25 * 1.01,
        },
    }
