"""The comparison of two runs, as a table and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from wnexplore.design.multiplier import Setting
from wnexplore.report.layout import FAILED, TableLayout
from wnexplore.results.columns import COLUMNS, Column, Interval, with_interval
from wnexplore.results.compare import Count, Lonely, Measured, Pair, Verdict, Versus

_RATIO = Column("ratio", "number", "B/A", decimals=3)
_WORDS: dict[str, dict[Verdict, str]] = {
    "latency_ms": {"better": "faster", "worse": "slower"},
    "latency_ratio": {"better": "faster", "worse": "slower"},
}
_ALWAYS = ("method", "M", "G")
_MAX_COUNTS = 8


def versus_layout(
    found: Versus,
    software: Mapping[str, tuple[str, str]],
    runs: tuple[str, str],
    threshold: float | None = None,
) -> TableLayout:
    """`found` as a table: one row per pair, B over A with the interval of `Pair.ratio_interval`.

    `software` is the result of `compare.software`, `runs` the names of A and B; pairs that fail `threshold`
    are marked ✗.
    """
    varying = _varying(found.pairs)
    shown = [name for name in found.pairs[0].identity if name in varying]
    marks = [FAILED if threshold is not None and pair.fails(threshold) else "" for pair in found.pairs]
    unit = f" ({found.column.unit})" if found.column.unit and found.column.kind != "count" else ""
    columns = [
        *(("", False, marks) for _ in range(any(marks))),
        *((COLUMNS[name].heading, COLUMNS[name].numeric, _cells(found, name)) for name in shown),
        (f"A {found.column.heading}{unit}", True, [_figure(pair.a, pair.column) for pair in found.pairs]),
        (f"B {found.column.heading}{unit}", True, [_figure(pair.b, pair.column) for pair in found.pairs]),
        (_RATIO.heading, True, [_ratio(pair) for pair in found.pairs]),
        ("B is", False, [_word(pair) for pair in found.pairs]),
    ]
    headings, numeric, texts = zip(*columns, strict=True)
    return TableLayout(
        title="\n".join(_titles(found, software, runs)),
        headings=headings,
        numeric=numeric,
        rows=tuple(zip(*texts, strict=True)),
        failed=(False,) * len(found.pairs),
        caption=tuple(_caption(found, shown, threshold if any(marks) else None)),
    )


def failures(found: Versus, threshold: float) -> list[str]:
    """A line per pair that fails `threshold`."""
    varying = _varying(found.pairs)
    return [
        f"{_name(pair.identity, varying)}: {found.column.name} {_figure(pair.a, pair.column)} in A,"
        f" {_figure(pair.b, pair.column)} in B: worse by a factor of {pair.worsening:.3f}"
        for pair in found.pairs
        if pair.fails(threshold)
    ]


def lonely_lines(found: Versus) -> list[str]:
    """A line per point with a figure in only one of the runs."""
    varying = _varying([*found.pairs, *found.only_a, *found.only_b])
    lines = []
    for run, other, entries in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        for entry in entries:
            text = f"only in {run}: {_name(entry.identity, varying)}"
            why = "" if entry.status in (None, "ok") else f" ({other}: {str(entry.status).replace('_', ' ')})"
            lines.append(text + why)
    return lines


def versus_dict(
    found: Versus,
    software: Mapping[str, tuple[str, str]],
    runs: tuple[str, str],
    threshold: float | None = None,
) -> dict[str, Any]:
    """`found` as JSON values, unrounded; bounds and ratios that are NaN are None."""
    return {
        "a": runs[0],
        "b": runs[1],
        "column": found.column.name,
        "apart": {name: list(values) for name, values in {**found.apart, **software}.items()},
        "alike": dict(found.alike),
        "fail_above": threshold,
        "pairs": [
            {
                **_plain(pair.identity),
                **_bounds("a", pair.a.value, pair.a.interval),
                **_bounds("b", pair.b.value, pair.b.interval),
                **_bounds("ratio", pair.ratio, pair.ratio_interval),
                "verdict": pair.verdict,
                "failed": threshold is not None and pair.fails(threshold),
            }
            for pair in found.pairs
        ],
        "only_a": [{**_plain(entry.identity), "status_in_b": entry.status} for entry in found.only_a],
        "only_b": [{**_plain(entry.identity), "status_in_a": entry.status} for entry in found.only_b],
        "counts": [
            {**_plain(entry.identity), "column": entry.column.name, "a": entry.a, "b": entry.b}
            for entry in found.counts
        ],
    }


def _titles(found: Versus, software: Mapping[str, tuple[str, str]], runs: tuple[str, str]) -> Iterator[str]:
    for index, (letter, run) in enumerate(zip("AB", runs, strict=True)):
        said = [
            COLUMNS[name].say(values[index])
            for name, values in found.apart.items()
            if values[index] is not None
        ]
        said += [f"{name} {values[index][:12]}" for name, values in software.items()]
        yield f"{letter}: {run}" + (f" · {' · '.join(said)}" if said else "")


def _caption(found: Versus, shown: Collection[str], threshold: float | None) -> Iterator[str]:
    fixed = {**found.pairs[0].identity, **found.alike}
    said = [
        COLUMNS[name].say(value)
        for name, value in fixed.items()
        if name not in shown and value is not None and value != COLUMNS[name].usual
    ]
    yield " · ".join(said)
    verdicts = [_word(pair) for pair in found.pairs]
    count = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
    yield f"B: {count}" + (" (95 % intervals overlap)" if "unclear" in verdicts else "")
    if threshold is not None:
        yield f"{FAILED} worse by more than a factor of {threshold:g}, with disjoint intervals"
    yield from _counts(found.counts)


def _counts(counts: tuple[Count, ...]) -> Iterator[str]:
    varying = _varying(counts)
    for entry in counts[:_MAX_COUNTS]:
        difference = f"{entry.a:,} in A, {entry.b:,} in B"
        yield f"counted differently: {_name(entry.identity, varying)}: {entry.column.heading} {difference}"
    if len(counts) > _MAX_COUNTS:
        yield f"counted differently: {len(counts) - _MAX_COUNTS} more"


def _varying(items: Collection[Pair | Lonely | Count]) -> set[str]:
    """The columns with more than one value, and those that always identify the network."""
    values: dict[str, set[Any]] = {}
    for item in items:
        for name, value in item.identity.items():
            values.setdefault(name, set()).update(() if value is None else (value,))
    return {name for name, value in values.items() if len(value) > (0 if name in _ALWAYS else 1)}


def _name(identity: Mapping[str, Any], varying: Collection[str]) -> str:
    said = {name: value for name, value in identity.items() if name == "backbone" or name in varying}
    return ", ".join(COLUMNS[name].say(value) for name, value in said.items() if value is not None)


def _cells(found: Versus, name: str) -> list[str]:
    return [COLUMNS[name].format(pair.identity[name]) for pair in found.pairs]


def _figure(measured: Measured, column: Column) -> str:
    if column.kind == "count":
        # With all digits: any difference between counts matters.
        return f"{measured.value:,}"
    if column.interval is None:
        return column.format(measured.value)
    low, high = measured.interval or (None, None)
    return with_interval(measured.value, low, high, column)


def _ratio(pair: Pair) -> str:
    if pair.column.interval is None or pair.ratio_interval is None:
        return _RATIO.format(pair.ratio)
    return with_interval(pair.ratio, *pair.ratio_interval, _RATIO)


def _word(pair: Pair) -> str:
    return _WORDS.get(pair.column.name, {}).get(pair.verdict, pair.verdict)


def _bounds(name: str, value: float, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    figures = {name: value, f"{name}_low": low, f"{name}_high": high}
    return {key: None if figure is None or math.isinf(figure) else figure for key, figure in figures.items()}


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, Setting) else v for name, v in identity.items()}
