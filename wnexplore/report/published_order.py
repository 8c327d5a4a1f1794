"""A run's accuracies, or test losses, over the published accuracies: data of the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from wnexplore.design.point import AXES
from wnexplore.report.panels import FigureInfo, PlotAxis
from wnexplore.report.ranking_table import setting_texts, shared_settings, tau_text
from wnexplore.report.scatter import ScatterPanel, labels
from wnexplore.report.series import Point, fill, series_keys, styles
from wnexplore.results.columns import COLUMNS
from wnexplore.results.published_ranking import PublishedRanking, RankedDesign


def order_info(rankings: Sequence[PublishedRanking]) -> FigureInfo:
    """The figure of each design over its published top-1, a panel for each of `rankings`.

    Vertical bars are 95 % intervals over seeds, horizontal ones the error of the published figure.
    """
    designs = [design for ranking in rankings for design in ranking.designs]
    looks = styles(_axes(designs), COLUMNS["method"])
    panels = []
    for ranking, setting in zip(rankings, setting_texts(rankings), strict=True):
        keys = series_keys(_axes(ranking.designs), "method")
        panels.append(
            ScatterPanel(
                title=" · ".join(filter(None, (setting, _title(ranking)))),
                x=PlotAxis("Published top-1 on ImageNet (%)"),
                y=PlotAxis(ranking.column.label),
                series=fill(looks, zip(keys, _points(ranking.designs), strict=True)),
            )
        )
    note = f"{shared_settings(rankings[0])} · labels are (M, G) and experts" if len(rankings) == 1 else ""
    return FigureInfo(tuple(panels), columns=min(3, len(panels)), note=note)


def _title(ranking: PublishedRanking) -> str:
    tau = tau_text(ranking.overall)
    return f"{len(ranking.designs)} designs" + (f", Kendall's τ-b {tau}" if tau else "")


def _axes(designs: Sequence[RankedDesign]) -> pd.DataFrame:
    rows = [[getattr(design.point, axis) for axis in AXES] for design in designs]
    return pd.DataFrame(rows, columns=list(AXES), dtype=object)


def _points(designs: Sequence[RankedDesign]) -> Iterator[Point]:
    for design, pair in zip(designs, labels(_axes(designs)), strict=True):
        published, error = float(design.published.top1), float(design.published.error)
        experts = design.point.experts
        yield Point(
            published,
            design.value,
            x_interval=(published - error, published + error),
            y_interval=design.interval,
            label=pair or ("" if experts is None else str(experts)),
        )
