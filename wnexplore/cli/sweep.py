"""wnexplore sweep: measure every point of a sweep; stop and resume at will."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.axes import (
    AXIS_PLACES,
    TIMING_PLACES,
    PointsWhere,
    grid_options,
    overrides_of,
    refuse_axes_with_points,
    timing_options,
)
from wnexplore.cli.elsewhere import LatencyOn, RayOption, TaskHours, WorkersOption, elsewhere
from wnexplore.cli.measuring import MOST_TOLD, measure_planned
from wnexplore.cli.options import DataPath, DataText, Download, SkipDamaged, Sort, comma_list
from wnexplore.cli.output import named_damaged, notify, say
from wnexplore.cli.recipe import RECIPE_PLACES, SCHEDULE_PLACES, training_options, with_replaced
from wnexplore.cli.stops import resumable
from wnexplore.errors import InputError, shown

if TYPE_CHECKING:
    from wnexplore.design.point import DesignPoint
    from wnexplore.design.protocol import TrainSpec
    from wnexplore.design.sweep_file import SweepSpec
    from wnexplore.results.record import Record
    from wnexplore.study.hardware import Hardware
    from wnexplore.study.sweep import Measurement, Plan


@grid_options(after="file")
@timing_options(after="latency", sweep=True)
@training_options(after="seeds", only={*RECIPE_PLACES, *SCHEDULE_PLACES})
def sweep(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_NAME]", help="Sweep file, or a shipped one: quickstart.")
    ] = None,
    where: PointsWhere = None,
    latency: Annotated[bool | None, typer.Option("--latency/--no-latency", help="Measure latency.")] = None,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Train each point.")] = None,
    data: DataText = None,
    data_path: DataPath = None,
    download: Download = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of one training.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings per point, each with its seed.")] = None,
    jobs: Annotated[
        str | None,
        typer.Option(metavar="auto|N", help="Concurrent trainings; auto: as many as cores are free."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/NAME.")] = None,
    sort: Sort = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Measure failed ones again.")] = False,
    skip_damaged: SkipDamaged = False,
    workers: WorkersOption = None,
    ray: RayOption = None,
    latency_on: LatencyOn = None,
    task_hours: TaskHours = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html at the end, a page to click in.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be measured.")] = False,
) -> None:
    """Measure every point of a sweep: parameters, FLOPs, latency, top-1 or AP after a short training.

    FILE_OR_NAME is a sweep file or a shipped sweep (quickstart, published, shufflenet_grid,
    resnet50_grid); options override it, or define a sweep without one. Results are saved in a run directory
    as they are measured: the same command resumes where it was stopped. With --skip-damaged damaged records
    are set aside and measured again.
    """
    from wnexplore.cli.show import report_damaged
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep
    from wnexplore.results.columns import column
    from wnexplore.results.store import FILE_NAME, read_records

    overrides = with_replaced(overrides_of(context.params, _PLACES))
    if file is None and not overrides:
        raise InputError(
            "nothing to sweep: name a sweep file, a shipped sweep (quickstart, published, shufflenet_grid,"
            " resnet50_grid) or options such as --backbone"
        )
    path = None if file is None else find_sweep(file)
    spec = load_sweep(path, overrides)
    refuse_axes_with_points(spec, overrides)
    if context.params["device"] is not None:
        spec = spec.on_device(context.params["device"])
    directory = out or _run_directory(path)
    if sort is not None:
        for name in comma_list(sort):
            column(name.removeprefix("-"))
    damaged: list[str] | None = [] if skip_damaged else None
    begun = (directory / FILE_NAME).exists()
    records = read_records(directory, damaged, samples_of=()) if begun else []
    with elsewhere(spec, workers, ray, latency_on, task_hours, dry_run=dry_run) as place:
        planned, todo = _plan(spec, records, retry_failed, place.hardware)
        if dry_run:
            report_damaged(damaged or [])
            _show_plan(planned, todo, directory)
            if spec.train is not None and spec.train.target is not None:
                notify(_seeds_to_come(spec.train, planned, todo, records))
            return
        # A run takes hours, and there may be many.
        del records
        made, failed = measure_planned(spec, planned, directory, place, retry_failed, bool(damaged))
    with resumable(lambda: f"all is measured and kept in {directory}"):
        _show_results(spec, directory, planned, failed, sort, report=report)
    if failed and len(failed) == made:
        raise typer.Exit(1)


_PLACES: dict[str, tuple[str, ...]] = {
    **AXIS_PLACES,
    **TIMING_PLACES,
    "data": ("train", "data"),
    "data_path": ("train", "path"),
    "download": ("train", "download"),
    "epochs": ("train", "epochs"),
    "seeds": ("train", "seeds"),
    **RECIPE_PLACES,
    **SCHEDULE_PLACES,
    "jobs": ("train", "jobs"),
    "latency": ("latency",),
    "train": ("train",),
}
"""Parameter of `sweep` -> the path in the sweep file that it sets; complete figures last, so that --no-train
wins."""


def _run_directory(path: Path | None) -> Path:
    """The default run directory of a sweep: runs/NAME, or the folder of its file if that is a run's."""
    from wnexplore.results.store import FILE_NAME

    if path is None:
        return Path("runs/sweep")
    return path.parent if (path.parent / FILE_NAME).exists() else Path("runs") / path.stem


