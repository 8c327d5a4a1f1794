"""wnexplore search: let Optuna choose which points of a space to measure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from wnexplore.cli.elsewhere import (
    Elsewhere,
    LatencyOn,
    RayOption,
    TaskHours,
    WorkersOption,
    elsewhere,
)
from wnexplore.cli.options import DataPath, DataText, Download, comma_list
from wnexplore.cli.output import notify
from wnexplore.cli.recipe import RECIPE_PLACES, training_options, with_replaced
from wnexplore.cli.stops import resumable
from wnexplore.errors import InputError

if TYPE_CHECKING:
    from wnexplore.study.sweep import SweepStep

_TIMING = ("device", "batch_size", "target", "seconds")

_PLACES = {
    **AXIS_PLACES,
    **{name: TIMING_PLACES[name] for name in _TIMING if name in TIMING_PLACES},
    "data": ("train", "data"),
    "data_path": ("train", "path"),
    "download": ("train", "download"),
    "epochs": ("train", "epochs"),
    "seeds": ("train", "seeds"),
    **RECIPE_PLACES,
    "jobs": ("train", "jobs"),
    "latency": ("latency",),
    "train": ("train",),
}


@grid_options(after="predict")
@timing_options(after="latency", sweep=True, only=_TIMING, helps={"batch_size": "Batch size of the latency."})
@training_options(after="seeds", only=RECIPE_PLACES)
def search(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_NAME]", help="Sweep file with the axes to search.")
    ] = None,
    objectives: Annotated[
        str, typer.Option(help="Columns to optimise, each in its better direction.")
    ] = "params,latency_ms",
    budget: Annotated[
        list[str] | None, typer.Option(help='Condition on every point: "params<2.5e6"; may be repeated.')
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Number of distinct points to measure.")
    ] = 60,
    sampler: Annotated[str, typer.Option(help="nsga2 or tpe.")] = "nsga2",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler.")] = 0,
    predict: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Predict latencies from those of a run: wnexplore calibrate's."),
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
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/search-NAME.")] = None,
    workers: WorkersOption = None,
    ray: RayOption = None,
    latency_on: LatencyOn = None,
    task_hours: TaskHours = None,
) -> None:
    """Search a space too large to sweep: Optuna proposes points, those over budget are never built.

    Budgets on params or flops are exact and free; budgets on latency are checked before a point is trained,
    and with --predict RUN before it is built: a point is rejected if its predicted 95 % interval breaks them,
    or if another is certainly better in all objectives, where these are counts and latencies. With an
    objective that takes a training, a point is trained first, and timed only if it may be on the front.
    Results are saved as they are measured, like a sweep's, and the same command resumes where it was stopped;
    more --trials extend the search. Optuna's dashboard opens DIR/study.db.
    """
    from wnexplore.cli.measuring import log_of
    from wnexplore.cli.show import keep_sweep
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep
    from wnexplore.results.store import FILE_NAME, Store, read_records
    from wnexplore.space.prediction import calibrations
    from wnexplore.study.optuna_storage import STUDY, dashboard
    from wnexplore.study.search import Search
    from wnexplore.study.search import search as run_search

    places = {name: path for name, path in _PLACES.items() if name != "device"}
    overrides = with_replaced(overrides_of(context.params, places))
    if file is None and not overrides:
        raise InputError(
            "nothing to search: name a sweep file, a shipped sweep or options such as --backbone"
        )
    path = None if file is None else find_sweep(file)
    spec = load_sweep(path, overrides)
    if context.params["device"] is not None:
        spec = spec.on_device(context.params["device"])
    timed = (
        () if predict is None else calibrations(read_records(predict, samples_of=["latency"]), str(predict))
    )
    if predict is not None and not timed:
        raise InputError(f"{predict} has no latencies to predict from: wnexplore calibrate measures them")
    wanted = Search(spec, tuple(comma_list(objectives)), tuple(budget or ()), trials, sampler, seed, timed)
    directory = out or Path("runs") / f"search-{'options' if path is None else path.stem}"
    with elsewhere(spec, workers, ray, latency_on, task_hours) as place:
        wanted = replace(wanted, hardware=place.hardware, at_once=place.at_once)
        wanted.check()
        with resumable(lambda: f"all measurements are kept in {directory}"):
            with Store.create(directory) as store, _progress(trials, place) as on_step:
                outcome = run_search(wanted, store, on_step, lend=place.lend, on_record=log_of(place))
            keep_sweep(directory, outcome.spec)
            _show(directory, wanted.objectives)
    notify(f"{outcome.points} points measured; {outcome.rejected} proposals were rejected without building")
    if outcome.untimed:
        notify(
            f"{outcome.untimed} of them are trained but not timed: off the front by their predicted latency"
        )
    if outcome.exhausted:
        near = ", and may be on the front by its predicted latency," if wanted.foreseen else ""
        notify(f"every point that satisfies the budgets{near} is measured")
    kept = f"{directory / FILE_NAME}, {directory / STUDY}"
    shows = dashboard(directory)
    notify(f"records and Optuna's study are in {kept}" + (f"; {shows} shows it" if shows else ""))


def _show(directory: Path, objectives: tuple[str, ...]) -> None:
    from wnexplore.cli.show import print_table, write_results
    from wnexplore.results.frame import frame
    from wnexplore.results.fronts import pareto_rows
    from wnexplore.results.store import read_records

    records = read_records(directory, samples_of=["training"])
    rows = frame(records)
    print_table(rows[pareto_rows(rows, objectives)].reset_index(drop=True), pareto=objectives)
    for record in records:
        if record.status != "ok":
            notify(f"failed: {record.point}: {record.error}")
    _, trouble = write_results(directory, rows, records)
    for line in trouble:
        notify(f"{line}; all is measured and kept")
    notify(f"the Pareto front; all rows: wnexplore table {shlex.quote(str(directory))}")


@contextmanager
def _progress(trials: int, place: Elsewhere) -> Iterator[Callable[[int, SweepStep], None]]:
    """A progress bar over the points."""
    from wnexplore.cli.measuring import progress

    at = 0
    with progress(lambda step: f"{at}/{trials} {step.measurement.point}: {step.measurement}", place) as show:

        def on_step(number: int, step: SweepStep) -> None:
            nonlocal at
            at = number
            show(replace(step, done=number - 1, total=trials, part=0.0))

        yield on_step
