"""Measures what a plan lacks, and shows how far that is: a bar, the nodes, or lines where no terminal is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from wnexplore.cli.elsewhere import Elsewhere, nodes_shown
from wnexplore.cli.output import notify
from wnexplore.cli.stops import resumable
from wnexplore.errors import shown
from wnexplore.results.escape import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wnexplore.design.sweep_file import SweepSpec
    from wnexplore.results.record import Record
    from wnexplore.study.dispatch import AtWork
    from wnexplore.study.sweep import Plan, SweepStep


def measure_planned(
    spec: SweepSpec,
    planned: Plan,
    directory: Path,
    place: Elsewhere,
    retry_failed: bool,
    set_aside: bool,
    together: int | None = None,
) -> tuple[int, list[Record]]:
    """Measure at `place` what is not done yet; returns the number of measurements, and the failed ones.

    `set_aside`: damaged records are, first; `together`: as `measure` of a sweep.
    """
    from wnexplore.cli.show import keep_sweep, report_damaged
    from wnexplore.results.store import Store
    from wnexplore.study.sweep import remaining, run, with_added

    with Store.create(directory) as store:
        if set_aside:
            report_damaged(store.set_damaged_aside())
        keep_sweep(directory, spec)
        planned = with_added(spec, planned, store.keys())
        todo = remaining(planned, store.keys(), retry_failed)
        done = len(planned.measurements) - len(todo)
        if done:
            notify(f"{done} of {len(planned.measurements)} measurements are done already in {directory}")

        def kept() -> str:
            done = len(planned.measurements) - len(remaining(planned, store.keys(), retry_failed))
            return f"{done} of {len(planned.measurements)} measurements are done and kept in {directory}"

        several = spec.train is not None and spec.train.jobs not in ("auto", 1)
        more = spec.train is not None and spec.train.target is not None
        order = {point: number for number, point in enumerate(planned.points, start=1)}

        def said(step: SweepStep) -> str:
            point = step.measurement.point
            return f"{order[point]}/{len(order)} {point}: {step.measurement}"

        with resumable(kept), progress(said, place, more=more) as on_step:
            report = _tell if several and place.dispatcher is None else log_of(place)
            lend = place.lend
            return len(todo), run(spec, todo, store, on_step, report, planned, lend=lend, together=together)


@contextmanager
def progress(
    said: Callable[[SweepStep], str], place: Elsewhere, *, more: bool = False
) -> Iterator[Callable[[SweepStep], None]]:
    """A progress bar over the measurements with step and time left, under the nodes if there are some;
    nothing without a terminal.

    `said` is what a step is called. `more`: seeds may be added, and the time left is at least that of what is
    planned so far.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    from wnexplore.cli.terminal import PlainConsole

    class WithNodes(Progress):
        nodes: Sequence[AtWork] = ()

        def get_renderables(self) -> Iterable[RenderableType]:
            if self.nodes:
                yield _table(self.nodes)
            yield from super().get_renderables()

    # Drawn on progress reports, not by a background thread, which would run while networks are timed.
    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn(
            f"left{' at least' if more else ''} · {{task.description}}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
    )
    console = PlainConsole(stderr=True)
    off = not console.is_terminal
    with WithNodes(*columns, console=console, disable=off, transient=True, auto_refresh=False) as bars:
        bar = bars.add_task("", total=None)
        drawn = 0.0

        def on_step(step: SweepStep) -> None:
            nonlocal drawn
            if off or (step.part and monotonic() < drawn + _REDRAW_S):
                return
            drawn = monotonic()
            bars.update(
                bar,
                total=step.total,
                completed=step.done + step.part,
                description=one_line(said(step)),
                refresh=True,
            )

        def on_nodes(nodes: Sequence[AtWork]) -> None:
            bars.nodes = nodes
            bars.refresh()

        with nodes_shown(place, on_nodes):
            yield on_step


def log_of(place: Elsewhere) -> Callable[[Record], None]:
    """What says that a record was made at `place`: a line, where neither it is here nor a terminal shows the
    nodes."""
    return _quiet if place.dispatcher is None or sys.stderr.isatty() else _log


_REDRAW_S = 0.2
MOST_TOLD = 2000
"""Characters of an error; the record has all of it."""


def _table(nodes: Sequence[AtWork]) -> RenderableType:
    """What each node does."""
    from rich.table import Table

    from wnexplore.study.dispatch import named

    table = Table("node", "done", "failed", "does", box=None, padding=(0, 2, 0, 0), expand=True)
    table.columns[3].no_wrap, table.columns[3].overflow = True, "ellipsis"
    for one in nodes:
        does = "; ".join(named(task) for task in one.tasks) or "nothing"
        table.add_row(one_line(one.node.name), str(one.done), str(one.failed), one_line(does))
    return table


def _quiet(record: Record) -> None:
    """Nothing: the bar shows it."""


def _log(record: Record) -> None:
    """A line for each record that another process or machine made."""
    node = record.environment.get("node", "?")
    again = record.environment.get("attempts", 1)
    where = f"on {node}" + (f", at attempt {again}" if again > 1 else "")
    if record.figure == "training":
        _tell(record, f", {where}")
    elif record.status != "ok":
        notify(f"{record.point}: {shown(record.error, MOST_TOLD)}, {where}")
    elif record.figure == "latency":
        protocol, value = record.protocol, record.value
        measured = f"{value['latency_ms']:.3f} ms, {value['latency_ratio']:.3f} × plain"
        notify(f"{record.point}, batch {protocol['batch_size']}: {measured}, {where}")
    elif record.figure == "complexity":
        value = record.value
        notify(f"{record.point}: {value['params']:,} parameters, {value['flops']:,} FLOPs, {where}")


def _tell(record: Record, where: str = "") -> None:
    """A line per concurrent training, which a single bar couldn't show."""
    if record.figure != "training":
        return
    label = f"{record.point}, seed {record.protocol['seed']}"
    if record.status != "ok":
        notify(f"{label}: {shown(record.error, MOST_TOLD)}{where}")
        return
    value = record.value
    dropped = "" if value["dropped_at"] is None else ", dropped"
    loss = "" if value["test_loss"] is None else f", test loss {value['test_loss']:.4f}"
    after = f"after {value['epochs']} epochs{dropped}, {value['seconds']:.1f} s"
    from wnexplore.design.vision_tasks import TASKS
    from wnexplore.results.columns import COLUMNS

    column = COLUMNS[TASKS[record.point.task].score]
    notify(f"{label}: {column.heading} {value[column.name]:.2f} %{loss} {after}{where}")
