"""The published table compared with our counts, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from wnexplore.design.published_figures import PublishedComparison


def render_comparisons(comparisons: Sequence[PublishedComparison]) -> Iterator[Table | Text]:
    """A table with one row per published row, then a line per figure that doesn't agree."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("source")
    for heading in ("backbone", "method", "×"):
        table.add_column(heading, no_wrap=True)
    for heading in ("M", "G", "params M", "published", "FLOPs M", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("agree", no_wrap=True)
    for comparison in comparisons:
        row, axes = comparison.row, comparison.point.to_dict()
        table.add_row(
            _short(row.source),
            row.backbone,
            row.method,
            f"{row.multiplier}×" if row.multiplier else "",
            *("" if axes[axis] is None else str(axes[axis]) for axis in ("M", "G")),
            f"{comparison.params / 1e6:.3f}",
            str(row.params_m),
            f"{comparison.flops / 1e6:.2f}",
            str(row.flops_m),
            _verdict(comparison),
        )
    yield table
    apart = [
        comparison for comparison in comparisons if not (comparison.params_agree and comparison.flops_agree)
    ]
    agree = len(comparisons) - len(apart)
    yield Text(f"\n{agree} of {len(comparisons)} rows agree to the digits printed.")
    for comparison in apart:
        yield Text(f"{comparison.point}: {', '.join(_differences(comparison))}")


def _short(source: str) -> str:
    return source.removesuffix(" README")


def _verdict(comparison: PublishedComparison) -> str:
    apart = [
        n
        for n, agrees in (("params", comparison.params_agree), ("FLOPs", comparison.flops_agree))
        if not agrees
    ]
    return f"{' and '.join(apart)} differ" if apart else "yes"


def _differences(comparison: PublishedComparison) -> Iterator[str]:
    figures = (
        (
            "parameters",
            comparison.params,
            comparison.row.params_m,
            comparison.params_difference,
            comparison.params_agree,
        ),
        (
            "FLOPs",
            comparison.flops,
            comparison.row.flops_m,
            comparison.flops_difference,
            comparison.flops_agree,
        ),
    )
    for name, count, published, difference, agrees in figures:
        if not agrees:
            by = count / 1e6 - float(published)
            text = f"{count / 1e6:.3f} M counted, {published} M published"
            yield f"{name} {text} ({by:+.3f} M, {difference:+.2%})"
