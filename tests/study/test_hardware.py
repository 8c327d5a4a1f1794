"""Which of a cluster's nodes measure latencies."""

import pytest

from wnexplore.design.latency_protocol import TimingDevice, latency_protocols
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError
from wnexplore.results.record import Record
from wnexplore.study.dispatch import Node
from wnexplore.study.hardware import of_nodes
from wnexplore.study.sweep import plan
from wnexplore.study.tasks import TimingTask

EPYC, XEON = (
    TimingDevice("cpu", name, 8, "adaptive", settles=True) for name in ("AMD EPYC 7763", "Intel Xeon 8375C")
)
GPU = TimingDevice("cuda", "NVIDIA H100")
NODES = [
    Node("a", "a", 8, {"cpu": EPYC}),
    Node("b", "b", 8, {"cpu": EPYC}),
    Node("c", "c", 8, {"cpu": XEON, "cuda": GPU}),
]


def test_one_kind_measures_latencies_and_has_to_be_named_if_there_are_two() -> None:
    assert of_nodes(NODES[:2], None).timing("cpu") == EPYC
    assert of_nodes(NODES, None).timing("cuda") == GPU
    assert of_nodes(NODES, "xeon").timing("cpu") == XEON
    with pytest.raises(
        InputError, match=r"EPYC 7763, 8 threads \(2 nodes\); Intel .* \(1 node\): --latency-on"
    ):
        of_nodes(NODES, None).timing("cpu")
    # Passes of a small network on a GPU take as long as its host's processor takes to start them.
    hosts = [Node(n, n, 8, {"cpu": cpu, "cuda": GPU}) for n, cpu in (("a", EPYC), ("b", XEON))]
    with pytest.raises(InputError, match=r"NVIDIA H100 with AMD .*; NVIDIA H100 with Intel"):
        of_nodes(hosts, None).timing("cuda")
    for wanted, count in (("e", 2), ("M1", 0)):
        with pytest.raises(InputError, match=f"--latency-on {wanted} fits {count} kinds"):
            of_nodes(NODES, wanted).timing("cpu")


def test_a_device_is_there_if_a_node_has_it() -> None:
    assert of_nodes(NODES, None).resolve("auto") == "cuda"
    assert of_nodes(NODES[:2], None).resolve("auto") == "cpu"
    with pytest.raises(InputError, match="device 'cuda' isn't available: no node of the cluster has it"):
        of_nodes(NODES[:2], None).resolve("cuda")
    with pytest.raises(InputError, match="choose from"):
        of_nodes(NODES, None).resolve("tpu")


def test_a_plan_is_of_the_nodes_hardware_and_only_those_of_its_kind_time() -> None:
    spec = SweepSpec(backbones=["resnet18"], methods=["plain"], latency={"device": "cuda"}, train=None)
    (latency,) = (m for m in plan(spec, hardware=of_nodes(NODES, None)).measurements if m.figure == "latency")
    assert (latency.protocol["device"], latency.protocol["device_name"]) == ("cuda", "NVIDIA H100")
    task = TimingTask((Record("latency", latency.point, latency.protocol),))
    assert [node.can(task) for node in NODES] == [False, False, True]
    on_xeon = next(latency_protocols(LatencySpec(), XEON))
    task = TimingTask((Record("latency", DesignPoint.of("resnet18"), on_xeon),))
    assert [node.can(task) for node in NODES] == [False, False, True]
    assert not Node("d", "d", 4, {"cpu": XEON}).can(task)
