"""Generated kernels layer by layer, in the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from wnexplore.results.columns import decimals, prefixed
from wnexplore.results.escape import csv_cell, visible
from wnexplore.results.layer_kernels import KernelAnalysis, LayerKernels


def to_csv(analysis: KernelAnalysis) -> str:
    """One row per layer, unrounded; empty where there is no pair or no range."""
    rows = [layer.to_dict() for layer in analysis.layers]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def render(analysis: KernelAnalysis) -> Iterator[Table | Text]:
    """The parts of an analysis, to be printed in order."""
    yield Text(visible(analysis.network), style="bold")
    yield _table(analysis)
    pairs = max(layer.cosines.size for layer in analysis.layers)
    yield Text(
        f"{visible(analysis.data)}: {analysis.samples} test images, {pairs:,} pairs of them"
        f" ({analysis.device}, {analysis.precision}); cosine: similarity of the kernels of two images\n"
        "std: of an entry of alpha over the images, mean over entries; dead: constant entries; saturated: at"
        " an end of their range",
        style="dim",
    )


_COSINES = ("cosine_min", "cosine_within_class", "cosine_between_classes")


def _table(analysis: KernelAnalysis) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    for heading in (
        *("entries", "lambda", "cosine", "min", "within class", "between"),
        *("alpha", "std", "dead", "saturated"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in analysis.layers:
        row = layer.to_dict()
        cosine, std = row["cosine_mean"], row["cosine_std"]
        # As many as show the distance from 1.
        digits = 4 if not std else min(8, max(4, decimals(std, 2)))
        spread = "" if cosine is None else f"{cosine:.{digits}f} ± {std:.{digits}f}"
        table.add_row(
            visible(layer.name),
            _shape(layer),
            prefixed(layer.inputs),
            str(layer.inputs_per_group),
            spread,
            *("" if row[name] is None else f"{row[name]:.{digits}f}" for name in _COSINES),
            f"{layer.alpha_mean:.3f}",
            f"{row['alpha_std']:.{decimals(row['alpha_std'])}f}" if row["alpha_std"] >= 1e-5 else "0",
            *(_share(row[name]) for name in ("alpha_dead", "alpha_saturated")),
        )
    return table


def _shape(layer: LayerKernels) -> str:
    """ "64→128 3×3 /2 g1": channels, kernel, stride, groups."""
    (high, wide), (down, across) = layer.kernel_size, layer.stride
    stride = "" if down == across == 1 else f" /{down}" if down == across else f" /{down}×{across}"
    return f"{layer.in_channels}→{layer.out_channels} {high}×{wide}{stride} g{layer.groups}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
