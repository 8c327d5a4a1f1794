"""Sweeps that are killed again and again: python -m tests.benchmarks.faults [--moments 30] [--on ray workers]

At random moments a process that does a task, a node's raylet or the command itself is killed, by turns; a
node joins for each that is lost, and the command is given again. The records must be those of the same sweep
in one process, each once: counts and trainings bit for bit, latencies of the same networks and protocols.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.study.cluster import Nodes
from tests.study.faults import (
    FULL,
    HALVING,
    Kill,
    broken,
    kill_driver,
    kill_ray_worker,
    kill_worker,
    told,
    unbroken,
)


def main() -> None:
    """Break what was asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--moments", type=int, default=30, help="in all, over the four sweeps")
    options.add_argument("--on", nargs="+", choices=("ray", "workers"), default=["ray", "workers"])
    options.add_argument("--seed", type=int, default=0)
    wanted = options.parse_args()
    runs = [(on, name, text) for on in wanted.on for name, text in (("full", FULL), ("halving", HALVING))]
    for number, (on, name, text) in enumerate(runs):
        moments = wanted.moments * (number + 1) // len(runs) - wanted.moments * number // len(runs)
        if on == "workers":
            kills: Sequence[Kill] = [kill_worker, kill_driver]
            _break(f"--workers 2, {name}", text, ("--workers", 2), kills, moments, wanted.seed)
            continue
        nodes = Nodes()
        try:
            kills = [kill_ray_worker, nodes.kill_one, kill_driver]
            _break(f"--ray, {name}", text, ("--ray", nodes.address), kills, moments, wanted.seed)
        finally:
            nodes.cluster.shutdown()


def _break(
    title: str, text: str, where: Sequence[object], kills: Sequence[Kill], moments: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, alone = unbroken(Path(folder) / "sweep", text)
        run, begun = Path(folder) / "run", time.monotonic()
        starts, _ = broken(("sweep", file, "--out", run, *where), kills, moments, seed)
        alike = told(run) == alone
        took = time.monotonic() - begun
    print(
        f"{title}: {moments} kills, the command was given {starts} times; {len(alone)} records, each once and"
        f" {'as' if alike else 'NOT as'} in one process; {took:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
