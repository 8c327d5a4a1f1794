"""Run directories with made-up latencies that add up over the stages of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.results.record import Record
from wnexplore.results.store import Store
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.space.stage_features import StageFeatures, stage_features

PLAIN_MS = 8.0
PROTOCOL = LatencyProtocol(
    device="cpu",
    device_name="a processor",
    threads=2,
    wait_policy="adaptive",
    batch_size=1,
    dtype="float32",
    runtime="eager",
    memory_format="contiguous",
    cache="warm",
    mode="inference",
)

Terms = Callable[[StageFeatures], float]


def usual_terms(design: StageFeatures) -> float:
    """What a stage adds to the ratio: overhead of its layers, and the cheaper of two ways to make kernels."""
    weights, _, replaced, further, over_image = design.costs
    own = (hash((design.stage, len(str(design.function)))) % 7) / 400
    return 0.08 * replaced + 0.04 * further + min(0.03 * weights, 0.01 + 0.2 * over_image) + own


def true_ratio(point: DesignPoint, terms: Terms = usual_terms) -> float:
    """1 and what each stage adds."""
    skeleton = skeleton_of(point)
    designs = (stage_features(skeleton, stage, stage_design(point, stage)) for stage in skeleton.stages)
    return 1 + sum(terms(design) for design in designs if design.method != "plain")


def latency(point: DesignPoint, ratio: float, error: float, protocol: LatencyProtocol = PROTOCOL) -> Record:
    """A record of a latency of `ratio` times `PLAIN_MS`, with an interval for a standard error."""
    value: dict[str, Any] = {"rounds": 20, "stopped_by": "target", "warnings": []}
    half = 1.96 * error
    for name, middle, scale in (("latency_ms", PLAIN_MS * ratio, PLAIN_MS), ("latency_ratio", ratio, 1.0)):
        value |= {name: middle, f"{name}_low": middle - half * scale, f"{name}_high": middle + half * scale}
    return Record("latency", point, protocol, value=value)


def write_run(
    directory: Path,
    points: Iterable[DesignPoint],
    *,
    noise: float = 0.005,
    protocol: LatencyProtocol = PROTOCOL,
    terms: Terms = usual_terms,
) -> list[Record]:
    """A run directory with latencies of `points` and of their plain networks; their records."""
    dice = np.random.default_rng(0)
    points = list(points)
    plains = dict.fromkeys(point.baseline() for point in points)
    made = [latency(plain, 1.0, 0.0, protocol) for plain in plains]
    for point in points:
        ratio = true_ratio(point, terms)
        made.append(latency(point, ratio * (1 + noise * dice.normal()), ratio * noise, protocol))
    with Store.create(directory) as store:
        for record in made:
            store.append(record)
    return made
