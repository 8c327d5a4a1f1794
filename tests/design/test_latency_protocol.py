"""The protocols of a spec, and their form in a record."""

from __future__ import annotations

import json

import pytest

from wnexplore.design.latency_protocol import LatencyProtocol, TimingDevice, latency_protocols
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.results.record import record_key

CPU = TimingDevice("cpu", "a CPU", threads=4, wait_policy="adaptive", settles=True)
WRITTEN = (
    '{"device": "cpu", "device_name": "a CPU", "dtype": "float32", "batch_size": 1, "runtime": "eager",'
    ' "memory_format": "contiguous", "threads": 4, "cache": "warm", "mode": "inference",'
    ' "wait_policy": "adaptive", "target": 0.03, "seconds": 5.0}'
)
"""As records of before have it."""
KEY = "9f101642ffaa8cb175e9add189d3329b27f474aec4579d709763de5dc3d14c62"
"""Of such a record of the plain resnet18."""


def test_a_protocol_is_written_as_ever_and_its_record_has_the_same_key() -> None:
    spec = LatencySpec(baseline=("trained",), allocator=("as_is",))
    (protocol,) = latency_protocols(spec, CPU)
    before = json.loads(WRITTEN)
    assert json.dumps({name: value for name, value in protocol.items() if name in before}) == WRITTEN
    point = DesignPoint.of("resnet18")
    # The SHA-256 of the record of before.
    assert record_key("latency", point, protocol) == KEY
    assert record_key("latency", point, before) == KEY


@pytest.mark.parametrize("given", [{}, {"baseline": ("trained",)}, {"allocator": ("as_is",)}])
def test_what_earlier_versions_did_not_do_is_another_measurement(given: dict[str, tuple[str, ...]]) -> None:
    (protocol,) = latency_protocols(LatencySpec(**given), CPU)
    assert record_key("latency", DesignPoint.of("resnet18"), protocol) != KEY


def test_a_protocol_equals_its_written_form() -> None:
    (protocol,) = latency_protocols(LatencySpec(), CPU)
    written = json.loads(json.dumps(dict(protocol)))
    assert protocol == written
    assert protocol != written | {"batch_size": 2}
    again = LatencyProtocol(**written)
    assert (again, hash(again)) == (protocol, hash(protocol))


def test_only_networks_of_a_file_have_a_source() -> None:
    plain = LatencyProtocol(device="cpu", device_name="", dtype="float32", batch_size=1)
    assert "source" not in plain
    with pytest.raises(KeyError):
        plain["source"]
    external = LatencyProtocol(**plain, source="abc")
    assert (list(external)[-1], external["source"], len(external)) == ("source", "abc", len(plain) + 1)


def test_axes_are_crossed_and_what_is_written_twice_is_taken_once() -> None:
    spec = LatencySpec(batch_sizes=(1, 8, 1), dtypes=("float32", "bfloat16"), threads=(2, 1), target=0.5)
    protocols = list(latency_protocols(spec, CPU))
    assert [(p.dtype, p.batch_size, p.threads) for p in protocols] == [
        (dtype, size, threads) for dtype in ("float32", "bfloat16") for size in (1, 8) for threads in (2, 1)
    ]
    assert {p.target for p in protocols} == {0.5}


def test_a_gpu_has_no_threads_and_another_target() -> None:
    (protocol,) = latency_protocols(LatencySpec(threads=(3,)), TimingDevice("cuda", "H100"))
    assert (protocol.threads, protocol.wait_policy, protocol.target) == (None, None, 0.01)
    assert protocol.allocator is None


def test_a_training_step_is_that_of_networks_as_they_are_trained() -> None:
    spec = LatencySpec(modes=("inference", "train"), baseline=("deployed", "trained"))
    found = [(protocol.mode, protocol.baseline) for protocol in latency_protocols(spec, CPU)]
    assert found == [("inference", "deployed"), ("inference", "trained"), ("train", "trained")]


def test_one_baseline_needs_no_list() -> None:
    assert LatencySpec(baseline="trained", allocator="as_is") == LatencySpec(
        baseline=["trained"], allocator=["as_is"]
    )


def test_allocators_are_timed_as_they_are_before_they_are_settled() -> None:
    """Settling lasts as long as the process."""
    spec = LatencySpec(allocator=("settled", "as_is"))
    assert [protocol.allocator for protocol in latency_protocols(spec, CPU)] == ["as_is", "settled"]
    other = TimingDevice("cpu", "a CPU of another system", threads=4)
    assert [protocol.allocator for protocol in latency_protocols(spec, other)] == ["as_is"]
