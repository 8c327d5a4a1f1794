"""A figure over M and G as a heat map: the panels as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from wnexplore.design.methods import methods_with
from wnexplore.design.multiplier import PerStage
from wnexplore.report.figure_info import FigureInfo, HeatPanel
from wnexplore.results.columns import COLUMNS, Column, compact, comparable_within
from wnexplore.results.frame import cells, distinct, groups, shared, varying

_NETWORK = ("stages", "stem", "resolution", "num_classes", "reduction", "activation", "depthwise")
_HEATS = ("params", "flops", "latency_ratio", "latency_ms", "top1")


def heat_infos(frame: pd.DataFrame) -> dict[str, FigureInfo]:
    """For each family of networks that spans a grid its figures over M and G, by a name for it.

    A family shares all but M and G, which are the same in all its stages. Of the figures, parameters,
    FLOPs, the latency over the plain network's (or the latency) of each protocol and the accuracy of each
    have a panel.
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
            parts = [COLUMNS[name].say(distinct(family, name)[0]) for name in varying(generated, keys)]
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
        for positions in groups(measured, keys).values():
            protocol = shared(measured.iloc[positions], varying(measured, keys), usual=True)
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
