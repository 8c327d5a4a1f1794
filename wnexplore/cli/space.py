"""wnexplore space: the size of a design space, and its points by their counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.axes import (
    PointsWhere,
    grid_options,
    overrides_of,
    refuse_axes_with_points,
)
from wnexplore.cli.options import comma_list
from wnexplore.cli.output import notify, say
from wnexplore.errors import InputError

if TYPE_CHECKING:
    from wnexplore.design.where import Condition
    from wnexplore.space.grid import Space
    from wnexplore.space.selection import Indices


@grid_options(after="file")
def space(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_NAME]", help="Sweep file, or a shipped one: quickstart.")
    ] = None,
    where: PointsWhere = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count", help="Only the number of points; with --where also of those that satisfy it."
        ),
    ] = False,
    pareto: Annotated[
        str | None, typer.Option(help="List only the Pareto front in these columns: params,flops.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="List a random sample of this size.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --sample.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV file of the listed points; by default all kept points, duplicates marked."),
    ] = None,
) -> None:
    """Count every point of a design space exactly, without building any.

    Shows the size of the space, the illegal points by rule, duplicates (points that are the same function),
    and the distribution of parameters and FLOPs over the points that satisfy --where (or the file's `where`);
    lists their Pareto front or a sample. Conditions on measured figures, such as latency_ratio, exclude
    nothing here.
    """
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep
    from wnexplore.files import check_writable
    from wnexplore.results.filters import condition
    from wnexplore.space.expansion import space_of
    from wnexplore.space.selection import check_objectives

    overrides = overrides_of(context.params)
    if file is None and not overrides:
        raise InputError("no space: name a sweep file, a shipped sweep or options such as --backbone")
    spec = load_sweep(None if file is None else find_sweep(file), overrides)
    refuse_axes_with_points(spec, overrides)
    listing = {"--pareto": pareto, "--sample": sample, "--out": out}
    requested = [option for option, value in listing.items() if value is not None]
    if count and requested:
        raise InputError(f"--count lists no points, but {requested[0]} does: leave one of them out")
    if pareto is not None and sample is not None:
        raise InputError("--pareto and --sample each list some of the points: leave one of them out")
    objectives = None if pareto is None else check_objectives(comma_list(pareto))
    wanted = None if spec.where is None else condition(spec.where)
    if out is not None:
        check_writable(out)
    found = space_of(spec)
    _report_size(found)
    # A space of any size can be sized; evaluating its points needs one that can be listed.
    if not count or wanted is not None:
        kept = _report_kept(found, spec.where, wanted)
        if not count:
            _report_points(found, kept, wanted, objectives, sample, seed, out)


def _report_size(space: Space) -> None:
    illegal = space.illegal()
    broken = sum(rule.points for rule in illegal)
    say(f"{space.size:,} points, {space.size - broken:,} legal, {broken:,} illegal")
    for rule in illegal:
        say(f"  {rule.points:,} break this: {rule.rule}")
        say(f"    {rule.example}: {rule.reason}")
    for network, operators in space.uncounted.items():
        say(f"not in FLOPs of {network}, though they may multiply matrices: {', '.join(operators)}")


def _report_kept(space: Space, where: str | None, wanted: Condition | None) -> Indices:
    """The points that are legal, distinct and not excluded; `InputError` if there are none."""
    import numpy as np

    from wnexplore.space.selection import open_points

    kept = open_points(space, wanted)
    doubles = np.flatnonzero(space.repeated)
    if len(doubles):
        one = int(doubles[0])
        say(
            f"{len(doubles):,} legal points are duplicates (the same function as another): counted once below"
        )
        say(f"  {space.point(one)} equals {space.point(int(space.first_like[one]))}")
    if where is not None:
        say(f"{len(kept):,} satisfy {where}")
    if len(kept) == 0:
        raise InputError("no point is left")
    return kept


def _report_points(
    space: Space,
    kept: Indices,
    wanted: Condition | None,
    pareto: list[str] | None,
    sample: int | None,
    seed: int,
    out: Path | None,
) -> None:
    from wnexplore.cli.show import print_table
    from wnexplore.cli.terminal import output
    from wnexplore.files import write_atomically
    from wnexplore.report.histogram import histogram
    from wnexplore.space.expansion import frame_of, to_csv
    from wnexplore.space.selection import front, open_points
    from wnexplore.space.selection import sample as sampled

    screen = output()
    for name in ("params", "flops"):
        width = max(10, min(72, screen.width - 2))
        text = histogram(getattr(space, name)[kept], name, width=width, ascii=screen.options.ascii_only)
        typer.echo(text)
    listed = kept
    if pareto is not None:
        listed = front(space, kept, pareto)
        say(f"{len(listed):,} on the Pareto front of {', '.join(pareto)}")
    elif sample is not None:
        listed = sampled(kept, sample, seed)
    elif out is not None:
        listed = open_points(space, wanted, doubles=True)
    if out is not None:
        write_atomically(out, to_csv(space, listed).encode())
        notify(f"wrote {len(listed):,} points to {out}")
    elif listed is not kept or len(kept) <= _MAX_LISTED:
        print_table(frame_of(space, listed), pareto=())


_MAX_LISTED = 50
