"""A figure over M and G as a heat map: its panels as plain data, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from wnexplore.design.methods import methods_with
from wnexplore.design.multiplier import PerStage
from wnexplore.design.point import AXES
from wnexplore.report.panels import GREY, FigureInfo, LegendEntry, Panel
from wnexplore.results.columns import COLUMNS, LEARNED, Column, compact, comparable_within
from wnexplore.results.frame import cells, distinct, groups, shared, varying

_NETWORK = tuple(axis for axis in AXES if axis not in ("backbone", "method", "M", "G"))
_HEATS = ("params", "flops", "latency_ratio", "latency_ms", *(column.name for column in LEARNED))
_MISSING = "not legal or not measured"


@dataclass(frozen=True)
class HeatPanel(Panel):
    """A figure over M (columns) and G (rows); None where it was not measured or is illegal."""

    title: str
    M: tuple[str, ...]
    G: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> tuple[float, float]:
        return max(2.3, 0.5 * len(self.M) + 0.9), max(1.7, 0.34 * len(self.G) + 0.9)

    def draw(self, ax: Axes) -> None:
        _draw(ax, self)

    def legend(self) -> list[LegendEntry]:
        if all(value is not None for row in self.values for value in row):
            return []
        return [
            LegendEntry(Patch(facecolor="white", edgecolor=GREY, hatch="////", linewidth=0.5, label=_MISSING))
        ]


def heat_infos(frame: pd.DataFrame) -> dict[str, FigureInfo]:
    """The figures over M and G of each family of networks that spans a grid, by file name.

    A family shares all axes except M and G, which are equal in all stages. There are panels for parameters,
    FLOPs, and for each protocol the latency ratio (or the latency), the accuracy and the test loss.
    """
    measured = frame[list(_HEATS)].notna().any(axis=1)
    crossed = [not isinstance(M, PerStage) and not isinstance(G, PerStage) for M, G in _pairs(frame)]
    generated = frame[measured & frame["method"].isin(methods_with("M")) & np.array(crossed, dtype=np.bool_)]
    keys = ("backbone", *_NETWORK)
    infos = {}
    for positions in groups(generated, keys).values():
        family = generated.iloc[positions]
        panels = _heat_panels(family) if _is_grid(family) else []
        if panels:
            # Empty in a family: all stages.
            values = {name: distinct(family, name) for name in varying(generated, keys)}
            parts = [
                COLUMNS[name].say(distinct_values[0])
                for name, distinct_values in values.items()
                if distinct_values
            ]
            name = "_".join("".join(c if c.isalnum() else "_" for c in part) for part in ["heatmap", *parts])
            note = shared(family, ("backbone", *comparable_within(_HEATS), "seeds"))
            infos[name] = FigureInfo(tuple(panels), columns=min(3, len(panels)), note=note)
    return infos


def _pairs(frame: pd.DataFrame) -> Iterable[tuple[Any, Any]]:
    return zip(cells(frame, "M"), cells(frame, "G"), strict=True)


def _is_grid(frame: pd.DataFrame) -> bool:
    return len(varying(frame, ("M", "G"))) > 0 and len(groups(frame, ("M", "G"))) > 2


def _heat_panels(frame: pd.DataFrame) -> list[HeatPanel]:
    unwanted = "latency_ms" if distinct(frame, "latency_ratio") else "latency_ratio"
    panels = []
    for name in (name for name in _HEATS if name != unwanted):
        measured = frame[frame[name].notna()]
        keys = COLUMNS[name].within
        across = varying(measured, keys)
        for positions in groups(measured, keys).values():
            protocol = shared(measured.iloc[positions], across, usual=True)
            title = COLUMNS[name].label + (f"\n{protocol}" if protocol else "")
            panels.append(_heat_panel(frame, measured.iloc[positions], COLUMNS[name], title))
    return panels


def _heat_panel(grid: pd.DataFrame, frame: pd.DataFrame, column: Column, title: str) -> HeatPanel:
    Ms, Gs = sorted(distinct(grid, "M")), sorted(distinct(grid, "G"))
    cell = zip(cells(frame, "M"), cells(frame, "G"), cells(frame, column.name), strict=True)
    found = {(M, G): value for M, G, value in cell}
    values = [[found.get((M, G)) for M in Ms] for G in Gs]
    show = compact if column.kind == "count" else column.format
    return HeatPanel(
        title=title,
        M=tuple(str(M) for M in Ms),
        G=tuple(str(G) for G in Gs),
        values=tuple(tuple(None if v is None else float(v) for v in row) for row in values),
        texts=tuple(tuple("" if v is None else show(v) for v in row) for row in values),
    )


# --- drawing -----------------------------------------------------------------------------------------


def _draw(ax: Axes, panel: HeatPanel) -> None:
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
            inside = ax.text(position, row, text, ha="center", va="center", fontsize=7, color=ink)
            # It lies within its cell; measuring thousands of them takes seconds.
            inside.set_in_layout(False)
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
