"""The picked point and its rivals, as a table and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wnexplore.design.point import AXES
from wnexplore.report.layout import PREDICTED, PREDICTED_LINE, TableLayout
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, Column, with_interval
from wnexplore.results.compare import Measured
from wnexplore.results.pick import SIZES, Candidate, Pick

_ALWAYS = ("method", "M", "G")
_MAX_ROWS = 8


def pick_layout(found: Pick) -> TableLayout:
    """`found` as a table: the picked point, the runner-up, and points indistinguishable from them."""
    rivals, shown = _rivals(found), _shown(found)
    points = [candidate.point for candidate in shown]
    axes = [axis for axis in AXES if _is_shown([getattr(point, axis) for point in points], axis)]
    figures = list(dict.fromkeys((*_requested(found), *SIZES)))
    word = _alike(found.objective, 1)
    marks = ["take", *["runner-up"] * (found.runner_up is not None), *[word] * len(rivals)]
    columns = [
        ("", False, marks[: len(shown)]),
        *(
            (COLUMNS[axis].heading, COLUMNS[axis].numeric, [_axis(point, axis) for point in points])
            for axis in axes
        ),
        *(
            (_heading(COLUMNS[name]), True, [_cell(candidate, COLUMNS[name]) for candidate in shown])
            for name in figures
        ),
    ]
    headings, numeric, texts = zip(*columns, strict=True)
    return TableLayout(
        title=str(found.take.point),
        headings=headings,
        numeric=numeric,
        rows=tuple(zip(*texts, strict=True)),
        failed=(False,) * len(shown),
        caption=tuple(_caption(found, axes)),
        spare=tuple(1 + len(axes) + figures.index(n) for n in reversed(SIZES) if n not in _requested(found)),
    )


def pick_dict(found: Pick) -> dict[str, Any]:
    """`found` as JSON values, unrounded; unmeasured figures are None."""
    names = list(dict.fromkeys((*_requested(found), *SIZES)))
    return {
        "objective": found.objective.name,
        "better": found.objective.better,
        "prefer": [column.name for column in found.prefer],
        "where": found.where,
        "rows": found.rows,
        "satisfy": found.satisfy,
        "points": len(found.steps[0].candidates),
        "protocol": dict(found.protocol),
        "chosen_from": {name: list(values) for name, values in found.chosen_from.items()},
        "take": _plain(found.take, names),
        "runner_up": None if found.runner_up is None else _plain(found.runner_up, names),
        "alike": [
            _plain(candidate, names) for candidate in found.steps[0].alike if candidate is not found.take
        ],
        "why": why(found),
        "python": found.line,
    }


def why(found: Pick) -> str:
    """One sentence: in what the point is best, among how many, and with what certainty."""
    first, *others = found.steps
    count = len(first.candidates)
    among = f" with {' '.join(found.where.split())}" if found.where else ""
    if count == 1:
        return f"the only point{among} that has {first.column.name}: {_figure(found.take, first.column)}"
    said = f"{_superlative(first.column)} of {count} points{among}: {_figure(first.best, first.column)}"
    for before, step in zip(found.steps, others, strict=False):
        more = len(step.candidates) - 1
        subject = "this one has the" if step is found.steps[-1] else "the"
        said += f"; {more} more {_alike(before.column, more)}, and of these {more + 1} {subject}"
        said += f" {_superlative(step.column)}: {_figure(step.best, step.column)}"
    given_up = [step.column for step in found.steps if step.best is not found.take]
    if given_up:
        said += f", at {' and '.join(f'{name.heading} {_figure(found.take, name)}' for name in given_up)}"
    return said + _runner_up(found)


def _runner_up(found: Pick) -> str:
    last, other = found.steps[-1], found.runner_up
    if other is None:
        return ""
    ours, theirs = (candidate.figures.get(last.column.name) for candidate in (found.take, other))
    if theirs is None:
        return "; the runner-up has none"
    figure = _figure(other, last.column)
    rivals = len(last.alike) - 1
    if not rivals:
        return f"; the runner-up's is {figure}"
    advice = ""
    if found.suggestion:
        names = ",".join([*(column.name for column in found.prefer), found.suggestion])
        advice = f": --prefer {names} would decide"
    if not any(candidate is other for candidate in last.alike):
        verb = _alike(last.column, rivals)
        return f"; the runner-up's is {figure}, but {rivals} with a wider interval {verb}{advice}"
    more = f" and {rivals - 1} more" if rivals > 1 else ""
    if ours == theirs:
        return f"; the runner-up's{more} is the same{_larger(found.take, other)}{advice}"
    return f"; the runner-up's {figure}{more} {_alike(last.column, rivals)}{advice}"


def _alike(column: Column, count: int) -> str:
    """The verb for `count` points indistinguishable in `column`."""
    return ("overlap" if column.interval else "equal") + "s" * (count == 1)


def _larger(ours: Candidate, theirs: Candidate) -> str:
    """The cost in which an otherwise equal point is larger."""
    for name in SIZES:
        a, b = ours.figures.get(name), theirs.figures.get(name)
        if a and b and a.value != b.value:
            return f", with more {COLUMNS[name].heading}"
    return ""


def _shown(found: Pick) -> list[Candidate]:
    both = [found.take, *([found.runner_up] if found.runner_up else [])]
    return [*both, *_rivals(found)][:_MAX_ROWS]


def _rivals(found: Pick) -> list[Candidate]:
    """The points indistinguishable from the best in the objective, except the two shown."""
    return [
        candidate
        for candidate in found.steps[0].alike
        if candidate is not found.take and candidate is not found.runner_up
    ]


def _caption(found: Pick, axes: Sequence[str]) -> Iterator[str]:
    yield why(found)
    fixed = {axis: getattr(found.take.point, axis) for axis in AXES if axis not in ("backbone", *axes)}
    held = {name: value for name, value in {**fixed, **found.protocol}.items() if value is not None}
    yield " · ".join(COLUMNS[n].say(value) for n, value in held.items() if value != COLUMNS[n].usual)
    if found.chosen_from:
        yield _choice(found)
    hidden = len(_rivals(found)) + 1 + (found.runner_up is not None) - len(_shown(found))
    if hidden:
        yield f"{hidden} more {_alike(found.objective, hidden)}"
    if any(_is_predicted(candidate, COLUMNS[n]) for candidate in _shown(found) for n in _requested(found)):
        yield f"{PREDICTED} {PREDICTED_LINE}"
    for step in found.steps:
        bare = [candidate for candidate in step.alike if candidate.figures[step.column.name].interval is None]
        if step.column.interval and bare:
            yield f"{step.column.heading} without an interval ({len(bare)} of them) counts as exact"


def _choice(found: Pick) -> str:
    """Which of several protocols was taken, and how to choose another."""
    columns = {name: COLUMNS[name] for name in found.chosen_from}
    taken = ", ".join(column.say(found.protocol.get(name)) for name, column in columns.items())
    others = "; ".join(
        ", ".join(column.format(value) for value in found.chosen_from[name] if value is not None)
        for name, column in columns.items()
    )
    name, column = next(iter(columns.items()))
    value = found.protocol.get(name)
    example = f"{name} == {value}" if column.numeric else f"{name} == '{value}'"
    return f'at {taken} of {others}: another one by --where "{example}"'


def _requested(found: Pick) -> list[str]:
    return [found.objective.name, *(column.name for column in found.prefer)]


def _is_shown(values: Sequence[Any], axis: str) -> bool:
    known = {str(value) for value in values if value is not None}
    return bool(known) if axis in _ALWAYS else len({str(value) for value in values}) > 1


def _axis(point: Any, axis: str) -> str:
    return COLUMNS[axis].format(getattr(point, axis))


def _heading(column: Column) -> str:
    return f"{column.heading} ({column.unit})" if column.unit and column.kind == "number" else column.heading


def _cell(candidate: Candidate, column: Column) -> str:
    measured = candidate.figures.get(column.name)
    if measured is None:
        return ""
    mark = f"{PREDICTED} " if _is_predicted(candidate, column) else ""
    return mark + with_interval(measured.value, *_bounds(measured), column)


def _figure(candidate: Candidate, column: Column) -> str:
    text = _cell(candidate, column).removeprefix(f"{PREDICTED} ")
    said = f"{text} {column.unit}" if column.unit and column.kind == "number" else text
    return f"{said} (predicted)" if _is_predicted(candidate, column) else said


def _is_predicted(candidate: Candidate, column: Column) -> bool:
    return candidate.latency_is == "predicted" and column.within == LATENCY_PROTOCOL


def _superlative(column: Column) -> str:
    if column.kind == "count":
        return f"fewest {column.heading}"
    return f"{'smallest' if column.better == 'smaller' else 'largest'} {column.heading}"


def _plain(candidate: Candidate, names: Sequence[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in names:
        measured = candidate.figures.get(name)
        figures[name] = measured.value if measured else None
        for bound, value in zip(COLUMNS[name].interval or (), _bounds(measured), strict=False):
            figures[bound] = value
    if any(COLUMNS[name].within == LATENCY_PROTOCOL for name in names):
        figures["latency_is"] = candidate.latency_is
    return {**candidate.point.to_dict(), **figures}


def _bounds(measured: Measured | None) -> tuple[float | None, float | None]:
    return (measured.interval if measured else None) or (None, None)
