"""Draw the learning curves of a panel."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wnexplore.report.figure_info import Curve, CurvePanel
from wnexplore.report.placement import spread
from wnexplore.report.render_axes import GREY, dress, limits, ticks

_WIDTH = 1.1
_LABEL = 6.0
_ARM = 14.0
"""Points from a line's end to its label."""
_ROOM = 0.24
"""How much wider an axis is for the labels at its end."""
_OTHERS = "other variants"
_DROPPED = "dropped by halving"
_DOTS: Any = {"linestyle": "none", "marker": "o", "markersize": 2.2}
# No patch: a line would stop at the frame that matplotlib thinks of round the text, below or above it.
_ARROW: Any = {
    "arrowstyle": "-",
    "linewidth": 0.5,
    "shrinkA": 1.5,
    "shrinkB": 1,
    "relpos": (0, 0.5),
    "patchA": None,
}
_CROSS: Any = {"marker": "X", "markersize": 5.0, "markeredgecolor": "white", "markeredgewidth": 0.5}


def draw_curves(ax: Axes, panel: CurvePanel) -> None:
    """Lines over bands; a cross where a variant was dropped, dots where there are few values."""
    for order, curve in enumerate(panel.curves, start=3):
        if curve.bands:
            low, high = zip(*curve.bands, strict=True)
            ax.fill_between(curve.xs, low, high, color=curve.colour, alpha=0.1, linewidth=0, zorder=1)
        ax.plot(curve.xs, curve.ys, zorder=order, **_line(curve))
        if panel.dots and not curve.dropped:
            ax.plot(curve.xs, curve.ys, zorder=order, color=curve.colour, **_DOTS)
        if curve.dropped:
            ax.plot(curve.xs[-1], curve.ys[-1], color=curve.colour, zorder=order + 0.5, **_CROSS)
    xs = [x for curve in panel.curves for x in curve.xs]
    ys = [y for curve in panel.curves for y in curve.ys]
    ys += [bound for curve in panel.curves for band in curve.bands for bound in band]
    if panel.x.log:
        ax.set_xscale("log")
    left, right = limits(xs, panel.x.log)
    if any(curve.label for curve in panel.curves):
        right = right * (right / left) ** _ROOM if panel.x.log else right + _ROOM * (right - left)
    ax.set(xlim=(left, right), ylim=limits(ys, panel.y.log), xlabel=panel.x.label)
    ticks(ax, panel.x, "x")
    # There is no epoch under the labels.
    ax.set_xticks([tick for tick in ax.get_xticks() if left <= tick <= max(xs)])
    ticks(ax, panel.y, "y")
    ax.set_ylabel(panel.y.label)
    ax.set_title("\n".join(textwrap.wrap(panel.title, 52)))
    dress(ax)


def label_ends(ax: Axes, panel: CurvePanel) -> None:
    """Write what the lines are at their ends, one below the other and as near to these as there is room."""
    to_points = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    ended = sorted((curve for curve in panel.curves if curve.label), key=lambda curve: curve.ys[-1])
    heights = [float(ax.transData.transform((c.xs[-1], c.ys[-1]))[1]) * to_points for c in ended]
    window, half = ax.get_window_extent(), _LABEL / 2 + 2
    low, high = window.y0 * to_points + half, window.y1 * to_points - half
    for curve, height, at in zip(ended, heights, spread(heights, _LABEL + 1, low, high), strict=True):
        text = ax.annotate(
            curve.label,
            (curve.xs[-1], curve.ys[-1]),
            xytext=(_ARM, at - height),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=_LABEL,
            arrowprops={"color": curve.colour, **_ARROW},
        )
        text.set_in_layout(False)


def curve_handles(panel: CurvePanel) -> dict[str, Line2D]:
    """Label -> what the legend shows of it."""
    handles = {c.name: Line2D([], [], label=c.name, **_line(c)) for c in panel.curves if c.name}
    for curve in panel.curves:
        if not curve.name:
            handles.setdefault(_OTHERS, Line2D([], [], label=_OTHERS, **_line(curve)))
    if any(curve.dropped for curve in panel.curves):
        handles[_DROPPED] = Line2D([], [], label=_DROPPED, linestyle="none", color=GREY, **_CROSS)
    return handles


def _line(curve: Curve) -> dict[str, Any]:
    return {
        "color": curve.colour,
        "linewidth": _WIDTH,
        "linestyle": (0, curve.dash) if curve.dash else "solid",
        "dash_capstyle": "butt",
    }
