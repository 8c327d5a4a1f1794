"""Do CPU latencies repeat between processes? python -m tests.benchmarks.allocator [--processes 10] ...

Each of several processes counts the page faults of a pass, as soon as the networks have run, and times the
networks in rounds (`measure_latencies`), with the allocator of memory as it is and settled in turn. Prints,
for each network and state, the median latency over the processes and its spread: the largest less the
smallest, over the median.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from functools import partial
from statistics import median
from typing import Any

import torch

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.measure.allocator import settle
from wnexplore.measure.environment import device_name
from wnexplore.measure.failure import Failure
from wnexplore.measure.latency import measure_latencies
from wnexplore.models import build

STATES = ("as_is", "settled")
BASELINE = "plain"
NETWORKS = (BASELINE, "weightnet 2,2")
PASSES = 6
"""Passes whose page faults are counted."""


def timed(state: str, requested: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Latency, ratio and page faults a pass of each network in this process."""
    points = (
        DesignPoint.of(requested.backbone),
        DesignPoint.of(requested.backbone, "weightnet", 2, 2),
    )
    made = {name: partial(build, point) for name, point in zip(NETWORKS, points, strict=True)}
    if state == "settled":
        settle()
    images = torch.randn(requested.batch_size, 3, requested.resolution, requested.resolution)
    found = {name: {"faults": _faults(make().eval(), images)} for name, make in made.items()}
    protocol = LatencyProtocol(
        device="cpu",
        device_name=device_name("cpu"),
        dtype="float32",
        batch_size=requested.batch_size,
        target=1e-6,
        seconds=requested.seconds,
        allocator=state,
    )
    for name, latency in measure_latencies(made, BASELINE, made[BASELINE], protocol, requested.resolution):
        if isinstance(latency, Failure):
            sys.exit(f"{name}: {latency.error}")
        found[name] |= {"ms": latency.median.median, "ratio": latency.ratio.median}
    return found


def _faults(network: torch.nn.Module, images: torch.Tensor) -> float:
    """Page faults of a pass, after some that don't count."""
    with torch.inference_mode():
        for _ in range(PASSES):
            network(images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(PASSES):
            network(images)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / PASSES


def main() -> None:
    """Run the processes in turn and print how far their figures spread."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--processes", type=int, default=10, help="of each state")
    options.add_argument("--backbone", default="shufflenet_v2_x0_5")
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--resolution", type=int, default=224)
    options.add_argument("--seconds", type=float, default=3.0, help="for each network of a process")
    options.add_argument("--state", choices=STATES, help="time in this process, and print JSON")
    requested = options.parse_args()
    if requested.state is not None:
        print(json.dumps(timed(requested.state, requested)))
        return
    found: dict[str, list[dict[str, dict[str, float]]]] = {state: [] for state in STATES}
    for _ in range(requested.processes):
        for state in STATES:
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.allocator", *sys.argv[1:], "--state", state],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[state].append(json.loads(done.stdout))
    print(
        f"{requested.backbone}, {device_name('cpu')}, {torch.get_num_threads()} threads, torch"
        f" {torch.__version__}, batch {requested.batch_size}, {requested.resolution} px,"
        f" {requested.processes} processes"
    )
    for network in NETWORKS:
        for state in STATES:
            print(f"{network:16} {state:8} {_line([times[network] for times in found[state]])}")


def _line(runs: list[dict[str, float]]) -> str:
    words = []
    for figure, unit in (("ms", " ms"), ("ratio", "")):
        values = [run[figure] for run in runs]
        middle: Any = median(values)
        words.append(f"{figure} {middle:.3f}{unit}, spread {(max(values) - min(values)) / middle:.1%}")
    faults = [run["faults"] for run in runs]
    return "; ".join([*words, f"{min(faults):.0f} to {max(faults):.0f} page faults a pass"])


if __name__ == "__main__":
    main()
