"""A run's order of accuracies beside the published one: tables, JSON values and a CSV of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wnexplore.report.layout import TableLayout
from wnexplore.results.columns import COLUMNS, Column, Interval, difference, with_interval
from wnexplore.results.escape import csv_cell
from wnexplore.results.intervals import ENOUGH
from wnexplore.results.published_ranking import (
    PAIR_VERDICTS,
    Agreement,
    PublishedRanking,
    RankedDesign,
    RankedPair,
)
from wnexplore.results.trainings import differing

_TAU = Column("tau_b", "number", "tau-b", decimals=2)
_OVERALL = "all pairs"


@dataclass(frozen=True)
class _Cells:
    heading: str
    numeric: bool
    texts: Sequence[str]


def ranking_layouts(ranking: PublishedRanking, setting: str = "") -> Iterator[TableLayout]:
    """The designs, the pairs within a width, and how both orders agree; `setting` tells rankings apart."""
    yield _designs(ranking, " · ".join(filter(None, (shared_settings(ranking), setting))))
    notes = _pair_notes(ranking)
    for number, (backbone, agreement) in enumerate(ranking.widths.items(), start=1):
        yield _pairs(backbone, agreement, ranking.column, notes if number == len(ranking.widths) else ())
    yield _agreements(ranking)


def shared_settings(ranking: PublishedRanking) -> str:
    """The data set, epochs and resolution that its trainings share: "shapes · 5 epochs · 24 px"."""
    names = ("dataset", "epochs", "resolution")
    return " · ".join(
        COLUMNS[name].say(ranking.settings[name]) for name in names if ranking.settings.get(name) is not None
    )


def setting_texts(rankings: Sequence[PublishedRanking]) -> list[str]:
    """What distinguishes the settings of each of `rankings`: "lr 0.1"; "" if there is only one."""
    return differing([ranking.settings for ranking in rankings])


def tau_text(agreement: Agreement) -> str:
    """Kendall's tau-b with its interval: "+0.82 [0.62, 0.93]"; "" if it is unknown."""
    if agreement.tau is None:
        return ""
    return difference(agreement.tau, *_ends(agreement.tau_interval), _TAU)


def rankings_dict(rankings: Sequence[PublishedRanking], run: str) -> dict[str, Any]:
    """`rankings` as JSON values, unrounded; unknown figures are None."""
    return {"run": run, "rankings": [_ranking_dict(ranking) for ranking in rankings]}


def rankings_csv(rankings: Sequence[PublishedRanking]) -> str:
    """A row per pair, unrounded, those of two widths included; `lower` has the lower published accuracy."""
    rows = [
        {
            "dataset": ranking.settings.get("dataset"),
            "epochs": ranking.settings.get("epochs"),
            "setting": setting,
            "column": ranking.column.name,
        }
        | _pair_dict(pair)
        for ranking, setting in zip(rankings, setting_texts(rankings), strict=True)
        for pair in ranking.overall.pairs
    ]
    texts = {name: pd.Series([csv_cell(row[name]) for row in rows], dtype=object) for name in rows[0]}
    return pd.DataFrame(texts).to_csv(index=False, lineterminator="\n")


def _designs(ranking: PublishedRanking, title: str) -> TableLayout:
    designs, column = ranking.designs, ranking.column
    caption = [
        "published: top-1 on ImageNet, from the authors' table, or with ± read off the paper's figure",
    ]
    if ranking.unpublished:
        count = len(ranking.unpublished)
        caption.append(f"{count} more design{'s' * (count > 1)} trained, of which no accuracy was published")
    return _layout(
        [
            _Cells("backbone", False, [design.point.backbone for design in designs]),
            _Cells("design", False, [_name(design) for design in designs]),
            _Cells("published (%)", True, [_published(design) for design in designs]),
            _Cells(
                f"{column.heading} ({column.unit})",
                True,
                [with_interval(design.value, *_ends(design.interval), column) for design in designs],
            ),
            _Cells("seeds", True, [str(len(design.by_seed)) for design in designs]),
        ],
        title,
        caption,
    )


def _pair_notes(ranking: PublishedRanking) -> list[str]:
    pairs = [pair for agreement in ranking.widths.values() for pair in agreement.pairs]
    figure = ranking.column.heading
    caption = [
        f"difference: {figure} of the higher less the lower, over common seeds, 95 % interval",
        "unresolved: the interval holds 0; intervals are per pair, not corrected for the number of pairs",
    ]
    if any(pair.verdict == "tied" for pair in pairs):
        caption.append("tied: as published, within the error of the published figures")
    if any(len(pair.differences) < ENOUGH for pair in pairs):
        caption.append(
            f"below {ENOUGH} common seeds an interval covers less than 95 %, below 3 there is none"
        )
    return caption


