"""wnexplore calibrate: time few networks of a space, to predict the latencies of all others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.axes import (
    AXIS_PLACES,
    TIMING_PLACES,
    PointsWhere,
    grid_options,
    overrides_of,
    timing_options,
)
from wnexplore.cli.elsewhere import LatencyOn, RayOption, TaskHours, WorkersOption, elsewhere
from wnexplore.cli.measuring import measure_planned
from wnexplore.cli.output import notify, say
from wnexplore.cli.stops import resumable
from wnexplore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wnexplore.results.record import Record
    from wnexplore.study.calibrate import CalibrationPlan
    from wnexplore.study.sweep import Measurement


@grid_options(after="file")
@timing_options(after="minutes", sweep=True)
def calibrate(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE_OR_NAME]", help="Sweep file of the space, or a shipped one."),
    ] = None,
    where: PointsWhere = None,
    networks: Annotated[
        int, typer.Option(min=1, max=100_000, help="Networks to time of each plain network, at least 19.")
    ] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of networks.")] = 0,
    minutes: Annotated[
        float | None, typer.Option(help="Time for all measurements, instead of --seconds for each.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/calibrate-NAME.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Measure failed ones again.")] = False,
    workers: WorkersOption = None,
    ray: RayOption = None,
    latency_on: LatencyOn = None,
    task_hours: TaskHours = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be measured, and how long.")
    ] = False,
) -> None:
    """Time few networks of a space, from which wnexplore space --latency RUN predicts all others.

    The networks are points of the space, chosen so that each stage's setting is in several, and are timed in
    rounds with their plain network under each protocol of the file, as a sweep's are: stop and resume at
    will. At the end it says how well they foretell each other. The latencies of any run directory predict;
    the fit is made anew from its records each time, and none is stored.
    """
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep
    from wnexplore.results.store import FILE_NAME, read_records
    from wnexplore.study.calibrate import GROUP, calibration_plan
    from wnexplore.study.sweep import check_sizes, plan, remaining

    places = AXIS_PLACES | TIMING_PLACES
    overrides = overrides_of(context.params, places)
    if file is None and not overrides:
        raise InputError("no space: name a sweep file, a shipped sweep or options such as --backbone")
    if minutes is not None:
        if context.params["seconds"] is not None:
            raise InputError("--minutes sets the seconds of each measurement: leave --seconds out")
        if not 0 < minutes < _MOST_MINUTES:
            raise InputError(f"--minutes is {minutes:g}: expected a number above 0, below {_MOST_MINUTES:,}")
    path = None if file is None else find_sweep(file)
    spec = load_sweep(path, overrides)
    if context.params["device"] is not None:
        spec = spec.on_device(context.params["device"])
    directory = out or Path("runs") / f"calibrate-{'options' if path is None else path.stem}"
    with elsewhere(spec, workers, ray, latency_on, task_hours, dry_run=dry_run) as place:
        chosen = calibration_plan(spec, networks, seed, minutes, place.hardware)
        planned = plan(chosen.spec, hardware=place.hardware)
        begun = (directory / FILE_NAME).exists()
        records = read_records(directory, samples_of=()) if begun else []
        todo = remaining(planned, {record.key: record.status for record in records}, retry_failed)
        if place.hardware.here:
            check_sizes(chosen.spec, planned, todo)
        _say_plan(chosen, todo)
        if dry_run:
            notify("nothing was written")
            return
        made, failed = measure_planned(
            chosen.spec, planned, directory, place, retry_failed, False, together=GROUP
        )
    with resumable(lambda: f"all is measured and kept in {directory}"):
        keys = {measurement.key for measurement in planned.measurements}
        measured = [record for record in read_records(directory) if record.key in keys]
        _say_fits(measured, directory, failed)
    if failed and len(failed) == made:
        raise typer.Exit(1)


_MOST_MINUTES = 100_000
_PASSES = 23
"""Fewest passes of a network: three of warm-up, and those before which no narrow interval is trusted."""


def _say_plan(chosen: CalibrationPlan, todo: Sequence[Measurement]) -> None:
    from wnexplore.space.balanced import balance

    for plain, points in chosen.networks.items():
        found = balance(points)
        often = f"{found.fewest}" if found.fewest == found.most else f"{found.fewest} to {found.most}"
        say(
            f"{plain}: {found.networks} networks; {found.settings} settings of stages, each in {often} of"
            f" them (rank {found.rank})"
        )
    left = [measurement for measurement in todo if measurement.figure == "latency"]
    of = chosen.protocols * len(chosen.spec.points or ())
    most = chosen.most_seconds / of * len(left)
    say(
        f"{len(left)} of {of} latencies to measure, each of at least {_PASSES} passes and at most"
        f" {chosen.seconds:.3g} s and a fourth of that to warm up (more if 10 passes take longer):"
        f" {most / 60:.1f} minutes at most, and the building and counting of {len(chosen.spec.points or ())}"
        " networks"
    )


def _say_fits(measured: Sequence[Record], directory: Path, failed: Sequence[Record]) -> None:
    """How well the networks foretell each other."""
    from wnexplore.report.calibration_lines import fit_line, protocol_line, speed_line
    from wnexplore.space.prediction import calibrations

    for record in failed:
        notify(f"failed: {record.point}: {record.error} (--retry-failed measures it again)")
    for found in calibrations(measured, str(directory)):
        say(protocol_line(found.protocol))
        for plain, timed in found.timed.items():
            known = found.fits.get(plain)
            if known is None:
                say(f"  {plain}: {len(timed)} networks, too few to predict from")
            else:
                say(f"  {plain}: {fit_line(known.foretold, known.half_widths)}")
            changed = speed_line(*found.plain_times(plain))
            if changed:
                say(f"  ⚠ {changed}")
    notify(f"wnexplore space FILE --latency {shlex.quote(str(directory))} predicts all points of a space")
