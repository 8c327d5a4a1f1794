"""What one pass calls: python -m tests.benchmarks.calls [--backbone NAME] [-M M] [-G G] [--mode MODE] ...

The operators that are called in a forward pass or a training step on a CPU, of the plain network and of
WeightNet (M, G), by name: calls, and milliseconds in them under torch.profiler, which itself takes some.
Products of matrices are told apart by how many there are in a call: one, of an image's kernel, or many, of
all filters (which make kernels and send their gradients back), of channels or of several images. Then the
latency ratio of the two (`measure_latencies`, without a profiler) and the floor that the calls set: the
ratio if each call beyond the plain network's took as long as the multiplication of one number, and Python
between them nothing.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.speed import PLAIN, Variant, network
from wnexplore.design.axes import STEMS
from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.measure.environment import device_name
from wnexplore.measure.failure import Failure
from wnexplore.measure.latency import measure_latencies
from wnexplore.measure.runtimes import make_pass
from wnexplore.models.deploy import deploy

PASSES = {"inference": 20, "train": 4}
"""Under the profiler, after as many without it."""
CALLS = 10**6
"""Of the operator that tells what a call takes."""


def main() -> None:
    """Print both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backbone", default="shufflenet_v2_x0_5")
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("-M", type=int, default=1)
    options.add_argument("-G", type=int, default=1)
    options.add_argument("--stem", choices=STEMS, default="imagenet")
    options.add_argument("--resolution", type=int, help="in pixels; by default what the stem is made for")
    options.add_argument("--baseline", choices=("deployed", "trained"), default="deployed")
    options.add_argument("--mode", choices=list(PASSES), default="inference")
    options.add_argument("--passes", type=int, help="under the profiler; 20, or 4 of training")
    options.add_argument("--seconds", type=float, default=10.0, help="for each network, of the latency ratio")
    args = options.parse_args()
    args.resolution = args.resolution or STEMS[args.stem]
    deployed = args.baseline == "deployed" and args.mode == "inference"
    plain, ours = Variant(PLAIN), Variant("auto", args.M, args.G)
    calls, times = {}, {}
    passes = args.passes or PASSES[args.mode]
    for variant in (plain, ours):
        images = torch.randn(args.batch_size, 3, args.resolution, args.resolution)
        made = network(args.backbone, variant, args.stem)
        if deployed:
            deploy(made, images[:1])
        calls[variant], times[variant] = profiled(made, images, args.mode, passes)
    print(
        f"{args.backbone}, ({args.M}, {args.G}), {args.mode}, {'deployed' if deployed else 'as trained'},"
        f" batch {args.batch_size}, {args.resolution} px, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}"
    )
    print(f"{'':22} {'calls':>13} {'ms':>17}")
    print(f"{'':22} {'plain':>6} {'ours':>6} {'plain':>8} {'ours':>8}")
    for name in sorted(calls[ours] | calls[plain], key=lambda name: -times[ours][name]):
        print(
            f"{name:22} {calls[plain][name]:6} {calls[ours][name]:6}"
            f" {times[plain][name]:8.3f} {times[ours][name]:8.3f}"
        )
    totals = [sum(counts[variant].values()) for counts in (calls, times) for variant in (plain, ours)]
    print(f"{'all':22} {totals[0]:6} {totals[1]:6} {totals[2]:8.3f} {totals[3]:8.3f}")
    protocol = LatencyProtocol(
        device="cpu",
        device_name=device_name("cpu"),
        dtype="float32",
        batch_size=args.batch_size,
        mode=args.mode,
        baseline="deployed" if deployed else "trained",
        seconds=args.seconds,
    )
    builds = {variant: partial(network, args.backbone, variant, args.stem) for variant in (plain, ours)}
    found = dict(measure_latencies(builds, plain, builds[plain], protocol, args.resolution))
    of_plain, of_ours, call = found[plain], found[ours], call_ms()
    assert not isinstance(of_plain, Failure)
    assert not isinstance(of_ours, Failure)
    extra, ms, ratio = totals[1] - totals[0], of_plain.median.median, of_ours.ratio
    print(f"plain {ms:.2f} ms; ours / plain {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
    print(f"a call {call * 1000:.2f} us; floor of {extra} calls more: {1 + extra * call / ms:.3f}")


def profiled(model: nn.Module, images: Tensor, mode: str, passes: int) -> tuple[Counter[str], Counter[str]]:
    """Calls of a pass by operator, and the milliseconds in them."""
    run = make_pass(model, images, mode, "eager").run
    for _ in range(passes):
        run()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        for _ in range(passes):
            run()
    calls: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in seen.events() or ():
        # What an operator calls itself is part of its time.
        if event.name.startswith("aten::") and not _in_operator(event):
            calls[_label(event)] += 1
            times[_label(event)] += event.cpu_time_total / 1000
    return (
        Counter({name: count // passes for name, count in calls.items()}),
        Counter({name: ms / passes for name, ms in times.items()}),
    )


def _in_operator(event: Any) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name.startswith("aten::") or _in_operator(parent))


def _label(event: Any) -> str:
    name: str = event.name.removeprefix("aten::")
    if "bmm" not in name:
        return name
    (matrices, *_), *_ = (shape for shape in event.input_shapes if len(shape) == 3)
    return f"{name}, {'one' if matrices == 1 else 'many'}"


def call_ms() -> float:
    """Of the multiplication of one number, called from Python: the mean of many, as of a pass's calls."""
    number = torch.ones(1)
    with torch.inference_mode():
        begun = time.perf_counter()
        for _ in range(CALLS):
            torch.mul(number, number)
        return (time.perf_counter() - begun) * 1000 / CALLS


if __name__ == "__main__":
    main()
