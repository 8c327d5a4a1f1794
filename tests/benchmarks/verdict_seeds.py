"""Seeds that top-1 and the test loss each need to tell variants from plain: ...verdict_seeds RUN [RUN ...]

For each variant of a run directory: the mean and the standard deviation of its paired differences to the
plain network, and the fewest seeds whose 95 % Student-t interval would not hold 0 if both were as found. What
few seeds found is itself uncertain: the medians over many variants say more than one row.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import NamedTuple

from scipy.special import stdtrit

from wnexplore.design.point import DesignPoint
from wnexplore.results.columns import LEARNED
from wnexplore.results.record import Record
from wnexplore.results.store import read_records
from wnexplore.results.trainings import trainings

MOST = 10_000
"""More seeds than anybody trains: given for variants that show no difference."""


class Needed(NamedTuple):
    """One figure of one variant."""

    mean: float
    deviation: float
    seeds: int


def main() -> None:
    """Print a table for each run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="+", type=Path)
    for run in options.parse_args().runs:
        print(run)
        for line in lines(read_records(run)):
            print(f"  {line}")


def lines(records: Sequence[Record]) -> Iterator[str]:
    """A line per variant, and the medians."""
    rows = list(needed(records))
    for point, count, figures in rows:
        parts = (
            f"{name} {f.mean:+.4g} (deviation {f.deviation:.3g}): {_seeds(f.seeds)}"
            for name, f in figures.items()
        )
        yield f"{point}, {count} seeds: {'; '.join(parts)}"
    for name in (column.name for column in LEARNED if rows):
        middle = round(median(figures[name].seeds for *_, figures in rows))
        yield f"median of {len(rows)} variants, {name}: {_seeds(middle)}"
    agree = sum((f["top1"].mean > 0) == (f["test_loss"].mean < 0) for *_, f in rows)
    fewer = sum(f["test_loss"].seeds < f["top1"].seeds for *_, f in rows)
    if rows:
        yield f"{agree} of {len(rows)} have one direction by both; {fewer} need fewer seeds by test loss"


def needed(records: Sequence[Record]) -> Iterator[tuple[DesignPoint, int, dict[str, Needed]]]:
    """Each variant with at least 2 seeds that it and its plain network have both figures of."""
    groups = trainings(records)
    plains = {(group.point, group.identity): group for group in groups}
    for group in groups:
        plain = plains.get((group.point.baseline(), group.identity))
        if plain is None or plain is group:
            continue
        figures = {}
        seeds = set.intersection(*(set(g.learned(c.name)) for g in (group, plain) for c in LEARNED))
        for name in (column.name for column in LEARNED if len(seeds) > 1):
            ours, theirs = group.learned(name), plain.learned(name)
            figures[name] = _needed([ours[seed] - theirs[seed] for seed in sorted(seeds)])
        if figures:
            yield group.point, len(seeds), figures


def _needed(differences: Sequence[float]) -> Needed:
    mean, deviation = fmean(differences), stdev(differences)
    seeds = 2
    while seeds < MOST and stdtrit(seeds - 1, 0.975) * deviation / math.sqrt(seeds) >= abs(mean):
        seeds += 1
    return Needed(mean, deviation, seeds)


def _seeds(count: int) -> str:
    return f"{count} seeds" if count < MOST else f"{MOST} seeds or more"


if __name__ == "__main__":
    main()
