"""Reports what a run's seeds tell about differences to plain, in runs with a target."""

from __future__ import annotations

from collections.abc import Iterable

from wnexplore.results.columns import COLUMNS, difference
from wnexplore.results.record import Record
from wnexplore.results.seeds import Verdict, verdicts
from wnexplore.results.sequences import MOST_SEEDS

_ENDED = {"max_seeds": "max_seeds", "hours": "the budget of hours", "failed": "failed trainings", None: ""}


def seed_lines(records: Iterable[Record]) -> list[str]:
    """Lines on a run's differences in the score to plain: those known, those small, and the seeds that the
    rest needs; nothing for a run without a target.
    """
    found = verdicts(records)
    if not found:
        return []
    apart = [verdict for verdict in found if verdict.ended_by == "difference"]
    small = [verdict for verdict in found if verdict.ended_by == "target" and verdict.smaller]
    known = [verdict for verdict in found if verdict.ended_by == "target" and not verdict.smaller]
    lines = [
        *_line(f"certainly not plain's {COLUMNS[found[0].variant.score].heading}", apart),
        *_line("known to be smaller than the target", small),
        *_line("known to the target", known),
    ]
    for verdict in found:
        if verdict.ended_by in ("difference", "target"):
            continue
        why = _ENDED[verdict.ended_by]
        head = f"not known after {verdict.seeds} seeds"
        head += f", ended by {why}" if why else ""
        lines.append(f"{head}: {_named(verdict)}{_more(verdict)}")
    return lines


def _line(head: str, members: list[Verdict]) -> list[str]:
    named = (f"{_named(v)}, {v.seeds} seeds, target {v.until.target:g}" for v in members)
    return [f"{head}: {'; '.join(named)}"] if members else []


def _named(verdict: Verdict) -> str:
    if verdict.mean is None:
        return str(verdict.point)
    low, high = verdict.interval or (None, None)
    return f"{verdict.point} {difference(verdict.mean, low, high, COLUMNS[f'{verdict.variant.score}_diff'])}"


def _more(verdict: Verdict) -> str:
    if verdict.more == 0:
        return ""
    if verdict.seeds + verdict.more >= MOST_SEEDS:
        return f"; more than {MOST_SEEDS:,} seeds would be needed"
    seeds = "1 seed" if verdict.more == 1 else f"{verdict.more} seeds"
    return f"; about {seeds} more, by the present variance"