def _plan(
    spec: SweepSpec, records: list[Record], retry_failed: bool, hardware: Hardware
) -> tuple[Plan, list[Measurement]]:
    """The plan, and its measurements without a record in `records`."""
    from wnexplore.study.sweep import check_sizes, plan, remaining
    from wnexplore.training.training_record import threads_before

    planned = plan(spec, threads_before(records) if spec.train is not None else {}, hardware)
    left_out = planned.expansion
    if planned.points:
        todo = remaining(planned, {record.key: record.status for record in records}, retry_failed)
        if hardware.here:
            check_sizes(spec, planned, todo)
        return planned, todo
    if left_out.excluded:
        raise InputError(f"no point of this sweep satisfies {spec.where}: {left_out.excluded} are legal")
    point, reason = left_out.skipped[0]
    raise InputError(f"no legal point in this sweep: {point}: {reason}")


def _show_plan(planned: Plan, todo: list[Measurement], directory: Path) -> None:
    by_point: dict[DesignPoint, list[Measurement]] = {point: [] for point in planned.points}
    for measurement in todo:
        by_point[measurement.point].append(measurement)
    for point, measurements in by_point.items():
        say(f"{point}: {'; '.join(_steps(measurements)) or 'done'}")
    _say_skipped(planned)
    notify(
        f"{len(planned.points)} points, {len(todo)} measurements to make,"
        f" {len(planned.measurements) - len(todo)} done in {directory}; nothing was written"
    )


def _seeds_to_come(train: TrainSpec, planned: Plan, todo: list[Measurement], records: list[Record]) -> str:
    from wnexplore.study.sweep import trainings_left

    least, most = trainings_left(train, planned, todo, records)
    if most == 0:
        return "all differences are decided: no training is left"
    count = f"{most} trainings" if least == most else f"at least {least} and at most {most} trainings"
    ends = "" if train.hours is None else f", or until all took {train.hours:g} hours"
    return (
        f"with the seeds added until differences are known, up to {train.most_seeds} per network: {count}"
        f" in all{ends}"
    )


def _steps(todo: list[Measurement]) -> Iterator[str]:
    """The measurements of a point; consecutive seeds as one step."""
    yield from (str(m) for m in todo if m.figure != "training")
    trainings = [m for m in todo if m.figure == "training"]
    # Within a run of consecutive seeds, seed minus position is constant.
    for _, run in groupby(enumerate(trainings), lambda numbered: numbered[1].protocol["seed"] - numbered[0]):
        first, *others = (m for _, m in run)
        if len(others) < 3:
            yield from (str(m) for m in (first, *others))
        else:
            seeds = f"seeds {first.protocol['seed']} to {others[-1].protocol['seed']}"
            yield f"training on {first.protocol['dataset']}, {seeds}"


def _show_results(
    spec: SweepSpec, directory: Path, planned: Plan, failed: list[Record], sort: str | None, *, report: bool
) -> None:
    from wnexplore.cli.report import write_report
    from wnexplore.cli.show import print_table, write_results
    from wnexplore.report.known_differences import seed_lines
    from wnexplore.report.rungs import lines
    from wnexplore.results import filters
    from wnexplore.results.frame import frame, score_of
    from wnexplore.results.store import FILE_NAME, read_records
    from wnexplore.study.sweep import with_added

    records = read_records(directory, samples_of=["training", "latency"] if report else ["training"])
    wanted = {m.key for m in with_added(spec, planned, {record.key for record in records}).measurements}
    records = [record for record in records if record.key in wanted or record.figure == "seeds"]
    rows = frame(records)
    print_table(filters.sort(rows, sort) if sort else rows)
    for line in (*seed_lines(records), *lines(records)):
        say(line)
    if rows[score_of(rows)].isna().all():
        notify(
            "nothing was trained, so no row is marked Pareto-optimal; to mark costs:"
            f" wnexplore table {shlex.quote(str(directory))} --objectives params,latency_ms"
        )
    missing = {name for record in records for name in record.value.get("uncounted_products", ())}
    if missing:
        notify(f"not in FLOPs, though they may multiply matrices: {', '.join(sorted(missing))}")
    _say_skipped(planned)
    why = {path: reason for record in records for path, reason in record.value.get("why_damaged", {}).items()}
    for path in dict.fromkeys(path for record in records for path in record.value.get("damaged", ())):
        notify(f"skipped in training and tests, as it can't be read: {named_damaged(path, why)}")
    for record in records:
        if skipped := record.value.get("skipped"):
            notify(
                f"skipped {skipped} training steps: damaged images left too few in a batch: {record.point}"
            )
    for record in failed:
        error = shown(record.error, MOST_TOLD)
        notify(f"failed: {record.point}: {error} (--retry-failed measures it again)")
    written, trouble = write_results(directory, rows, records)
    page, without = write_report(directory, rows, records) if report else (None, None)
    written += [page] if page is not None else []
    paths = [directory / FILE_NAME, directory / "sweep.yaml", *written]
    notify("wrote " + ", ".join(str(path) for path in paths))
    for line in trouble:
        # All is measured and kept: the sweep hasn't failed.
        notify(
            f"{line}; all is measured and kept, and wnexplore plot {shlex.quote(str(directory))} tries again"
        )
    if without is not None:
        notify(f"no report.html: {without}")
    if page is not None:
        say(f"open {page}: the point to take, linked plots and a table")


def _say_skipped(planned: Plan) -> None:
    left_out = planned.expansion
    for point, reason in left_out.skipped:
        notify(f"skipped as illegal: {point}: {reason}")
    if left_out.illegal > len(left_out.skipped):
        notify(
            f"and {left_out.illegal - len(left_out.skipped):,} more: wnexplore space counts them by reason"
        )
    for point, first in left_out.repeated:
        notify(f"skipped: {point}: the same function as {first}")
    if left_out.excluded:
        notify(f"{left_out.excluded:,} legal points don't satisfy where and were left out")
