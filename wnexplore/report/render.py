"""Draw a `FigureInfo` with matplotlib, without pyplot: no window, no global state left behind."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from wnexplore.report.figure_info import (
    CurvePanel,
    FigureInfo,
    HeatPanel,
    Panel,
    Point,
    ScatterPanel,
    Series,
)
from wnexplore.report.placement import Box, Label, leader, place, straight
from wnexplore.report.render_axes import GREY, dress, limits, ticks
from wnexplore.report.render_curves import curve_handles, draw_curves, label_ends

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "text.usetex": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # conferences refuse type 3 fonts
    "svg.hashsalt": "wnexplore",
}
"""Settings under which figures are drawn and saved, whatever the user's matplotlibrc says."""

_MARKER = 5.0
_RING = 9.0
_LABEL = 6.5
_MISSING = "not legal or not measured"
_FRONT_LINE: Any = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 2))}
_DIAGONAL: Any = {"color": GREY, "linewidth": 0.7, "linestyle": (0, (1, 2))}
_RING_MARK: Any = {
    "marker": "o",
    "markersize": _RING,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
    "markeredgewidth": 0.6,
}


def render(info: FigureInfo) -> Figure:
    """The figure that `info` describes, laid out and with its labels placed."""
    with matplotlib.rc_context(STYLE):
        rows = math.ceil(len(info.panels) / info.columns)
        sizes = [_panel_size(panel) for panel in info.panels]
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
            _draw(ax, panel)
        if info.share_y:
            _share_y(axes[: len(info.panels)], info)
        if info.note:
            figure.suptitle("\n".join(textwrap.wrap(info.note, int(inches * 17))), fontsize=7, color=GREY)
        if legend:
            figure.legend(handles=legend, loc="outside lower center", ncols=legend_columns, frameon=False)
        figure.draw_without_rendering()
        for panel, ax in zip(info.panels, axes, strict=False):
            if isinstance(panel, ScatterPanel):
                _place_labels(ax, panel)
            elif isinstance(panel, CurvePanel):
                label_ends(ax, panel)
    return figure


def _panel_size(panel: Panel) -> tuple[float, float]:
    """Width and height in inches."""
    if isinstance(panel, (ScatterPanel, CurvePanel)):
        return 3.3, 2.7
    return max(2.3, 0.5 * len(panel.M) + 0.9), max(1.7, 0.34 * len(panel.G) + 0.9)


def _draw(ax: Axes, panel: Panel) -> None:
    if isinstance(panel, ScatterPanel):
        _draw_scatter(ax, panel)
    elif isinstance(panel, CurvePanel):
        draw_curves(ax, panel)
    else:
        _draw_heat(ax, panel)


# --- scatter -----------------------------------------------------------------------------------------


def _draw_scatter(ax: Axes, panel: ScatterPanel) -> None:
    if panel.front:
        steps = "steps-pre" if panel.front_rises_before else "steps-post"
        xs, ys = zip(*panel.front, strict=True)
        ax.plot(xs, ys, drawstyle=steps, zorder=1, **_FRONT_LINE)
    for series in panel.series:
        _draw_series(ax, series)
    if panel.diagonal:
        ax.axline((1, 1), slope=1, zorder=1, **_DIAGONAL)
    points = [point for series in panel.series for point in series.points]
    ringed = [point for point in points if point.ringed]
    ax.plot(
        [point.x for point in ringed], [point.y for point in ringed], linestyle="none", zorder=2, **_RING_MARK
    )
    ax.set_xlim(*limits(_reach(points, "x"), panel.x.log))
    ax.set_ylim(*limits(_reach(points, "y"), panel.y.log))
    if panel.x.log:
        ax.set_xscale("log")
        ax.set_xlim(*limits(_reach(points, "x"), log=True))
    if panel.diagonal:
        low, high = limits(_reach(points, "x") + _reach(points, "y"), log=False)
        # No rank is below 1, and no tick should be.
        ax.set(xlim=(max(low, 0.25), high), ylim=(max(low, 0.25), high))
    ticks(ax, panel.x, "x")
    ticks(ax, panel.y, "y")
    ax.set_xlabel(panel.x.label)
    ax.set_ylabel(panel.y.label)
    ax.set_title("\n".join(textwrap.wrap(panel.title, 52)))
    dress(ax)


