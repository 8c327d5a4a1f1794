"""How fast points are counted: python -m tests.benchmarks.counting [--rounds 3] [--latency RUN]

In rounds, on one thread: the shipped space of a million points in closed form (walk from the disk, every
point's parameters and FLOPs), and single points of it, of less than 10 M parameters, built and traced by
fvcore, by torch's FlopCounterMode and, if it is installed, by ptflops. Prints points a second, the median of
the rounds, and our rate over each. All count the same points; where a tool's figure is another one, it says
so. The peak memory is that of a process of its own that counts the space.

With --latency it times instead how `wnexplore space` predicts all of them from the latencies of a run, such
as `wnexplore calibrate` makes, selects and writes a front, and prints the peak memory of that process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from wnexplore.design.point import DesignPoint
from wnexplore.design.shipped import find_sweep
from wnexplore.design.sweep_file import load_sweep
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models import build
from wnexplore.nn import formulation_set
from wnexplore.space.expansion import space_of
from wnexplore.space.grid import Space

SWEEP = "shufflenet_per_stage"
TRACED = 3
"""Points that each tracing tool counts in a round."""
LARGEST = 10_000_000
"""Parameters that these have at most: the largest of the space have a hundred times as many."""


def count_all() -> Space:
    """The whole space, counted."""
    space = space_of(load_sweep(find_sweep(SWEEP)))
    assert len(space.params) == len(space.flops) == len(space.legal)
    return space


def by_fvcore(point: DesignPoint) -> tuple[int, int]:
    """Parameters and multiply-adds as `wnexplore profile` measures them."""
    counted = measure_complexity(build(point), point.resolution)
    return counted.params, counted.flops


def by_torch(point: DesignPoint) -> tuple[int, int]:
    """On meta tensors, so that nothing is computed."""
    with torch.device("meta"):
        model = build(point).eval()
        images = torch.empty(1, 3, point.resolution, point.resolution)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), formulation_set(model, "published"), counter:
        model(images)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def by_ptflops(point: DesignPoint) -> tuple[int, int]:
    """By its pytorch backend, which hooks modules and functions."""
    from ptflops import get_model_complexity_info

    model = build(point).eval()
    with formulation_set(model, "published"), contextlib.redirect_stdout(io.StringIO()):
        flops, params = get_model_complexity_info(
            model,
            (3, point.resolution, point.resolution),
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
        )
    return int(params), int(flops)


# In a process without torch, which this module imports.
_PREDICT = f"""
import re, runpy, sys, time
begun = time.perf_counter()
sys.argv = ["wnexplore", "space", "{SWEEP}", *sys.argv[1:]]
try:
    runpy.run_module("wnexplore", run_name="__main__")
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
    print(f"{{time.perf_counter() - begun:.1f}} s, {{int(peak) / 1000:.0f}} MB at most", file=sys.stderr)
"""


def predicted(run: Path) -> str:
    """What `wnexplore space` says at the end: how many points, in which time, with how much memory."""
    condition = "params < 3M and latency_ratio < 1.2"
    with TemporaryDirectory() as folder:
        front = Path(folder) / "front.csv"
        options = ["--latency", run, "--where", condition, "--pareto", "latency_ms,params", "--out", front]
        done = subprocess.run(
            [sys.executable, "-c", _PREDICT, *map(str, options)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        points = len(front.read_text().splitlines()) - 1
    return f"{done.stdout}{done.stderr.strip()}\n{points} points on the front"


def _peak_mib() -> float:
    """The most memory that this process has held, as Linux tells it; getrusage has the parent's too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=Path, metavar="RUN", help="predict with the latencies of RUN")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    requested = parser.parse_args()
    if requested.latency is not None:
        print(predicted(requested.latency))
        return
    if requested.memory:
        before = _peak_mib()
        count_all()
        print(f"{_peak_mib():.0f} MiB, of which {before:.0f} were there before, torch for the most part")
        return
    torch.set_num_threads(1)
    tools: dict[str, Callable[[DesignPoint], tuple[int, int]]] = {"fvcore": by_fvcore, "torch": by_torch}
    try:
        import ptflops  # noqa: F401

        tools["ptflops"] = by_ptflops
    except ImportError:
        print("ptflops is not installed: left out")
    space = count_all()
    small = np.flatnonzero(space.legal & (space.params < LARGEST)).tolist()
    drawn = random.Random(0).sample(small, requested.rounds * TRACED)
    seconds: dict[str, list[float]] = {name: [] for name in ("closed form", *tools)}
    differs: dict[str, str] = {}
    for number in range(requested.rounds):
        start = perf_counter()
        space = count_all()
        seconds["closed form"].append((perf_counter() - start) / len(space))
        chosen = drawn[number * TRACED : (number + 1) * TRACED]
        for name, tool in tools.items():
            start = perf_counter()
            found = [tool(space.point(index)) for index in chosen]
            seconds[name].append((perf_counter() - start) / TRACED)
            ours = [(int(space.params[index]), int(space.flops[index])) for index in chosen]
            if found != ours:
                differs[name] = f"counts {found[0]} where we count {ours[0]}"
    closed = median(seconds["closed form"])
    print(f"{len(space):,} points, {int(space.legal.sum()):,} legal; one thread, torch {torch.__version__}")
    for name, elapsed in seconds.items():
        rate = 1 / median(elapsed)
        note = differs.get(name, "" if name == "closed form" else "same counts")
        print(f"{name:12} {rate:14,.1f} points/s   ours x{median(elapsed) / closed:,.0f}   {note}")
    memory = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.counting", "--memory"],
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"peak memory of a process that counts the space: {memory.stdout.strip()}")


if __name__ == "__main__":
    main()