def _pairs(backbone: str, agreement: Agreement, column: Column, caption: Sequence[str]) -> TableLayout:
    pairs, over = agreement.pairs, COLUMNS[f"{column.name}_diff"]
    return _layout(
        [
            _Cells("published lower", False, [_name(pair.worse) for pair in pairs]),
            _Cells("higher", False, [_name(pair.better) for pair in pairs]),
            _Cells("by (points)", True, [str(pair.published_difference) for pair in pairs]),
            _Cells(f"difference ({over.unit})", True, [_difference(pair, over) for pair in pairs]),
            _Cells("order", False, [pair.verdict for pair in pairs]),
        ],
        backbone,
        caption,
    )


def _agreements(ranking: PublishedRanking) -> TableLayout:
    rows = _rows(ranking)
    caption = [
        "tau-b: Kendall's, of means over the seeds that all designs have; its interval is over seeds alone",
    ]
    if len(ranking.widths) > 1:
        within = ranking.widths.values()
        counts = ((sum(one.count(verdict) for one in within), verdict) for verdict in PAIR_VERDICTS)
        caption.append("within a width, together: " + ", ".join(f"{count} {word}" for count, word in counts))
    return _layout(
        [
            _Cells("pairs within", False, list(rows)),
            _Cells("designs", True, [str(len(row.designs)) for row in rows.values()]),
            *(
                _Cells(verdict, True, [str(row.count(verdict)) for row in rows.values()])
                for verdict in PAIR_VERDICTS
            ),
            _Cells("tau-b", True, [tau_text(row) for row in rows.values()]),
            _Cells("seeds", True, [str(len(row.seeds)) for row in rows.values()]),
        ],
        "",
        caption,
    )


def _rows(ranking: PublishedRanking) -> dict[str, Agreement]:
    return {**ranking.widths, _OVERALL: ranking.overall}


def _layout(columns: Sequence[_Cells], title: str, caption: Sequence[str]) -> TableLayout:
    rows = tuple(zip(*(column.texts for column in columns), strict=True))
    return TableLayout(
        title=title,
        headings=tuple(column.heading for column in columns),
        numeric=tuple(column.numeric for column in columns),
        rows=rows,
        failed=(False,) * len(rows),
        caption=(*caption, ""),
    )


def _name(design: RankedDesign) -> str:
    """Its method and what was published of it; the other axes are as published."""
    point = design.point
    setting = (
        f" ({point.M}, {point.G})" if point.M is not None else f" {point.experts}" if point.experts else ""
    )
    return point.method + setting


def _published(design: RankedDesign) -> str:
    figure = design.published
    return f"{figure.top1} ± {figure.error}" if figure.source == "figure" else str(figure.top1)


def _difference(pair: RankedPair, column: Column) -> str:
    if pair.difference is None:
        return ""
    return difference(pair.difference, *_ends(pair.interval), column)


def _ranking_dict(ranking: PublishedRanking) -> dict[str, Any]:
    return {
        "settings": dict(ranking.settings),
        "column": ranking.column.name,
        "designs": [
            {
                **design.point.to_dict(),
                "published_top1": float(design.published.top1),
                "published_error": float(design.published.error),
                "published_source": design.published.source,
                design.column.name: design.value,
                **_bounds(design.column.name, design.interval),
                "seeds": len(design.by_seed),
            }
            for design in ranking.designs
        ],
        "unpublished": [point.to_dict() for point in ranking.unpublished],
        "pairs": [_pair_dict(pair) for pair in ranking.overall.pairs],
        "agreement": [
            {
                "within": name,
                "designs": len(agreement.designs),
                "pairs": len(agreement.pairs),
                **{verdict: agreement.count(verdict) for verdict in PAIR_VERDICTS},
                "tau_b": agreement.tau,
                **_bounds("tau_b", agreement.tau_interval),
                "seeds": len(agreement.seeds),
            }
            for name, agreement in _rows(ranking).items()
        ],
    }


def _pair_dict(pair: RankedPair) -> dict[str, Any]:
    return {
        "lower": str(pair.worse.point),
        "higher": str(pair.better.point),
        "within_width": pair.within_width,
        "published_difference": float(pair.published_difference),
        "published_error": float(pair.published_error),
        "difference": pair.difference,
        **_bounds("difference", pair.interval),
        "seeds": len(pair.differences),
        "verdict": pair.verdict,
    }


def _bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = _ends(interval)
    return {f"{name}_low": low, f"{name}_high": high}


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return interval or (None, None)
