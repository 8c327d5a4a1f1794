"""What the panels of a figure have in common: limits and ticks of their axes."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from wnexplore.report.figure_info import Axis
from wnexplore.results.columns import Interval, compact

GREY = "#595959"
"""What is no data: lines between points, notes."""

_MARGIN = 0.09


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


def ticks(ax: Axes, axis: Axis, name: str) -> None:
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


def _tick_text(value: float) -> str:
    # Ticks of a narrow axis (120.25M, 120.5M) need more digits than a label has.
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.6g}{prefix}"
    return compact(value)


def dress(ax: Axes) -> None:
    """Grid and frame as every plot of one column over another has them."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E4E4E4", linewidth=0.5)
    ax.set_axisbelow(True)
