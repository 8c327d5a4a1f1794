"""Figures for papers: scatter plots with error bars and Pareto fronts, heat maps, learning curves."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from wnexplore.errors import InputError
from wnexplore.files import write_whole
from wnexplore.report.curve_info import curve_infos
from wnexplore.report.figure_info import FigureInfo
from wnexplore.report.heat_info import heat_infos
from wnexplore.report.rank_info import can_rank, rank_info
from wnexplore.report.render import STYLE, render
from wnexplore.report.scatter_info import scatter_info
from wnexplore.results.record import Record

DPI = 200
"""Dots per inch of a .png."""

# What would make the same figure another file the next time.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    color: str = "method",
    pareto: bool = True,
    strict: bool = False,
    logx: bool = False,
) -> Figure:
    """Column `y` over column `x`, a colour for each value of `color`, 95 % intervals as bars.

    With `pareto` a stepped line joins the Pareto-optimal points, if `x` and `y` both have a better
    direction, and rings mark others that are optimal for all that their intervals tell, unless
    `strict`. WeightNet's points are labelled (M, G). Rows of different devices, batch sizes or data
    sets have panels of their own where `x` or `y` depends on those; rows without a value are left
    out. Raises `InputError` if a column is unknown, holds text or is empty.
    """
    return render(scatter_info(frame, x, y, color=color, pareto=pareto, strict=strict, logx=logx))


def rank_disagreement(
    frame: pd.DataFrame, x: str = "flops", y: str = "latency_ms", *, color: str = "method"
) -> Figure:
    """The rank of each point in column `y` over its rank in column `x`, with Kendall's tau-b.

    Panels and colours are as in `scatter`. Raises `InputError` for a column that is unknown, empty or
    has no better direction, and where fewer than 3 points of one protocol have both.
    """
    return render(rank_info(frame, x, y, color=color))


def learning_curves(frame: pd.DataFrame, records: Iterable[Record]) -> Figure:
    """The loss and the tested top-1 over the epochs of the trainings behind the rows of `frame`.

    A line for each variant, the mean over its seeds with a band; `records` are those that `frame` was made
    from. Raises `InputError` where no training has a curve of 2 epochs or more.
    """
    infos = curve_infos(frame, records)
    if not infos:
        raise InputError("nothing to plot: no row has the losses, or the tested top-1, of 2 epochs or more")
    return render(infos["learning_curves"])


def standard_set(
    frame: pd.DataFrame, records: Iterable[Record] = (), *, strict: bool = False
) -> dict[str, Figure]:
    """The figures that `frame` has the data for, by file name without suffix.

    accuracy: top-1 over FLOPs and over parameters, side by side; accuracy_latency; latency_flops;
    rank_disagreement of latency and FLOPs, from 3 points of one protocol on; parameters_flops where
    nothing was trained or timed; heatmap: every figure over M and G (with more than one backbone
    heatmap_NAME); learning_curves, where `records`, those that `frame` was made from, have 2 epochs or
    more. `strict` is as in `scatter`. Raises `InputError` if not even a count is there.
    """
    counted = _has(frame, "params", "flops")
    infos: dict[str, FigureInfo] = {}
    if _has(frame, "top1", "flops") and _has(frame, "top1", "params"):
        infos["accuracy"] = _accuracy(frame, strict)
    if _has(frame, "top1", "latency_ms"):
        infos["accuracy_latency"] = scatter_info(frame, "latency_ms", "top1", strict=strict)
    if _has(frame, "latency_ms", "flops"):
        infos["latency_flops"] = scatter_info(frame, "flops", "latency_ms", pareto=False)
    if can_rank(frame):
        infos["rank_disagreement"] = rank_info(frame)
    if not infos and counted:
        infos["parameters_flops"] = scatter_info(frame, "flops", "params", pareto=False)
    infos |= heat_infos(frame) | curve_infos(frame, records)
    if not infos:
        raise InputError("nothing to plot: no row has counts, latencies or accuracies")
    return {name: render(info) for name, info in infos.items()}


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` to `path`, whole: .png (200 dpi), .svg or .pdf, the same bytes every time.

    Raises `InputError` for another suffix or a path that can't be written, `RunError` for a full disk.
    """
    check_suffix(path)
    suffix = Path(path).suffix.lower()
    data = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(data, format=suffix[1:], dpi=DPI, metadata=_METADATA[suffix])
    write_whole(path, data.getvalue())


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise `InputError` for a file name that doesn't say .png, .svg or .pdf."""
    if Path(path).suffix.lower() not in _METADATA:
        raise InputError(
            f"can't save a figure as {os.fspath(path)!r}: its name must end in .png, .svg or .pdf"
        )


def _accuracy(frame: pd.DataFrame, strict: bool) -> FigureInfo:
    left, right = (scatter_info(frame, cost, "top1", strict=strict) for cost in ("flops", "params"))
    panels = [panel for pair in zip(left.panels, right.panels, strict=False) for panel in pair]
    # Only one data set's accuracies share an axis.
    return FigureInfo(tuple(panels), columns=2, note=left.note, share_y=len(panels) == 2)


def _has(frame: pd.DataFrame, *names: str) -> bool:
    return bool(frame[list(names)].notna().all(axis=1).any())
