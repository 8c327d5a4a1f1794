"""Reports successive halving: its rungs, its cost, and the rank correlation of early and final accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from wnexplore.design.point import DesignPoint
from wnexplore.results.columns import COLUMNS, direction
from wnexplore.results.rank_correlation import tau_b
from wnexplore.results.record import Record
from wnexplore.results.trainings import TrainingGroup, differing, rungs_of, trainings

_MIN_POINTS = 3
"""Fewest variants: with two, the ranks agree or they don't."""


@dataclass(frozen=True)
class Rung:
    """One rung of halving, after `epochs`: the variants that entered, and those dropped, best first."""

    epochs: int
    entered: int
    dropped: tuple[tuple[DesignPoint, float], ...]
    """Variants with the mean of the figure that halving ranks by: top-1 or AP in percent, or test loss."""


@dataclass(frozen=True)
class RankCorrelation:
    """The rank correlation between the figures after two numbers of epochs."""

    epochs: int
    later: int
    variants: int
    """Number of variants with both."""
    tau: float
    """Kendall's tau-b between the means of both (of what halving ranks by); NaN if all values of one
    are equal."""


def rungs(trained: Sequence[TrainingGroup]) -> list[Rung]:
    """The rungs of halving in the trainings of one protocol, without the last epoch."""
    found = []
    left = [training for training in trained if training.succeeded]
    dropped_at = {training.dropped_at for training in left if training.dropped_at is not None}
    for epochs in sorted({*rungs_of(trained[0].settings)[:-1], *dropped_at}):
        dropped = _best_first(training for training in left if training.dropped_at == epochs)
        found.append(Rung(epochs, len(left), dropped))
        left = [training for training in left if training.dropped_at != epochs]
    return found


def spent(trained: Sequence[TrainingGroup]) -> tuple[int, int]:
    """Epochs trained, and epochs of training everything in full, over all successful seeds."""
    counts = [
        (training.epochs or 0, training.settings.get("epochs") or 0, len(training.succeeded))
        for training in trained
    ]
    return sum(epochs * seeds for epochs, _, seeds in counts), sum(full * seeds for _, full, seeds in counts)


def rank_correlations(trained: Sequence[TrainingGroup]) -> list[RankCorrelation]:
    """The rank correlation of each tested epoch with the last one, over variants with both.

    The last epoch is the last one after which at least 3 variants were tested.
    """
    means = [training.tested_means for training in trained]
    tested = sorted({epoch for by_epoch in means for epoch in by_epoch})
    known = [epoch for epoch in tested if sum(epoch in by_epoch for by_epoch in means) >= _MIN_POINTS]
    found = []
    for epoch in known[:-1]:
        pairs = [
            (by_epoch[epoch], by_epoch[known[-1]])
            for by_epoch in means
            if epoch in by_epoch and known[-1] in by_epoch
        ]
        if len(pairs) >= _MIN_POINTS:
            early, late = zip(*pairs, strict=True)
            found.append(RankCorrelation(epoch, known[-1], len(pairs), tau_b(early, late)))
    return found


def lines(records: Iterable[Record]) -> list[str]:
    """Lines on a run's halving and rank correlations; nothing about trainings tested only once.

    For halving one line per rung and its cost; for trainings tested more than once the rank correlation of
    early and final accuracy.
    """
    families: dict[str, list[TrainingGroup]] = {}
    for one in trainings(records):
        families.setdefault(one.family, []).append(one)
    heads = differing([family[0].common for family in families.values()])
    return [
        f"{head}: {line}" if head else line
        for head, members in zip(heads, families.values(), strict=True)
        for line in _lines(members)
    ]


def _lines(trained: Sequence[TrainingGroup]) -> list[str]:
    planned, found = _epochs(trained[0].settings.get("epochs")), rungs(trained)
    names = _names(trained) if found else {}
    ranked_by = trained[0].ranked_by
    by = "" if ranked_by == "top1" else f" by {COLUMNS[ranked_by].heading}"
    lines_ = []
    for rung in found:
        dropped = f"{len(rung.dropped)} dropped"
        dropped += f": {_list(rung.dropped, names, ranked_by)}" if rung.dropped else ""
        lines_.append(f"halving{by} after {rung.epochs} of {planned}: {_variants(rung.entered)}, {dropped}")
    if lines_:
        full = [training for training in trained if training.succeeded and training.dropped_at is None]
        lines_.append(
            f"halving: {_variants(len(full))} trained in full: {_list(_best_first(full), names, ranked_by)}"
        )
        lines_.append(_cost(trained))
    variants = len({training.point for training in trained})
    for correlation in rank_correlations(trained):
        early = f"rank after {correlation.epochs} of {planned}"
        final = correlation.later == trained[0].settings.get("epochs")
        later = "the final rank" if final else f"the rank after {correlation.later}"
        among = _variants(variants)
        among = among if correlation.variants == variants else f"{correlation.variants} of {among}"
        lines_.append(
            f"{early} and {later}: no rank correlation, all of one rank ({among})"
            if math.isnan(correlation.tau)
            else f"{early} and {later}: rank correlation (Kendall's tau-b) {correlation.tau:.2f} ({among})"
        )
    return lines_


def _cost(trained: Sequence[TrainingGroup]) -> str:
    took, full = spent(trained)
    failed = sum(len(training.records) - len(training.succeeded) for training in trained)
    line = f"halving trained {took} epochs where all variants in full take {full}"
    line += f": {100 * took / full:.1f} %" if full else ""
    return f"{line} (without {failed} failed trainings)" if failed else line


def _best_first(trained: Iterable[TrainingGroup]) -> tuple[tuple[DesignPoint, float], ...]:
    """Points with the mean of what they are ranked by, best first; a loss that isn't finite comes last."""
    found = [
        (
            training.point,
            fmean(training.learned(training.ranked_by).values() or [math.inf]),
            training.ranked_by,
        )
        for training in trained
    ]
    found.sort(key=lambda ranked: ranked[1] if direction(ranked[2]) == "smaller" else -ranked[1])
    return tuple((point, mean) for point, mean, _ in found)


def _list(pairs: Iterable[tuple[DesignPoint, float]], names: Mapping[DesignPoint, str], name: str) -> str:
    column = COLUMNS[name]
    return ", ".join(
        f"{names[point]} {f'{column.format(mean)} {column.unit}' if math.isfinite(mean) else 'not finite'}"
        for point, mean in pairs
    )


def _epochs(count: int | None) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _variants(count: int) -> str:
    return f"{count} variant{'' if count == 1 else 's'}"


def _names(trained: Sequence[TrainingGroup]) -> dict[DesignPoint, str]:
    """The name of each point, without the backbone if it is common."""
    points = [training.point for training in trained]
    one = len({point.backbone for point in points}) == 1
    return {point: str(point).removeprefix(f"{point.backbone} ") if one else str(point) for point in points}
