import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command

SMALL = (
    *("profile", "--backbone", "shufflenet_v2_x0_5", "--stem", "small", "--resolution", "16"),
    *("--num-classes", "10", "--device", "cpu", "--seconds", "0.001", "--threads", "1"),
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_every_axis_of_a_latency_is_an_entry(command: Command) -> None:
    requested = (
        "--memory-format",
        "contiguous,channels_last",
        "--mode",
        "inference,train",
        "--batch-size",
        "2",
    )
    done = command(*SMALL, *requested, "--json")
    assert done.code == 0, done.err
    entries = json.loads(done.out)["latency"]
    assert [(e["memory_format"], e["mode"]) for e in entries] == [
        (layout, mode) for layout in ("contiguous", "channels_last") for mode in ("inference", "train")
    ]
    for entry in entries:
        assert entry["peak_memory_mb"] > 1
        assert (entry["cache"], entry["runtime"], entry["compile_s"]) == ("warm", "eager", None)
        # Other tests may run beside this one.
        known = {"outliers", "drift", "slow_start", "wide_interval", "worthless", "busy_machine"}
        assert {warning["kind"] for warning in entry["warnings"]} <= known


def test_what_is_not_as_usual_is_a_column_of_the_table(command: Command) -> None:
    usual = command(*SMALL).out
    assert "mode" not in usual.split()
    assert "memory MB" in usual
    other = command(*SMALL, "--mode", "train", "--batch-size", "2").out
    assert "mode" in other
    assert "train" in other


@pytest.mark.slow
def test_layers_are_drawn_on_the_roofline(command: Command, tmp_path: Path) -> None:
    done = command(*SMALL, "--no-latency", "--roofline", tmp_path / "roofline.png")
    assert done.code == 0, done.err
    assert "multiply-adds/s" in done.out
    assert "conv5.0" in done.out
    with Image.open(tmp_path / "roofline.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 500
    assert len(list((tmp_path / "cache" / "wnexplore").iterdir())) == 1


@pytest.mark.parametrize("name", ["figure.jpg", "nowhere/figure.png"])
def test_a_picture_that_can_not_be_written_is_reported_before_anything_is_measured(
    command: Command, tmp_path: Path, name: str
) -> None:
    done = command(*SMALL, "--roofline", tmp_path / name)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert not (tmp_path / "cache").exists()
