"""How long a large run takes to show: python -m tests.benchmarks.store [--records 100000] [--only plot ...]

Makes a run directory of so many records: networks of four widths with M and G crossed per stage, each
counted, timed under four protocols and trained on two data sets with five seeds. Then shows it with each
command that reads a whole run, every time in a process of its own, and prints how long that took on the
clock, how much processor time it used (which other programs disturb less) and the most memory that it held.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wnexplore.design.point import DesignPoint
    from wnexplore.results.record import Record

SECONDS, MIB = 15, 1000
"""What each command may take."""

ONE = ("--where", "dataset == digits and batch_size == 1 and dtype == float32")
COMMANDS: dict[str, tuple[str, ...]] = {
    "table": ("table", "{run}"),
    "table, one protocol": ("table", "{run}", "--sort", "-top1", *ONE),
    "table, latency front": ("table", "{run}", "--pareto", "--objectives", "top1,latency_ms"),
    **{f"export, {name}": ("export", "{run}", "--format", name, "--out", "{out}/export") for name in
       ("csv", "json", "parquet", "markdown", "latex")},
    "plot, standard set": ("plot", "{run}", "--out", "{out}/plots"),
    "plot, one": ("plot", "{run}", "--x", "flops", "--y", "latency_ms", "--pareto", "--out", "{out}/one.svg"),
    "pick": ("pick", "{run}", "--objective", "top1", "--prefer", "latency_ms,params", *ONE),
    "compare": ("compare", "{run}", "{run}"),
}  # fmt: skip


def main() -> None:
    """Make the run, show it, print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--records", type=int, default=100_000)
    options.add_argument("--only", nargs="+", metavar="COMMAND", help="commands that begin so")
    options.add_argument("--keep", type=Path, metavar="DIR", help="make the run there, or show the one there")
    options.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    requested = options.parse_args()
    if requested.make is not None:
        make(requested.make, requested.records)
        return
    with tempfile.TemporaryDirectory() as folder:
        run = requested.keep or Path(folder) / "run"
        if not run.exists():
            # In another process: what this one holds would count as its children's memory.
            command = [sys.executable, "-m", "tests.benchmarks.store", "--records", str(requested.records)]
            subprocess.run([*command, "--make", str(run)], check=True)
        size = (run / "results.sqlite").stat().st_size / 2**20
        with closing(sqlite3.connect(run / "results.sqlite")) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM records").fetchall()
        print(f"{count:,} records, {size:.0f} MiB; {processor()}; Python {sys.version.split()[0]}")
        print(f"at most {SECONDS} s on the clock and {MIB} MiB are wanted of each")
        print(f"{'command':22} {'wall s':>7} {'processor s':>12} {'peak MiB':>9}")
        (Path(folder) / "plots").mkdir()
        for name, parts in COMMANDS.items():
            if requested.only and not name.startswith(tuple(requested.only)):
                continue
            wall, used, peak = cost([part.format(run=run, out=folder) for part in parts])
            mark = "" if wall < SECONDS and peak < MIB else "  too much"
            print(f"{name:22} {wall:7.1f} {used:12.1f} {peak:9.0f}{mark}", flush=True)


def cost(arguments: list[str]) -> tuple[float, float, float]:
    """Wall-clock and processor seconds and the peak memory in MiB of one command in a process of its own."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "wnexplore", *arguments], stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{shlex.join(arguments)} ended with {process.returncode}: {errors.read().decode()}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def processor() -> str:
    """The model of this machine's CPU, and how many of it there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'unknown CPU'}, {len(models)} cores"


def make(directory: Path, count: int) -> None:
    """A run directory of `count` records, written at once: one transaction each would take minutes."""
    from wnexplore.results.store import FILE_NAME, Store

    Store.create(directory).close()
    columns = ("key", "figure", "point", "protocol", "status", "value", "samples", "error")
    marks = ", ".join("?" * len(columns))
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection, connection:
        connection.execute("INSERT INTO environments VALUES (1, ?)", (json.dumps({"torch": "2.9.0"}),))
        connection.executemany(
            f"INSERT INTO records ({', '.join(columns)}, environment, made_at)"
            f" VALUES ({marks}, 1, '2026-01-01T00:00:00.000+00:00')",
            map(row, itertools.islice(records(), count)),
        )


def row(record: Record) -> tuple[str | None, ...]:
    """What the store's own writer makes of a record."""
    parts = (record.point.to_dict(), record.protocol, record.value, record.samples)
    point, protocol, value, samples = (json.dumps(part, sort_keys=True, allow_nan=False) for part in parts)
    return record.key, record.figure, point, protocol, record.status, value, samples, record.error


