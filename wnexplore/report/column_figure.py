"""An empty figure of column width, with title and legend."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wnexplore.report.panels import GREY

WIDTH = 3.5
"""Inches: a column of a two-column page."""

BLACK, BLUE, ORANGE = "#222222", "#0060A8", "#E8862E"


def column_figure(height: float, title: str, note: str) -> Figure:
    """An empty figure of one column; `title` and `note` are at the top, wrapped to its width."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [line for part in (title, *note.splitlines()) for line in textwrap.wrap(part, 62)]
    figure.suptitle("\n".join(lines), fontsize=7, color=GREY)
    return figure


def legend_below(figure: Figure, handles: list[Any], columns: int) -> None:
    """The figure's legend, below it."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=7,
        columnspacing=1.2,
        handletextpad=0.5,
    )
