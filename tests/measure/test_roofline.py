import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

import pytest

from wnexplore.files import cache_folder
from wnexplore.measure.roofline import copy_rate, device_peaks, measure_peaks, warm_up_s
from wnexplore.results.network_profile import Peaks


@pytest.mark.parametrize(
    ("multiply_adds", "moved", "least_ms"),
    [(1e9, 1e6, 100.0), (1e6, 1e9, 200.0), (0, 5e9, 1000.0), (0, 0, 0)],
)
def test_the_roofline_is_the_slower_of_memory_and_arithmetic(
    multiply_adds: float, moved: float, least_ms: float
) -> None:
    peaks = Peaks(bytes_per_s=5e9, multiply_adds_per_s=1e10)
    assert peaks.least_ms(multiply_adds, moved) == pytest.approx(least_ms)
    assert peaks.ridge == 2.0


def test_copies_run_as_long_as_they_are_reported_before_they_count() -> None:
    begun = perf_counter()
    assert copy_rate("cpu", 0.2, 2**18) > 1e6
    assert perf_counter() - begun >= 0.2
    assert (warm_up_s("cpu"), warm_up_s("cuda")) == (0.0, 0.2)


small_peaks = partial(measure_peaks, copied=2**18, long_ms=0.0)
"""Peaks of small work: what they are kept for doesn't depend on it."""


def peaks_of(dtype: str, threads: int, folder: Path) -> Peaks:
    return device_peaks("cpu", dtype, threads, folder, small_peaks)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_device_moves_and_computes(dtype: str) -> None:
    peaks = small_peaks("cpu", dtype)
    # Any machine of this century, and none.
    assert 1e7 < peaks.bytes_per_s < 1e14
    assert 1e6 < peaks.multiply_adds_per_s < 1e15


def test_peaks_are_kept_for_dtype_and_threads(tmp_path: Path) -> None:
    first = peaks_of("float32", 1, tmp_path)
    assert peaks_of("float32", 1, tmp_path) == first
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["of"]["threads"] == 1
    assert kept["peaks"]["bytes_per_s"] == first.bytes_per_s
    peaks_of("bfloat16", 1, tmp_path)
    peaks_of("float32", 2, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "harm",
    ["", "{", "[]", '{"of": {}, "peaks": {}}', '{"peaks": {"bytes_per_s": 1, "multiply_adds_per_s": 2}}'],
)
def test_what_can_not_be_read_is_measured_again(tmp_path: Path, harm: str) -> None:
    peaks_of("float32", 1, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(harm)
    peaks = peaks_of("float32", 1, tmp_path)
    assert peaks.bytes_per_s > 100
    assert json.loads(file.read_text())["peaks"]["bytes_per_s"] == peaks.bytes_per_s


def test_another_version_of_torch_is_measured_again(tmp_path: Path) -> None:
    peaks_of("float32", 1, tmp_path)
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    kept["of"]["torch"] = "1.0"
    kept["peaks"]["bytes_per_s"] = 1.0
    file.write_text(json.dumps(kept))
    assert peaks_of("float32", 1, tmp_path).bytes_per_s > 1


def test_a_folder_that_can_not_be_written_is_only_a_lost_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert peaks_of("float32", 1, tmp_path / "file" / "folder").bytes_per_s > 0


@pytest.mark.slow
def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    code = (
        "from functools import partial\n"
        "from wnexplore.measure.roofline import device_peaks, measure_peaks\n"
        "small = partial(measure_peaks, copied=2**18, long_ms=0.0)\n"
        "print(device_peaks('cpu', 'float32', 1, measure=small))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    message = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert message[0].stdout == message[1].stdout
    assert len(list((tmp_path / "wnexplore").iterdir())) == 1


@pytest.mark.parametrize("given", ["", "relative"])
def test_without_a_configured_cache_folder_it_is_in_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert cache_folder() == tmp_path / ".cache" / "wnexplore"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "wnexplore"
