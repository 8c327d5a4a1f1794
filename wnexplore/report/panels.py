"""Figures of panels: plain data, layout and drawing with matplotlib.

Each kind of panel has its own file with data and drawing. Pyplot is not used: no window, no global state.
"""

from __future__ import annotations

import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from wnexplore.results.columns import Interval, compact


@dataclass(frozen=True)
class PlotAxis:
    """One axis: its label with unit, whether its ticks are counts (40M), logarithmic, or whole numbers."""

    label: str
    count: bool = False
    log: bool = False
    whole: bool = False
    at: tuple[float, ...] = ()
    """Its ticks; () for automatic ones."""


@dataclass(frozen=True)
class LegendEntry:
    """A legend entry; of several panels' entries with the same label the first is taken."""

    handle: Line2D | Patch
    order: int = 0
    """Sort key over all panels, ascending."""


class Panel(ABC):
    """One pair of axes: data and drawing."""

    title: str

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return 3.3, 2.7

    @abstractmethod
    def draw(self, ax: Axes) -> None:
        """Draw everything that doesn't need the final layout."""

    def place_labels(self, ax: Axes) -> None:  # noqa: B027  few kinds have any
        """Place labels after the figure is laid out."""

    def y_values(self) -> list[float]:
        """The values on the y axis, for panels that share it."""
        return []

    def legend(self) -> list[LegendEntry]:
        """Its part of the figure's legend."""
        return []


@dataclass(frozen=True)
class FigureInfo:
    """Panels in rows of `columns`; `note` is common to all."""

    panels: tuple[Panel, ...]
    columns: int
    note: str = ""
    share_y: bool = False


# --- drawing -----------------------------------------------------------------------------------------

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titley": 1.0,  # where matplotlib puts them too, after measuring tick labels several times
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "text.usetex": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # conferences reject type 3 fonts
    "svg.hashsalt": "wnexplore",
}
"""Settings for drawing and saving figures, regardless of the user's matplotlibrc."""

GREY = "#595959"
"""Colour of non-data: lines between points, notes."""

FEW = 200
"""Points or lines of a panel that are drawn one by one, which takes matplotlib some milliseconds each."""

DENSE = 2000
"""Points of a panel that are drawn as vectors; of more a .svg or .pdf holds an image (200 dpi).

Nobody could tell so many apart, and as vectors they take megabytes, and programs seconds to show them.
"""

_MARGIN = 0.09


def render(info: FigureInfo) -> Figure:
    """The figure that `info` describes, laid out and with its labels placed."""
    with matplotlib.rc_context(STYLE):
        rows = math.ceil(len(info.panels) / info.columns)
        sizes = [panel.size for panel in info.panels]
        width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
        width = max(width, 4.4) if info.columns == 1 else width
        inches = width * info.columns
        legend = _legend(info.panels)
        legend_columns = _legend_columns(legend, inches)
        legend_height = 0.17 * math.ceil(len(legend) / legend_columns) + 0.15
        size = inches, height * rows + (legend_height if legend else 0) + 0.2
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, info.columns, squeeze=False, sharey=info.share_y).ravel().tolist()
        for ax in axes[len(info.panels) :]:
            ax.remove()
        for panel, ax in zip(info.panels, axes, strict=False):
            panel.draw(ax)
        if info.share_y:
            _share_y(axes[: len(info.panels)], info)
        if info.note:
            figure.suptitle("\n".join(textwrap.wrap(info.note, int(inches * 17))), fontsize=7, color=GREY)
        if legend:
            figure.legend(handles=legend, loc="outside lower center", ncols=legend_columns, frameon=False)
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        # Saving would lay it out again, which takes as long as drawing it.
        figure.set_layout_engine(None)
        for panel, ax in zip(info.panels, axes, strict=False):
            panel.place_labels(ax)
    return figure


def limits(values: list[float], log: bool) -> Interval:
    """The ends of an axis that shows all of `values`, with a margin."""
    low, high = min(values), max(values)
    if log and low > 0:
        low, high = limits([math.log(low), math.log(high)], log=False)
        return math.exp(low), math.exp(high)
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):
        span = abs(high) or 1.0
    return low - _MARGIN * span, high + _MARGIN * span


def ticks(ax: Axes, axis: PlotAxis, name: str) -> None:
    """Plain numbers, also on a logarithmic axis; counts as 10M, 20M."""
    where = ax.xaxis if name == "x" else ax.yaxis
    low, high = ax.get_xlim() if name == "x" else ax.get_ylim()
    if axis.at:
        where.set_major_locator(FixedLocator(axis.at))
    elif axis.log and high / low > 8:
        where.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    elif axis.log and high / low > 2.5:
        where.set_major_locator(LogLocator(base=10, subs=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0)))
    elif axis.log:
        where.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    elif axis.whole:
        where.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    else:
        where.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    where.set_minor_locator(NullLocator())
    if axis.count:
        where.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))
    elif axis.log:
        where.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.ticklabel_format(axis="x" if name == "x" else "y", style="plain", useOffset=False)


def dress(ax: Axes) -> None:
    """Grid and frame of plots of one column over another."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E4E4E4", linewidth=0.5)
    ax.set_axisbelow(True)


def _tick_text(value: float) -> str:
    # Ticks of a narrow axis (120.25M, 120.5M) need more digits than a label has.
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.6g}{prefix}"
    return compact(value)


def _share_y(axes: Sequence[Axes], info: FigureInfo) -> None:
    values = [value for panel in info.panels for value in panel.y_values()]
    for index, ax in enumerate(axes):
        ax.set_ylim(*limits(values, log=False))
        if index % info.columns:
            ax.set_ylabel("")


def _legend(panels: Sequence[Panel]) -> list[Line2D | Patch]:
    """The legend entries in order, each label once."""
    entries: dict[str, LegendEntry] = {}
    for panel in panels:
        for entry in panel.legend():
            entries.setdefault(str(entry.handle.get_label()), entry)
    return [entry.handle for entry in sorted(entries.values(), key=lambda entry: entry.order)]


def _legend_columns(handles: Sequence[Line2D | Patch], inches: float) -> int:
    """The most columns that fit into a width; entries fill one column after the other."""
    # A letter of the legend is 0.055 inches wide on average, a marker and its gaps 0.6.
    widths = [0.055 * len(str(handle.get_label())) + 0.6 for handle in handles]
    for count in range(len(widths), 1, -1):
        # As matplotlib fills them: the first ones have one entry more where they can't be equally long.
        if sum(column.max() for column in np.array_split(widths, count)) <= inches:
            return count
    return 1