def _draw_series(ax: Axes, series: Series) -> None:
    for point in series.points:
        for name, at, interval in (("x", point.x, point.x_interval), ("y", point.y, point.y_interval)):
            if interval is not None:
                # A median outside its interval by a rounding error is no negative length.
                reach = [[max(0.0, at - interval[0])], [max(0.0, interval[1] - at)]]
                bars: dict[str, Any] = {f"{name}err": reach}
                ax.errorbar(
                    point.x, point.y, fmt="none", ecolor=GREY, elinewidth=0.7, capsize=1.5, zorder=2, **bars
                )
    ax.plot(
        [point.x for point in series.points],
        [point.y for point in series.points],
        linestyle="none",
        zorder=3,
        **_marker(series),
    )


def _marker(series: Series) -> dict[str, Any]:
    return {
        "marker": series.marker,
        "markersize": _MARKER,
        "markerfacecolor": series.colour,
        "markeredgecolor": "#222222",
        "markeredgewidth": 0.6,
    }


def _reach(points: Iterable[Point], axis: str) -> list[float]:
    """All values along an axis, intervals included."""
    found = []
    for point in points:
        value, interval = (point.x, point.x_interval) if axis == "x" else (point.y, point.y_interval)
        found += [value, *(interval or ())]
    return found


def _share_y(axes: list[Axes], info: FigureInfo) -> None:
    points = [
        point
        for panel in info.panels
        if isinstance(panel, ScatterPanel)
        for series in panel.series
        for point in series.points
    ]
    for index, ax in enumerate(axes):
        ax.set_ylim(*limits(_reach(points, "y"), log=False))
        if index % info.columns:
            ax.set_ylabel("")


def _legend(panels: Iterable[Panel]) -> list[Line2D | Patch]:
    handles: dict[str, Line2D | Patch] = {}
    fronts = rings = diagonals = False
    for panel in panels:
        if isinstance(panel, HeatPanel):
            if any(value is None for row in panel.values for value in row):
                handles["missing"] = Patch(
                    facecolor="white",
                    edgecolor=GREY,
                    hatch="////",
                    linewidth=0.5,
                    label=_MISSING,
                )
            continue
        if isinstance(panel, CurvePanel):
            handles |= curve_handles(panel)
            continue
        fronts = fronts or len(panel.front) > 1
        diagonals = diagonals or panel.diagonal
        rings = rings or any(point.ringed for series in panel.series for point in series.points)
        for series in panel.series:
            handles.setdefault(
                series.name, Line2D([], [], linestyle="none", label=series.name, **_marker(series))
            )
    if fronts:
        handles["front"] = Line2D([], [], label="Pareto front", **_FRONT_LINE)
    if diagonals:
        handles["diagonal"] = Line2D([], [], label="same rank", **_DIAGONAL)
    if rings:
        handles["ring"] = Line2D(
            [], [], linestyle="none", label="may be optimal (intervals overlap)", **_RING_MARK
        )
    return list(handles.values())


def _legend_columns(handles: list[Line2D | Patch], inches: float) -> int:
    """The most columns that fit into a width; entries fill one column after the other."""
    # A letter of the legend is 0.055 inches wide on average, a marker and its gaps 0.6.
    widths = [0.055 * len(str(handle.get_label())) + 0.6 for handle in handles]
    for count in range(len(widths), 1, -1):
        rows = math.ceil(len(widths) / count)
        if sum(max(widths[start : start + rows]) for start in range(0, len(widths), rows)) <= inches:
            return count
    return 1


