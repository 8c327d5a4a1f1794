"""Records as a sweep would leave them, for the tests of this folder."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.point import DesignPoint
from wnexplore.results.record import Record
from wnexplore.results.store import FILE_NAME, Store

BATCH_SIZES = (1, 16)
SEEDS = (0, 1, 2)
SMALL = {"stem": "small", "num_classes": 10}
LATENCY: dict[str, Any] = {
    "device": "cpu",
    "device_name": "AMD EPYC 7B13",
    "dtype": "float32",
    "batch_size": 1,
    "runtime": "eager",
    "memory_format": "contiguous",
    "threads": 2,
    "cache": "warm",
    "mode": "inference",
    "target": 0.03,
    "seconds": 5.0,
}
TRAINING: dict[str, Any] = {
    "dataset": "digits",
    "epochs": 5,
    "seed": 0,
    "lr": 0.1,
    "batch_size": 64,
    "device": "cuda",
}


def points(backbone: str = "shufflenet_v2_x0_5") -> list[DesignPoint]:
    """Plain, se, condconv and the legal ones of a grid over M and G."""
    found = [DesignPoint.of(backbone, method, **SMALL) for method in ("plain", "se", "condconv")]  # type: ignore[arg-type]
    for M in (1, 2, 4, 8):
        for G in (1, 2, 4):
            point = DesignPoint.of(backbone, "weightnet", M, G, **SMALL)  # type: ignore[arg-type]
            try:
                check_legal(point)
            except IllegalPointError:
                continue
            found.append(point)
    return found


def complexity(point: DesignPoint, params: int = 350_001, flops: int = 40_700_003) -> Record:
    """A count."""
    return Record(
        "complexity", point, {}, value={"params": params, "flops": flops, "fvcore_flops": flops + 7}
    )


def latency(point: DesignPoint, ms: float = 5.25, *, warnings: Sequence[str] = (), **protocol: Any) -> Record:
    """A timing whose interval is 1 % below and 2 % above it, with warnings of these kinds."""
    value: dict[str, Any] = {"latency_ms": ms, "latency_ms_low": 0.99 * ms, "latency_ms_high": 1.02 * ms}
    value |= {"latency_ratio": ms / 4, "latency_ratio_low": ms / 4.1, "latency_ratio_high": ms / 3.9}
    rest = {"peak_memory_mb": 12.25 + 3 * ms, "compile_s": None, "energy_j": None, "rounds": 120}
    message = [{"kind": kind, "text": f"all about {kind}"} for kind in warnings]
    value |= rest | {"stopped_by": "target", "warnings": message}
    return Record("latency", point, LATENCY | protocol, value=value)


def training(point: DesignPoint, top1: float = 91.25, **protocol: Any) -> Record:
    """A training of one seed."""
    return Record("training", point, TRAINING | protocol, value={"top1": top1, "seconds": 12.5})


def failure(
    figure: Any, point: DesignPoint, status: Any = "failed", error: str = "boom", **keys: Any
) -> Record:
    """A measurement that gave no figure."""
    protocol = {"complexity": {}, "latency": LATENCY, "training": TRAINING}[figure]
    return Record(figure, point, protocol | keys, status=status, error=error)


def sweep(backbone: str = "shufflenet_v2_x0_5") -> list[Record]:
    """All figures of `points`, one timing out of memory and one point that failed to build."""
    return list(_sweep(backbone))


def _sweep(backbone: str) -> Iterator[Record]:
    noise = random.Random(7)
    size = float(backbone.rpartition("x")[2].replace("_", ".")) if "shuffle" in backbone else 3.0
    for point in points(backbone):
        M = point.M if isinstance(point.M, Fraction) else Fraction(0)
        G = point.G if isinstance(point.G, Fraction) else Fraction(1)
        share = float(M / G) if point.M else {"plain": 1.0, "se": 1.0, "condconv": 4.0}[point.method]
        params = int(size * 700_000 * (0.35 + 0.65 * share) + 40_000 * float(M))
        flops = int(size**1.6 * 120_000_000 + 0.6 * params + 900_000 * float(M))
        yield complexity(point, params, flops)
        for batch in BATCH_SIZES:
            if point.M == 8 and point.G == 1 and batch == 16:
                error = "CUDA out of memory: tried to allocate 2.00 GiB"
                yield failure("latency", point, "out_of_memory", error, batch_size=batch)
                continue
            ms = (3 + 2.2 * size) * batch**0.8 * (1 + 0.12 * share + 0.05 * float(G) * (point.M is not None))
            yield latency(point, ms * noise.uniform(0.97, 1.03), batch_size=batch)
        for seed in SEEDS:
            gain = {"plain": 0.0, "se": 1.2, "condconv": 1.6}.get(point.method, 1 + 0.9 * float(M) ** 0.5)
            yield training(point, 84 + 3 * size + gain + noise.gauss(0, 0.35), seed=seed)
    broken = DesignPoint.of(backbone, "weightnet", 64, 1, **SMALL)  # type: ignore[arg-type]
    yield failure("complexity", broken, error="RuntimeError: [enforce fail] not enough | memory_for_weights")


RUNGS = (1, 3, 9)
HALVING: dict[str, Any] = {"schedule": "halving", "min_epochs": 1, "max_epochs": 9, "eta": 3}


def trained(
    point: DesignPoint, top1: Sequence[float], *, dropped_at: int | None = None, **protocol: Any
) -> Record:
    """A training of one seed that was planned for 9 epochs and tested after 1, 3 and 9, or as far as it went.

    `top1` has what each test found.
    """
    tested = [float(epoch) for epoch in RUNGS[: len(top1)]]
    epochs = int(tested[-1])
    losses = [1.9 * epoch**-0.35 - top1[-1] / 200 for epoch in range(1, epochs + 1)]
    return Record(
        "training",
        point,
        TRAINING | {"epochs": RUNGS[-1]} | protocol,
        value={"top1": top1[-1], "seconds": 2.5, "epochs": epochs, "dropped_at": dropped_at},
        samples={"loss": losses, "tested_epochs": tested, "tested_top1": list(top1)},
    )


def curves(seeds: int = 5) -> list[Record]:
    """`points`, each trained in full with these many seeds and tested after 1, 3 and 9 epochs."""
    noise = random.Random(11)
    luck = [noise.gauss(0, 0.6) for _ in range(seeds)]
    found = []
    for point in points():
        gain = {"plain": 0.0, "se": 0.3, "condconv": 1.4}.get(point.method, 1.0)
        gain += 0.8 * float(point.M if isinstance(point.M, Fraction) else 0) ** 0.5
        for seed in range(seeds):
            values = [
                top + gain + luck[seed] + noise.gauss(0, spread)
                for top, spread in ((52, 2), (74, 1), (86, 0.4))
            ]
            record = trained(point, values, seed=seed)
            losses = [loss + noise.gauss(0, 0.015) for loss in record.samples["loss"]]
            found.append(replace(record, samples={**record.samples, "loss": losses}))
    return found


def halved(records: Sequence[Record]) -> list[Record]:
    """What halving by 3 would have left of `curves`, as its records would be."""
    left = list(dict.fromkeys(record.point for record in records))
    found = []
    for rung, epochs in enumerate(RUNGS):
        remaining = [record for record in records if record.point in left]
        mean = {p: fmean(r.samples["tested_top1"][rung] for r in remaining if r.point == p) for p in left}
        kept = sorted(left, key=lambda point: -mean[point])[: max(1, len(left) // 3)]
        for record in remaining:
            last = rung == len(RUNGS) - 1
            if record.point not in kept or last:
                at = None if last else epochs
                top1 = record.samples["tested_top1"][: rung + 1]
                cut = trained(record.point, top1, dropped_at=at, seed=record.protocol["seed"], **HALVING)
                losses = record.samples["loss"][:epochs]
                found.append(replace(cut, samples={**cut.samples, "loss": losses}))
        left = kept
    return found


def filled(folder: Path, records: Sequence[Record]) -> Path:
    """`folder`, made a run directory that holds `records`."""
    with Store.create(folder) as store:
        for record in records:
            store.append(record)
    return folder


def alter(folder: Path, statement: str, *values: object) -> None:
    """Change rows of the store in `folder` by SQL."""
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        assert connection.execute(statement, values).rowcount > 0


def change_tables(folder: Path, script: str) -> None:
    """Change the tables of the store in `folder` by a script of SQL."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.executescript(script)
        connection.commit()
