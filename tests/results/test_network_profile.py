"""A profile as JSON; what it looks like in a terminal is in tests/report."""

from __future__ import annotations

import json

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.results.network_profile import Complexity, LayerProfile, LayerTable, Peaks, Profile
from wnexplore.results.record import Record

POINT = DesignPoint.of("resnet18", "weightnet", 2, 1)
PROTOCOL = LatencyProtocol(device="cpu", device_name="a CPU", dtype="float32", batch_size=4, threads=2)
COUNTS = Complexity(5, 7, 8, {"conv": 7}, {"relu": 2}, {})
ROW = LayerProfile("conv1", "Conv2d", None, False, 5, 7, 1.5, 0.5, 12, 2.25, 0.125)
TABLE = LayerTable(PROTOCOL, Peaks(2e10, 8e10), (ROW,))


def test_json_has_axes_and_counts_on_top_and_an_entry_for_each_protocol() -> None:
    timed = Record("latency", POINT, PROTOCOL, value={"latency_ms": 1.5, "warnings": []})
    failed = Record("latency", POINT, PROTOCOL, status="out_of_memory", error="no room")
    profile = Profile(POINT, COUNTS, (timed, failed), None, {"cores": 2})
    content = json.loads(json.dumps(profile.to_dict(), allow_nan=False))
    counts = ["params", "flops", "fvcore_flops", "operators", "uncounted", "uncounted_products"]
    assert list(content) == [*POINT.to_dict(), *counts, "latency", "environment"]
    assert (content["M"], content["params"], content["operators"]) == (2, 5, {"conv": 7})
    first, second = content["latency"]
    assert first == {**PROTOCOL, "latency_ms": 1.5, "warnings": [], "status": "ok", "error": None}
    assert list(second) == [*PROTOCOL, "status", "error"]
    assert (second["status"], second["error"]) == ("out_of_memory", "no room")


def test_json_has_the_layers_and_how_they_were_timed_where_there_are_some() -> None:
    content = Profile(POINT, COUNTS, (), TABLE, {}).to_dict()
    assert list(content)[-4:] == ["latency", "layers_protocol", "layers", "environment"]
    assert content["layers_protocol"] == {
        "device": "cpu",
        "device_name": "a CPU",
        "dtype": "float32",
        "batch_size": 4,
        "memory_format": "contiguous",
        "threads": 2,
        "bytes_per_s": 2e10,
        "multiply_adds_per_s": 8e10,
    }
    (row,) = content["layers"]
    assert (row["name"], row["time_ms"], row["bytes"]) == ("conv1", 1.5, 12)