def _place_labels(ax: Axes, panel: ScatterPanel) -> None:
    """Write the points' labels where they cover nothing; those on the front choose first."""
    to_points = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]

    def at(x: float, y: float) -> tuple[float, float]:
        pixel = ax.transData.transform((x, y))
        return float(pixel[0]) * to_points, float(pixel[1]) * to_points

    front = set(panel.front)
    points = [point for series in panel.series for point in series.points]
    labelled = sorted((p for p in points if p.label), key=lambda p: (p.x, p.y) not in front)
    labels = [Label(*at(p.x, p.y), *_text_size(p.label)) for p in labelled]
    half = _MARKER / 2 + 0.8
    markers = [Box(x - half, y - half, x + half, y + half) for x, y in (at(p.x, p.y) for p in points)]
    lines: list[Box] = []
    for p in points:
        if p.x_interval is not None:
            lines.append(straight(at(p.x_interval[0], p.y), at(p.x_interval[1], p.y)))
        if p.y_interval is not None:
            lines.append(straight(at(p.x, p.y_interval[0]), at(p.x, p.y_interval[1])))
    for (x0, y0), (x1, y1) in zip(panel.front, panel.front[1:], strict=False):
        corner = (x0, y1) if panel.front_rises_before else (x1, y0)
        lines += [straight(at(x0, y0), at(*corner)), straight(at(*corner), at(x1, y1))]
    window = ax.get_window_extent()
    area = Box(*(float(edge) * to_points for edge in (window.x0, window.y0, window.x1, window.y1)))
    for point, label, box in zip(labelled, labels, place(labels, markers, lines, area), strict=True):
        if box is not None:
            _write(ax, point, label, box)


def _text_size(text: str) -> tuple[float, float]:
    # A digit of matplotlib's own font is 0.64 em wide; measured once, good enough for what labels hold.
    return 0.55 * _LABEL * len(text) + 1, _LABEL + 0.5


def _write(ax: Axes, point: Point, label: Label, box: Box) -> None:
    end = leader(label, box)
    if end is not None:
        ax.annotate(
            "",
            (point.x, point.y),
            xytext=(end[0] - label.x, end[1] - label.y),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2},
            zorder=2,
        )
    centre = (box.left + box.right) / 2 - label.x, (box.bottom + box.top) / 2 - label.y
    text = ax.annotate(
        point.label,
        (point.x, point.y),
        xytext=centre,
        textcoords="offset points",
        ha="center",
        va="center_baseline",
        fontsize=_LABEL,
        zorder=4,
        # A halo, for where no place was clear of error bars.
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )
    text.set_in_layout(False)


# --- heat map ----------------------------------------------------------------------------------------


def _draw_heat(ax: Axes, panel: HeatPanel) -> None:
    known = [value for row in panel.values for value in row if value is not None]
    low, high = min(known), max(known)
    colours = matplotlib.colormaps["cividis"]
    for row, (values, texts) in enumerate(zip(panel.values, panel.texts, strict=True)):
        for position, (value, text) in enumerate(zip(values, texts, strict=True)):
            corner = position - 0.5, row - 0.5
            if value is None:
                ax.add_patch(
                    Rectangle(corner, 1, 1, facecolor="white", edgecolor="#A0A0A0", hatch="////", linewidth=0)
                )
                continue
            colour = colours((value - low) / (high - low) if high > low else 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
            ink = "black" if _luminance(colour) > 0.179 else "white"
            ax.text(position, row, text, ha="center", va="center", fontsize=7, color=ink)
    ax.set_xlim(-0.5, len(panel.M) - 0.5)
    ax.set_ylim(-0.5, len(panel.G) - 0.5)
    ax.set_xticks(range(len(panel.M)), panel.M)
    ax.set_yticks(range(len(panel.G)), panel.G)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("M")
    ax.set_ylabel("G")
    ax.set_title(panel.title)


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Relative luminance (WCAG 2), 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
