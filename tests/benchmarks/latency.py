"""How well ratios of latencies repeat on a loaded machine: python -m tests.benchmarks.latency.

Eight networks, three times, by three methods in turn, while another process loads one core half of
the time: torch.utils.benchmark's adaptive timer, a plain mean of 30 passes after 10 of warm-up, as
timm's benchmark script takes it, and measure_latencies.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median

import torch
from torch import nn
from torch.utils.benchmark import Timer

from tests.benchmarks.networks import BASELINE, POINTS, RESOLUTION, builders
from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.measure.environment import device_name, resolve_device
from wnexplore.measure.failure import Failure
from wnexplore.measure.latency import measure_latencies
from wnexplore.measure.torch_settings import precision_set

Times = dict[str, float]
"""Milliseconds by network."""

_LOAD = """
import random, time
dice = random.Random(0)
while True:
    end = time.perf_counter() + dice.uniform(0.1, 1.0)
    while time.perf_counter() < end:
        pass
    time.sleep(dice.uniform(0.1, 1.0))
"""


def adaptive(networks: dict[str, nn.Module], images: torch.Tensor) -> Times:
    """Medians by torch.utils.benchmark."""
    found = {}
    for name, network in networks.items():
        run = torch.inference_mode()(network.forward)
        timer = Timer(
            "run(images)", globals={"run": run, "images": images}, num_threads=torch.get_num_threads()
        )
        found[name] = timer.adaptive_autorange().median * 1e3
    return found


def mean_of_30(networks: dict[str, nn.Module], images: torch.Tensor) -> Times:
    """Means of 30 passes after 10 of warm-up, network after network."""
    found = {}
    for name, network in networks.items():
        with torch.inference_mode():
            for _ in range(10):
                network(images)
            begun = _now(images)
            for _ in range(30):
                network(images)
            found[name] = (_now(images) - begun) / 30 * 1e3
    return found


class Ours:
    """`measure_latencies`, and where its time went."""

    def __init__(self, protocol: LatencyProtocol, resolution: int, names: list[str]) -> None:
        self._protocol, self._resolution, self._names = protocol, resolution, names
        self.building_s = 0.0
        self.passes_s = 0.0
        self.wall_s = 0.0
        self.rounds: list[int] = []
        self.stopped_by: set[str] = set()

    def ratios(self) -> Times:
        """Ratios to the baseline."""
        networks = {name: self._watched(make) for name, make in builders(self._names).items()}
        begun = time.perf_counter()
        found = dict(
            measure_latencies(
                networks, BASELINE, self._watched(builders()[BASELINE]), self._protocol, self._resolution
            )
        )
        self.wall_s += time.perf_counter() - begun
        ratios = {}
        for name, latency in found.items():
            if isinstance(latency, Failure):
                sys.exit(f"{name}: {latency.error}")
            self.rounds.append(len(latency.samples_ms))
            self.stopped_by.add(latency.stopped_by)
            ratios[name] = latency.ratio.median
        return ratios

    @property
    def overhead(self) -> float:
        """Share of the wall time, building apart, that no forward pass took."""
        return 1 - self.passes_s / (self.wall_s - self.building_s)

    def _watched(self, make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        """`make`, timed, of a network whose passes are timed."""

        def build() -> nn.Module:
            begun = time.perf_counter()
            network = make()
            network.register_forward_pre_hook(lambda module, inputs: self._add(-_now(inputs[0])))
            network.register_forward_hook(lambda module, inputs, output: self._add(_now(inputs[0])))
            self.building_s += time.perf_counter() - begun
            return network

        return build

    def _add(self, seconds: float) -> None:
        self.passes_s += seconds


def spread(repeats: list[Times]) -> Times:
    """Largest less smallest of each network's repeats, over their median."""
    return {
        name: (max(samples) - min(samples)) / median(samples)
        for name in repeats[0]
        if name != BASELINE and (samples := [times[name] for times in repeats])
    }


@contextmanager
def load() -> Iterator[None]:
    """Another process that computes half of the time, 0.1 to 1 s at a stretch."""
    process = subprocess.Popen([sys.executable, "-c", _LOAD])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Run the three methods in turn and print how far each one's ratios spread."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="auto")
    options.add_argument("--networks", nargs="+", choices=POINTS, default=list(POINTS), help="plain first")
    options.add_argument("--resolution", type=int, default=RESOLUTION)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--target", type=float, help="of measure_latencies")
    options.add_argument("--seconds", type=float, default=30.0, help="of measure_latencies, for each network")
    options.add_argument("--quiet", action="store_true", help="no other process")
    requested = options.parse_args()
    device = resolve_device(requested.device)
    target = requested.target or {"cpu": 0.01, "cuda": 0.003}[device]
    protocol = LatencyProtocol(
        device=device,
        device_name=device_name(device),
        dtype="float32",
        batch_size=1,
        target=target,
        seconds=requested.seconds,
    )
    size = requested.resolution
    ours = Ours(protocol, size, requested.networks)
    images = torch.randn(1, 3, size, size, device=device)
    networks = {name: make().eval().to(device) for name, make in builders(requested.networks).items()}
    methods: dict[str, Callable[[], Times]] = {
        "adaptive": lambda: _to_baseline(adaptive(networks, images)),
        "mean of 30": lambda: _to_baseline(mean_of_30(networks, images)),
        "ours": ours.ratios,
    }
    repeats: dict[str, list[Times]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    with nullcontext() if requested.quiet else load(), precision_set("float32"):
        for _ in range(requested.repeats):
            for name, method in methods.items():
                begun = time.perf_counter()
                repeats[name].append(method())
                seconds[name] += time.perf_counter() - begun
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    print(f"{device_name(device)}{threads}, torch {torch.__version__}; target {target:.1%}")
    print(f"{'ratio to plain':16}" + "".join(f"{name:>22}" for name in methods))
    spreads = {name: spread(samples) for name, samples in repeats.items()}
    for network in spreads["ours"]:
        cells = (
            f"{median(times[network] for times in repeats[name]):.3f}, spread {spreads[name][network]:6.1%}"
            for name in methods
        )
        print(f"{network:16}" + "".join(f"{cell:>22}" for cell in cells))
    print(f"{'largest spread':16}" + "".join(f"{max(spreads[name].values()):>22.1%}" for name in methods))
    print(
        f"{'seconds a repeat':16}"
        + "".join(f"{seconds[name] / requested.repeats:>22.1f}" for name in methods)
    )
    print(
        f"ours: {min(ours.rounds)} to {max(ours.rounds)} rounds, ended by"
        f" {' and '.join(sorted(ours.stopped_by))};"
        f" {ours.overhead:.1%} of the time not in forward passes, building apart"
    )


def _to_baseline(times: Times) -> Times:
    return {name: taken / times[BASELINE] for name, taken in times.items()}


def _now(images: torch.Tensor) -> float:
    """Seconds, once the device has come to the end of its work."""
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
