"""Figures for papers: scatter plots with intervals and Pareto fronts, heat maps, learning curves, kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from matplotlib.figure import Figure

from wnexplore.errors import InputError
from wnexplore.report.figure_files import drawn
from wnexplore.report.heatmap import heat_infos
from wnexplore.report.kernel_alphas import alpha_info, render_alpha
from wnexplore.report.kernel_map import map_info, render_map
from wnexplore.report.kernel_similarity import render_similarity, similarity_info
from wnexplore.report.learning_curves import curve_infos
from wnexplore.report.panels import FigureInfo, render
from wnexplore.report.published_order import order_info
from wnexplore.report.rank_disagreement import can_rank, rank_info
from wnexplore.report.scatter import scatter_info
from wnexplore.report.second_process import SecondProcess, attempt
from wnexplore.results.frame import score_of
from wnexplore.results.layer_kernels import KernelAnalysis
from wnexplore.results.published_ranking import PublishedRanking
from wnexplore.results.record import Record
from wnexplore.results.uncollected import uncollected


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
    """Column `y` over column `x`, one colour per value of `color`, 95 % intervals as bars.

    With `pareto` a stepped line joins the Pareto-optimal points, if `x` and `y` both have a better
    direction, and rings mark others that may be optimal within their intervals, unless `strict`. WeightNet's
    points are labelled (M, G). Rows of different devices, batch sizes or data sets have separate panels where
    `x` or `y` depends on those; rows without a value are left out. Raises `InputError` if a column is
    unknown, holds text or is empty.
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


def published_order(rankings: Sequence[PublishedRanking]) -> Figure:
    """The figures of a run's designs over their published top-1, a panel for each of `rankings`."""
    return render(order_info(rankings))


def learning_curves(frame: pd.DataFrame, records: Iterable[Record]) -> Figure:
    """Training loss, top-1 or AP, and test loss over the epochs of the trainings behind the rows of `frame`.

    One line per variant, the mean over its seeds with a band; `records` are those that `frame` was made from.
    Raises `InputError` where no training has a curve of 2 epochs or more.
    """
    infos = curve_infos(frame, records)
    if not infos:
        raise InputError("nothing to plot: no row has the losses, or the tested top-1, of 2 epochs or more")
    return render(infos["learning_curves"])


def standard_set(
    frame: pd.DataFrame, records: Iterable[Record] = (), *, strict: bool = False
) -> dict[str, Figure]:
    """The figures for which `frame` has data, by file name without suffix.

    accuracy: top-1 over FLOPs and over parameters, side by side; accuracy_latency; latency_flops;
    rank_disagreement of latency and FLOPs, from 3 points of one protocol on; parameters_flops where
    nothing was trained or timed; heatmap: every figure over M and G (with more than one backbone
    heatmap_NAME); learning_curves, where `records`, those that `frame` was made from, have 2 epochs or
    more. `strict` is as in `scatter`. Raises `InputError` if there are not even counts.
    """
    with uncollected():
        infos = dict(_standard_infos(frame, records, strict))
    return {name: render(info) for name, info in infos.items()}


def standard_files(
    frame: pd.DataFrame,
    records: Iterable[Record] = (),
    suffix: str = ".png",
    *,
    strict: bool = False,
    helper: SecondProcess | None = None,
) -> Iterator[tuple[str, bytes]]:
    """The files of the figures of `standard_set`, in its order, of type .png, .svg or .pdf.

    `helper` draws each as soon as it is described; once all are, those that it hasn't begun are drawn here,
    from the last one on. The files are the same without it: what it fails to draw is drawn again in its turn,
    with the same warnings and errors. All are described before the first one is returned.
    """
    infos = _standard_infos(frame, records, strict)
    if helper is None:
        with uncollected():
            described = dict(infos)
        for name, info in described.items():
            yield name, drawn(info, suffix)
        return
    helping = ThreadPoolExecutor(1)
    try:
        with uncollected():
            handed = {name: (info, helping.submit(helper.draw, info, suffix)) for name, info in infos}
        ours = {
            name: attempt(info, suffix) for name, (info, file) in reversed(handed.items()) if file.cancel()
        }
        for name, (info, file) in handed.items():
            yield name, (ours[name] if name in ours else file.result()) or drawn(info, suffix)
    except BaseException:
        helper.end()
        raise
    finally:
        helping.shutdown(cancel_futures=True)


def kernel_figures(analysis: KernelAnalysis) -> dict[str, Figure]:
    """The figures of generated kernels by file name: similarity, alpha, and tsne where there is a map.

    Raises `RunError` if every kernel is zero.
    """
    figures = {
        "similarity": render_similarity(similarity_info(analysis)),
        "alpha": render_alpha(alpha_info(analysis)),
    }
    shown = map_info(analysis)
    return figures if shown is None else figures | {"tsne": render_map(shown)}


def _standard_infos(
    frame: pd.DataFrame, records: Iterable[Record], strict: bool
) -> Iterator[tuple[str, FigureInfo]]:
    """The figures of `standard_set` by name, one after another. Raises `InputError` if there is none."""
    measured = False
    score = score_of(frame)
    if _has(frame, score, "flops") and _has(frame, score, "params"):
        yield "accuracy", _accuracy(frame, strict)
        measured = True
    if _has(frame, score, "latency_ms"):
        yield "accuracy_latency", scatter_info(frame, "latency_ms", score, strict=strict)
        measured = True
    if _has(frame, "latency_ms", "flops"):
        yield "latency_flops", scatter_info(frame, "flops", "latency_ms", pareto=False)
        measured = True
    if can_rank(frame):
        yield "rank_disagreement", rank_info(frame)
        measured = True
    if not measured and _has(frame, "params", "flops"):
        yield "parameters_flops", scatter_info(frame, "flops", "params", pareto=False)
        measured = True
    heats = heat_infos(frame)
    yield from heats.items()
    curves = curve_infos(frame, records)
    yield from curves.items()
    if not (measured or heats or curves):
        raise InputError("nothing to plot: no row has counts, latencies or accuracies")


def _accuracy(frame: pd.DataFrame, strict: bool) -> FigureInfo:
    left, right = (scatter_info(frame, cost, score_of(frame), strict=strict) for cost in ("flops", "params"))
    panels = [panel for pair in zip(left.panels, right.panels, strict=False) for panel in pair]
    # Accuracies share an axis only within one data set.
    return FigureInfo(tuple(panels), columns=2, note=left.note, share_y=len(panels) == 2)


def _has(frame: pd.DataFrame, *names: str) -> bool:
    return bool(frame[list(names)].notna().all(axis=1).any())