def records() -> Iterator[Record]:
    """Fifteen records a point, as long as there are points: 104,000 or so."""
    noise = random.Random(0)
    for point in points():
        size = float(point.backbone.rpartition("x")[2].replace("_", "."))
        stages = dict.fromkeys(str(point.M).split("+"))
        gain = 0.4 * len(stages) + noise.gauss(0, 0.4) + (point.method != "plain")
        yield from _records(point, size, gain, noise)


def points() -> Iterator[DesignPoint]:
    """Networks of four widths: plain ones first, then M and G crossed per stage, in random order."""
    from wnexplore.design.point import DesignPoint

    names = [f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")]
    for name in names:
        yield from (DesignPoint.of(name, method) for method in ("plain", "se"))
    pairs = [(M, G) for M in (1, 2, 4, 8, 16) for G in (1, 2, 4) if G <= M]
    variants = list(itertools.product(names, itertools.product(pairs, repeat=3)))
    random.Random(1).shuffle(variants)
    for name, stages in variants:
        M, G = ({stage: pair[i] for stage, pair in enumerate(stages, start=2)} for i in (0, 1))
        yield DesignPoint.of(name, "weightnet", M, G)


def _records(point: DesignPoint, size: float, gain: float, noise: random.Random) -> Iterator[Record]:
    from wnexplore.results.record import Record

    weights = int(1_400_000 * size * (1 + abs(gain) / 3)) + noise.randrange(1000)
    flops = int(41_000_000 * size**1.7) + weights
    counts = {"params": weights, "flops": flops, "fvcore_flops": flops + 7, "uncounted": {"mean": 18}}
    yield Record("complexity", point, {}, value={**counts, "uncounted_products": {}})
    for batch, dtype in itertools.product((1, 16), ("float32", "bfloat16")):
        protocol = {"device": "cuda", "device_name": "NVIDIA H100", "dtype": dtype, "batch_size": batch}
        protocol |= {"runtime": "eager", "memory_format": "contiguous", "threads": None, "cache": "warm"}
        protocol |= {"mode": "inference", "wait_policy": None, "target": 0.01, "seconds": 5.0}
        if noise.random() < 0.01:
            error = "CUDA out of memory: tried to allocate 2.00 GiB"
            yield Record("latency", point, protocol, status="out_of_memory", error=error)
            continue
        plain = [(2 + size) * batch**0.7 * noise.lognormvariate(0, 0.02) for _ in range(40)]
        ours = [ms * (1.1 + gain / 20) * noise.lognormvariate(0, 0.02) for ms in plain]
        ms, ratio = sorted(ours)[20], sorted(a / b for a, b in zip(ours, plain, strict=True))[20]
        value = {"latency_ms": ms, "latency_ms_low": 0.99 * ms, "latency_ms_high": 1.01 * ms}
        value |= {
            "latency_ratio": ratio,
            "latency_ratio_low": ratio * 0.99,
            "latency_ratio_high": ratio * 1.01,
        }
        value |= {"peak_memory_mb": 20 + 3.5 * ms, "compile_s": None, "energy_j": 0.01 * ms, "rounds": 40}
        warnings = [{"kind": "drift", "text": "the machine's speed changed"}] * (noise.random() < 0.05)
        value |= {"stopped_by": "target", "warnings": warnings}
        yield Record(
            "latency", point, protocol, value=value, samples={"latency_ms": ours, "baseline_ms": plain}
        )
    for dataset, epochs in (("digits", 5), ("shapes", 9)):
        for seed in range(5):
            recipe: dict[str, Any] = {
                "epochs": epochs,
                "steps": None,
                "lr": 0.05,
                "momentum": 0.9,
                "weight_decay": 1e-4,
            }
            recipe |= {"batch_size": 128, "optimizer": "sgd", "label_smoothing": 0.1, "precision": "float32"}
            protocol = {"dataset": dataset, "path": None, "device": "cuda", "threads": None, "seed": seed}
            top1 = min(100.0, 70 + 5 * size + gain + noise.gauss(0, 0.5) + (seed % 3) / 7)
            tested = [1.0, 3.0, float(epochs)]
            curve = {"loss": [2.3 * epoch**-0.4 + noise.gauss(0, 0.01) for epoch in range(1, epochs + 1)]}
            curve |= {"tested_epochs": tested, "tested_top1": [top1 * 0.6, top1 * 0.8, top1]}
            value = {"top1": top1, "seconds": 12.5, "epochs": epochs, "dropped_at": None, "skipped": 0}
            value |= {"damaged": [], "why_damaged": {}}
            yield Record("training", point, recipe | protocol, value=value, samples=curve)


if __name__ == "__main__":
    main()
