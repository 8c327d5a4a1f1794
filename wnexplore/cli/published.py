"""wnexplore published: compare our counts with the published ones."""

from __future__ import annotations

from typing import Annotated

import typer


def published(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array on standard output.")] = False,
) -> None:
    """Count every row of the published table and compare with the published figures.

    For each multiplier M/G the legal (M, G) with the nearest counts is used.
    """
    import json

    from wnexplore.study.published_counts import compare_published

    comparisons = list(compare_published())
    if as_json:
        typer.echo(json.dumps([comparison.to_dict() for comparison in comparisons], indent=2))
        return
    from wnexplore.cli.terminal import output
    from wnexplore.report.published_table import render_comparisons

    for part in render_comparisons(comparisons):
        output().print(part)
