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
    from collections.abc import Sequence

    from wnexplore.design.point import DesignPoint
    from wnexplore.design.where import Condition
    from wnexplore.space.grid import Space
    from wnexplore.space.prediction import Calibration, Predictions
    from wnexplore.space.selection import Indices


@grid_options(after="file")
def space(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_NAME]", help="Sweep file, or a shipped one: quickstart.")
    ] = None,
    where: PointsWhere = None,
    latency: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Predict latencies from those of a run: wnexplore calibrate's."),
    ] = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count", help="Only the number of points; with --where also of those that satisfy it."
        ),
    ] = False,
    pareto: Annotated[
        str | None, typer.Option(help="List only the Pareto front in these columns: params,flops,latency_ms.")
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
    nothing here, unless --latency names a run directory whose latencies can predict them: wnexplore calibrate
    makes one. Predicted latencies have 95 % intervals for what would be measured. Of a run with several
    protocols --where chooses one: "batch_size == 16 and latency_ratio < 1.2".
    """
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep
    from wnexplore.files import check_writable
    from wnexplore.results.filters import condition
    from wnexplore.results.store import read_records
    from wnexplore.space.expansion import space_of
    from wnexplore.space.prediction import calibration
    from wnexplore.space.selection import check_objectives, open_points

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
    objectives = None if pareto is None else check_objectives(comma_list(pareto), latency is not None)
    wanted = None if spec.where is None else condition(spec.where)
    if out is not None:
        check_writable(out)
    timed = (
        None
        if latency is None
        else calibration(read_records(latency, samples_of=["latency"]), str(latency), wanted)
    )
    found = space_of(spec)
    _report_size(found)
    # A space of any size can be sized; evaluating its points needs one that can be listed.
    if not count or wanted is not None:
        predicted = None if timed is None else timed.predict(found, open_points(found, wanted))
        kept = _report_kept(found, spec.where, wanted, predicted)
        if timed is not None:
            _report_fits(timed, found.baselines(kept))
        if not count:
            _report_points(found, kept, wanted, predicted, objectives, sample, seed, out)


def _report_size(space: Space) -> None:
    illegal = space.illegal()
    broken = sum(rule.points for rule in illegal)
    say(f"{space.size:,} points, {space.size - broken:,} legal, {broken:,} illegal")
    for rule in illegal:
        say(f"  {rule.points:,} break this: {rule.rule}")
        say(f"    {rule.example}: {rule.reason}")
    for network, operators in space.uncounted.items():
        say(f"not in FLOPs of {network}, though they may multiply matrices: {', '.join(operators)}")


def _report_kept(
    space: Space, where: str | None, wanted: Condition | None, predicted: Predictions | None
) -> Indices:
    """The points that are legal, distinct and not excluded; `InputError` if there are none."""
    import numpy as np

    from wnexplore.space.selection import open_points, truth

    kept = open_points(space, wanted, predicted=predicted)
    unknown = 0
    if predicted is not None:
        known = predicted.known[kept]
        kept, unknown = kept[known], int((~known).sum())
    doubles = np.flatnonzero(space.repeated)
    if len(doubles):
        one = int(doubles[0])
        say(
            f"{len(doubles):,} legal points are duplicates (the same function as another): counted once below"
        )
        say(f"  {space.point(one)} equals {space.point(int(space.first_like[one]))}")
    if unknown:
        say(f"{unknown:,} are of a method, or larger, than any timed network's stages: none is predicted")
    if where is not None:
        say(f"{len(kept):,} satisfy {where}")
    if predicted is not None and wanted is not None and len(kept):
        surely = int(truth(space, wanted, predicted, surely=True).holds[kept].sum())
        if surely < len(kept):
            say(f"  {surely:,} of them wherever in their intervals the latencies are")
    if len(kept) == 0:
        raise InputError("no point is left")
    return kept


def _report_fits(timed: Calibration, plains: Sequence[DesignPoint]) -> None:
    """What the predictions of networks made of `plains` rest on."""
    from wnexplore.report.calibration_lines import fit_line, protocol_line, speed_line

    say(f"latencies are predicted from those in {timed.run}: {protocol_line(timed.protocol)}")
    for plain in plains:
        say(f"  {plain}: {fit_line(timed.fits[plain].foretold, timed.fits[plain].half_widths)}")
        changed = speed_line(*timed.plain_times(plain))
        if changed:
            say(f"  ⚠ {changed}")


def _report_points(
    space: Space,
    kept: Indices,
    wanted: Condition | None,
    predicted: Predictions | None,
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
    from wnexplore.space.prediction import PREDICTED
    from wnexplore.space.selection import front, open_points, overlapping
    from wnexplore.space.selection import sample as sampled

    screen = output()
    for name in ("params", "flops"):
        width = max(10, min(72, screen.width - 2))
        text = histogram(getattr(space, name)[kept], name, width=width, ascii=screen.options.ascii_only)
        typer.echo(text)
    if predicted is not None:
        ratios = predicted.ratio[kept]
        typer.echo(f"latency_ratio, predicted: {ratios.min():.3f} to {ratios.max():.3f}")
        unseen = int(predicted.unseen[kept].sum())
        if unseen:
            say(f"{unseen:,} have a stage as no timed network has it: their intervals are wider")
    listed, alike = kept, None
    if pareto is not None:
        listed = front(space, kept, pareto, predicted)
        say(f"{len(listed):,} on the Pareto front of {', '.join(pareto)}")
        if predicted is not None and set(pareto) & set(PREDICTED):
            alike = overlapping(predicted, listed)
            _report_alike(listed, alike)
    elif sample is not None:
        listed = sampled(kept, sample, seed)
    elif out is not None:
        listed = open_points(space, wanted, doubles=True, predicted=predicted)
        listed = listed if predicted is None else listed[predicted.known[listed]]
    if out is not None:
        write_atomically(out, to_csv(space, listed, predicted, alike).encode())
        notify(f"wrote {len(listed):,} points to {out}")
    elif listed is not kept or len(kept) <= _MAX_LISTED:
        print_table(frame_of(space, listed, predicted), pareto=())


def _report_alike(front: Indices, alike: Sequence[Sequence[int]]) -> None:
    """Which points of a front can't be told apart by their latencies, by their places in it."""
    unsure = [at for at, others in enumerate(alike, start=1) if others]
    if not unsure:
        say("all of them can be told apart by the intervals of their latencies")
        return
    if all(len(others) == len(front) - 1 for others in alike):
        say("no two of them can be told apart by the intervals of their latencies")
        return
    place = {index: at for at, index in enumerate(front.tolist(), start=1)}
    say(f"{len(unsure)} of them can't be told apart from others there by their latencies' intervals:")
    for at in unsure[:_MAX_ALIKE]:
        others = [str(place[index]) for index in alike[at - 1]]
        more = f" and {len(others) - _MAX_ALIKE} more" if len(others) > _MAX_ALIKE else ""
        say(f"  the {at}. from {', '.join(others[:_MAX_ALIKE])}{more}")
    if len(unsure) > _MAX_ALIKE:
        say("  and so on: column alike of --out has all of them")


_MAX_ALIKE = 10
_MAX_LISTED = 50
