from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from wnexplore.report.formulation_table import crossover_words, problems, render

SHAPE = {
    "in_channels": 64,
    "out_channels": 128,
    "kernel_size": (3, 3),
    "stride": (2, 2),
    "padding": (1, 1),
    "dilation": (1, 1),
    "groups": 1,
    "generator_groups": 256,
    "inputs_per_group": 2,
}


def _spread(name: str, value: float | None) -> dict[str, float | None]:
    low, high = (None, None) if value is None else (value * 0.99, value * 1.01)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _entry(ratio: float, difference: float | None = 1e-7, agrees: bool = True) -> dict[str, Any]:
    figures = {**_spread("latency_ms", 2 * ratio), **_spread("latency_ratio", ratio)}
    ended = {"rounds": 20, "stopped_by": "target"}
    return {"status": "ok", "error": None, **figures, **ended, "difference": difference, "agrees": agrees}


def _benchmark(batch_size: int, fastest: str, regret: float, **formulations: Any) -> dict[str, Any]:
    message = {"batch_size": batch_size, **_spread("plain_ms", 2.0), "picked": "kernel", "fastest": fastest}
    return {**message, **_spread("regret", regret), "formulations": formulations}


NO_ROOM = {"status": "out_of_memory", "error": "OutOfMemoryError: no room"}


def _result(*benchmarks: dict[str, Any], crossover: list[tuple[int, str]]) -> dict[str, Any]:
    layer = {"name": "layer2.0.conv1", "count": 3, "height": 56, "width": 56, "shape": SHAPE}
    worst = {"layer": "layer2.0.conv1", "batch_size": 16, "picked": "kernel", "fastest": "shared"}
    protocol = {"device_name": "AMD EPYC", "dtype": "float32", "mode": "train", "memory_format": "contiguous"}
    axes = {"backbone": "resnet18", "method": "weightnet", "M": 4, "G": 2, "stages": None, "experts": None}
    return {
        **axes,
        "stem": "imagenet",
        "resolution": 224,
        "num_classes": 1000,
        "protocol": {**protocol, "threads": 2},
        "layers": [{**layer, "races": list(benchmarks), "crossover": crossover}],
        "regret": {"geometric_mean": 1.118, "worst": {**worst, **_spread("regret", 1.25)}},
    }


TWO = _result(
    _benchmark(1, "kernel", 1.0, published=_entry(3.0), kernel=_entry(1.1), shared=_entry(1.7)),
    _benchmark(16, "shared", 1.25, published=NO_ROOM, kernel=_entry(1.5), shared=_entry(1.2)),
    crossover=[(1, "kernel"), (16, "shared")],
)


def _printed(result: dict[str, Any], *, styled: bool = False) -> list[str]:
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


def test_crossover_regret_and_problems_are_told_below() -> None:
    lines = _printed(TWO)
    assert any(line.rstrip().endswith("kernel up to 1, shared from 16") for line in lines)
    assert "regret of auto: geometric mean 1.118" in lines
    assert any(
        "1.25 ± 0.01 in layer2.0.conv1, batch 16: kernel picked, shared the f" in line for line in lines
    )
    message = "✗ layer2.0.conv1, batch 16: published out of memory: OutOfMemoryError: no room"
    assert lines[-1] == message
    assert problems(TWO) == [message]


def test_a_disagreement_is_told() -> None:
    wrong = _entry(1.0, difference=0.25, agrees=False), _entry(1.0, difference=None, agrees=False)
    result = _result(
        _benchmark(1, "published", 1.0, published=_entry(1), kernel=wrong[0], shared=wrong[1]), crossover=[]
    )
    by, no_number = problems(result)
    assert "batch 1: kernel disagrees: its output differs by 2.5e-01 of the largest" in by
    assert "batch 1: shared disagrees: its output is no number" in no_number
    assert by in _printed(result)


def test_where_nothing_was_timed_the_cells_are_empty() -> None:
    benchmark = {**_benchmark(1, "", 1.0, kernel=NO_ROOM), "picked": None, "fastest": None}
    benchmark |= {**_spread("plain_ms", None), **_spread("regret", None)}
    result = {**_result(benchmark, crossover=[]), "regret": {"geometric_mean": None, "worst": None}}
    lines = _printed(result)
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
