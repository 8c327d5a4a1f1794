"""The answer of a run in a page: which point to take, the runner-up, and how sure that is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from wnexplore.errors import InputError
from wnexplore.report.layout import TableLayout
from wnexplore.report.pick_table import pick_layout, why
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, TRAINING_PROTOCOL
from wnexplore.results.frame import distinct, groups
from wnexplore.results.pick import pick


def answer(frame: pd.DataFrame) -> dict[str, Any]:
    """The point with the best top-1, ties within the intervals going to the faster one, then the smaller one.

    Of several data sets, lengths of training or devices that which most rows have is taken, and said. Where
    nothing was trained there is no accuracy for which costs could be traded: it says so.
    """
    if frame["top1"].isna().all():
        return {"none": _untrained(frame)}
    rows, said = frame[frame["top1"].notna()].reset_index(drop=True), []
    for keys in (TRAINING_PROTOCOL, LATENCY_PROTOCOL):
        rows, line = _of_one(rows, keys)
        said += [line] if line else []
    prefer = [name for name in ("latency_ratio", "params") if rows[name].notna().any()]
    try:
        found = pick(rows, "top1", prefer=prefer)
    except InputError as error:
        return {"none": str(error)}
    shown = table_dict(pick_layout(found))
    return {
        "why": why(found),
        "among": said,
        "alike": len(found.steps[0].alike) - 1,
        "of": len(found.steps[0].candidates),
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


def _of_one(rows: pd.DataFrame, keys: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    """The rows of the protocol that most have, and a line on what was chosen if there are several."""
    varying = [key for key in keys if len(distinct(rows, key)) > 1]
    if not varying:
        return rows, ""
    protocols = {
        held: places
        for held, places in groups(rows, varying).items()
        if any(value is not None for value in held)
    }
    taken = max(protocols, key=lambda held: len(protocols[held]))
    line = ", ".join(
        COLUMNS[k].say(value) for k, value in zip(varying, taken, strict=True) if value is not None
    )
    return rows.iloc[protocols[taken]].reset_index(drop=True), f"at {line}; others are in the table"


def _untrained(frame: pd.DataFrame) -> str:
    measured = "latency" if frame["latency_ms"].notna().any() else "counts"
    return (
        f"Nothing was trained in this run, so it has no accuracy to trade its {measured} for: no point is the"
        " one to take. Add a training to the sweep, or choose by a budget below."
    )
