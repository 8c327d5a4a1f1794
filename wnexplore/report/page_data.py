"""Everything that a page shows of its runs, as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wnexplore import __version__
from wnexplore.design.point import AXES
from wnexplore.errors import InputError
from wnexplore.report.compare_table import lonely_lines, versus_layout
from wnexplore.report.known_differences import seed_lines
from wnexplore.report.page_answer import answer, table_dict
from wnexplore.report.page_details import Details, SkeletonOf
from wnexplore.report.page_rows import column_dicts, looks, row_columns, row_marks, together, words
from wnexplore.report.rungs import lines as rung_lines
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL
from wnexplore.results.compare import software, versus
from wnexplore.results.frame import distinct, score_of, shared
from wnexplore.results.record import Record

_COMPARED = ("top1", "ap", "test_loss", "latency_ratio", "latency_ms", "params", "flops")
_VERSIONS = (
    "wnexplore",
    "commit",
    "torch",
    "torchvision",
    "cuda",
    "cudnn",
    "onnxruntime",
    "python",
    "platform",
)
_MAX_VALUES = 12

MOST_ROWS = 20_000
"""Most rows of a page: a browser draws and filters so many while one waits."""


@dataclass(frozen=True)
class PageRun:
    """A run directory, read."""

    name: str
    records: Sequence[Record]
    """With their samples."""
    rows: pd.DataFrame
    """Made from the records, perhaps with predicted rows after them."""
    dates: tuple[str, str] | None
    """When its first and its last record was made, in ISO 8601."""


def page_data(runs: Sequence[PageRun], *, most_rows: int = MOST_ROWS) -> dict[str, Any]:
    """What a page shows at once: rows, answers, facts, and of several runs the comparison with the first.

    Raises `InputError` for more than `most_rows` rows.
    """
    lengths = [len(run.rows) for run in runs]
    count = sum(lengths)
    if count > most_rows:
        raise InputError(
            f"a page shows at most {most_rows:,} rows, and here are {count:,}: choose by --where"
        )
    return {
        "version": __version__,
        "runs": [_run(run) for run in runs],
        "columns": column_dicts(),
        "score": score_of(pd.concat([run.rows[["top1", "ap"]] for run in runs])),
        "count": count,
        "run_of": [number for number, length in enumerate(lengths) for _ in range(length)],
        "rows": together([row_columns(run.rows) for run in runs], lengths),
        "marks": together([row_marks(run.rows, run.name) for run in runs], lengths),
        "axes": list(AXES),
        "looks": looks(),
        **words(),
        "comparisons": [part for other in runs[1:] for part in _comparisons(runs[0], other)],
    }


def page_details(runs: Sequence[PageRun], skeleton_of: SkeletonOf) -> dict[str, Any]:
    """What a page shows of one row, for all rows in the order of `page_data`."""
    found = Details()
    for run in runs:
        found.add(run.rows, run.records, skeleton_of)
    return found.to_dict()


def _run(run: PageRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "dates": run.dates,
        "facts": [[name, text] for name, text in _facts(run) if text],
        "versions": list(_versions(run)),
        "notes": [*seed_lines(run.records), *rung_lines(run.records), *_failed(run.records)],
        "answer": answer(run.rows),
    }


def _facts(run: PageRun) -> Iterator[tuple[str, str]]:
    rows = run.rows
    points = len(rows[list(AXES)].astype("string").drop_duplicates())
    yield "Points", f"{points:,} of {_listed(rows, 'backbone')}"
    for axis in AXES:
        if axis != "backbone" and len(distinct(rows, axis)) > 1:
            yield COLUMNS[axis].label, _listed(rows, axis)
    yield "All with", shared(rows, [axis for axis in AXES if axis != "backbone"], usual=True)
    timed = rows[rows["latency_ms"].notna()]
    for name in LATENCY_PROTOCOL:
        if len(distinct(timed, name)) > 1:
            yield COLUMNS[name].label, _listed(timed, name)
    yield "Timed on", shared(timed, LATENCY_PROTOCOL)
    trained = rows[rows[score_of(rows)].notna()]
    yield "Trained on", shared(trained, ("dataset", "epochs", "seeds"))
    for name in ("dataset", "epochs", "seeds"):
        if len(distinct(trained, name)) > 1:
            yield COLUMNS[name].label, _listed(trained, name)
    software = [f"{name} {text}" for name, text in _versions(run) if name in ("wnexplore", "torch")]
    yield "With", ", ".join(software)


def _versions(run: PageRun) -> Iterator[tuple[str, str]]:
    """The versions of the software that it was measured with."""
    environments = {id(record.environment): record.environment for record in run.records}
    for name in _VERSIONS:
        held = dict.fromkeys(str(e[name]) for e in environments.values() if e.get(name) is not None)
        if held:
            yield name, " and ".join(list(held)[:_MAX_VALUES])


def _listed(rows: pd.DataFrame, name: str) -> str:
    values = distinct(rows, name)
    try:
        values.sort()
    except TypeError:
        values.sort(key=str)
    texts = [COLUMNS[name].format(value) for value in values]
    more = f" and {len(texts) - _MAX_VALUES} more" if len(texts) > _MAX_VALUES else ""
    return ", ".join(texts[:_MAX_VALUES]) + more


def _failed(records: Sequence[Record]) -> Iterator[str]:
    failed = [record for record in records if record.status != "ok"]
    if failed:
        yield f"{len(failed)} of {len(records)} measurements failed: column error says why"


def _comparisons(first: PageRun, other: PageRun) -> Iterator[dict[str, Any]]:
    """`other` beside `first` in each figure that both have."""
    for name in _COMPARED:
        try:
            found = versus(first.rows, other.rows, name)
        except InputError:
            continue
        changed = software(first.records, other.records, name)
        layout = versus_layout(found, changed, (first.name, other.name))
        yield {"column": name, **table_dict(layout), "lonely": lonely_lines(found)}
