"""The answer of a run in a page: which point to take, the runner-up, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from wnexplore.design.point import AXES
from wnexplore.errors import InputError
from wnexplore.report.layout import TableLayout
from wnexplore.report.marks import difference_line
from wnexplore.report.pick_table import pick_layout, why
from wnexplore.results.columns import COLUMNS, TRAINING_PROTOCOL
from wnexplore.results.frame import cells, distinct, groups, score_of
from wnexplore.results.pick import Candidate, pick


def answer(frame: pd.DataFrame) -> dict[str, Any]:
    """The point with the best top-1, or of detectors average precision, ties within the intervals going to
    the faster one, then the smaller one.

    Of several data sets or lengths of training that which most rows have is taken, and of several latency
    protocols that of most points, and both are said. "rows" has the rows of the point to take, of the
    runner-up and of the one with the best mean, "alike" how many others have an interval that overlaps the
    best one's, "unsure" how many of all "of" points have none. These are the intervals of single means;
    "difference" says what those of the differences to plain are. Where nothing was trained there is no
    accuracy for which costs could be traded: it says so.
    """
    score = score_of(frame)
    if frame[score].isna().all():
        return {"none": _untrained(frame)}
    rows, said = _of_one_training(frame[frame[score].notna()].reset_index(drop=True))
    prefer = [name for name in ("latency_ratio", "params") if rows[name].notna().any()]
    try:
        found = pick(rows, score, prefer=prefer)
    except InputError as error:
        return {"none": str(error)}
    if found.chosen_from:
        said.append(_taken({name: found.protocol.get(name) for name in found.chosen_from}))
    first = found.steps[0]
    shown = table_dict(pick_layout(found))
    named = {"take": found.take, "runner_up": found.runner_up, "best": first.best}
    return {
        "rows": {name: None if c is None else _row(frame, c, found.protocol) for name, c in named.items()},
        "protocol": dict(found.protocol),
        "decided_by": found.steps[-1].column.name,
        "why": why(found),
        "among": said,
        "difference": difference_line(rows),
        "alike": len(first.alike) - 1,
        "of": len(first.candidates),
        "unsure": sum(candidate.figures[score].interval is None for candidate in first.candidates),
        "python": found.line,
        "title": shown.pop("title"),
        "table": shown,
    }


def table_dict(layout: TableLayout) -> dict[str, Any]:
    """A table of texts, as JSON values."""
    return {
        "title": layout.title,
        "headings": list(layout.headings),
        "numeric": list(layout.numeric),
        "rows": [list(row) for row in layout.rows],
        "caption": list(layout.caption),
    }


def _of_one_training(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the training protocol that most have, and of several a line on which that is."""
    varying = [key for key in TRAINING_PROTOCOL if len(distinct(rows, key)) > 1]
    if not varying:
        return rows, []
    protocols = groups(rows, varying)
    taken = max(protocols, key=lambda held: len(protocols[held]))
    kept = rows.iloc[protocols[taken]].reset_index(drop=True)
    return kept, [_taken(dict(zip(varying, taken, strict=True)))]


def _taken(protocol: Mapping[str, Any]) -> str:
    said = ", ".join(COLUMNS[name].say(value) for name, value in protocol.items() if value is not None)
    return f"at {said}; others are in the table"


def _row(frame: pd.DataFrame, candidate: Candidate, protocol: Mapping[str, Any]) -> int:
    """The row of a point that agrees most with `protocol`."""
    points = groups(frame, AXES)
    places = points[tuple(getattr(candidate.point, axis) for axis in AXES)]
    columns = {name: cells(frame, name) for name in protocol}
    return max(places, key=lambda at: sum(columns[name][at] == value for name, value in protocol.items()))


def _untrained(frame: pd.DataFrame) -> str:
    measured = "latency" if frame["latency_ms"].notna().any() else "counts"
    return (
        f"Nothing was trained in this run, so it has no accuracy to trade its {measured} for: no point is the"
        " one to take. Add a training to the sweep, or choose by a budget below."
    )
