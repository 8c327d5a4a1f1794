"""What a pass right after another network's costs more than one after its own.

python -m tests.benchmarks.warm_cache [DEVICE] [ROUNDS] [RESOLUTION]: eight networks in rounds of shuffled
order, each two passes in a row; the ratio of the first to the second, median over rounds and networks with
its 95 % interval. Where it is 1, the caches that another network left make no difference to a latency.
"""

import random
import sys

import torch

from tests.benchmarks.networks import RESOLUTION, builders
from wnexplore.measure.environment import device_name, resolve_device
from wnexplore.measure.rounds import warm_up
from wnexplore.measure.runtimes import make_pass
from wnexplore.measure.statistics import bootstrap_interval
from wnexplore.measure.stopwatch import sampler


def main() -> None:
    """Take the rounds and print the ratio of each network and of all."""
    device = resolve_device(sys.argv[1] if len(sys.argv) > 1 else "auto")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    size = int(sys.argv[3]) if len(sys.argv) > 3 else RESOLUTION
    images = torch.randn(1, 3, size, size, device=device)
    samplers = {}
    for name, build in builders().items():
        work = make_pass(build().to(device), images, "inference", "eager")
        samplers[name] = sampler(work.run, device)
        warm_up(samplers[name], 1.0)
    ratios: dict[str, list[float]] = {name: [] for name in samplers}
    order = list(samplers)
    dice = random.Random(0)
    for _ in range(rounds):
        dice.shuffle(order)
        for name in order:
            first, second = samplers[name](), samplers[name]()
            ratios[name].append(first / second)
    print(f"first pass / second pass on {device_name(device)}, torch {torch.__version__}, {rounds} rounds")
    together = [ratio for of_round in zip(*ratios.values(), strict=True) for ratio in of_round]
    for name, samples in {**ratios, "all": together}.items():
        median, low, high = bootstrap_interval(samples)
        print(f"{name:16} {median:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
