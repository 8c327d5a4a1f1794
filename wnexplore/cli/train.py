"""wnexplore train: train one design point in full; can be stopped and resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.axes import legal_point, point_options
from wnexplore.cli.options import DataText, Download
from wnexplore.cli.output import named_damaged, notify, say
from wnexplore.cli.recipe import RECIPE_OPTIONS, training_options, with_replaced
from wnexplore.cli.stops import STOPPED, called, resumable

if TYPE_CHECKING:
    from rich.table import Table

    from wnexplore.design.protocol import TrainSpec
    from wnexplore.design.sweep_file import Overrides
    from wnexplore.training.log import Row


@point_options(without=("num_classes",))
@training_options(after="epochs", only=RECIPE_OPTIONS)
def train(
    context: typer.Context,
    data: DataText = None,
    download: Download = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Sweep file whose 'train' is the recipe, or a shipped one: imagenet_published."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(help="Epochs.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of weights, order and augmentation.")] = 0,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between two rows of the log.")] = 50,
    save_every: Annotated[int, typer.Option(min=1, help="Most steps between two checkpoints.")] = 1000,
    test_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between two tests; by default the recipe's, 1.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/train.")] = None,
) -> None:
    """Train one design point by a complete recipe, on as many GPUs as torchrun starts processes.

    The run directory holds log.csv, TensorBoard's files, checkpoints (the last two and the best) and, at
    the end, results.sqlite for `wnexplore table`. It can be stopped at any step: the same command resumes
    there, with the same result. On 8 GPUs: torchrun --nproc-per-node 8 -m wnexplore train ...
    """
    point = legal_point({**context.params, "num_classes": None})
    spec = _spec(context.params)
    directory = out or Path("runs/train")

    from wnexplore.measure.failure import translate_network_errors
    from wnexplore.training.full_training import TrainRun, train_fully

    run = TrainRun(point, spec, directory, seed, log_every, save_every, test_every or spec.test_every)
    # During training it ends after the current step; this handles stops before that, or a second one.
    stopped = resumable(lambda: f"checkpoints in {directory} are kept") if _speaks() else nullcontext()
    with stopped, _table(point.task) as show, translate_network_errors(point.backbone):
        outcome = train_fully(run, show)
    if not _speaks():
        return
    for path in outcome.damaged:
        notify(f"skipped, as it can't be read: {named_damaged(path, outcome.why_damaged)}")
    if outcome.skipped:
        notify(f"skipped {_of(outcome.skipped, 'step')}: damaged images left too few in a batch")
    if outcome.finished:
        from wnexplore.design.vision_tasks import TASKS
        from wnexplore.results.columns import COLUMNS

        score = COLUMNS[TASKS[point.task].score].heading
        say(f"best {score} {outcome.best_score:.2f} %: {outcome.best}")
        return
    notify(f"stopped at step {outcome.step} of {outcome.steps}; to resume: {called()}")
    raise typer.Exit(STOPPED)


_RECIPE = ("epochs", *RECIPE_OPTIONS, "data", "download")


def _spec(given: Mapping[str, object]) -> TrainSpec:
    """The recipe of --recipe, with the options on top."""
    from wnexplore.design.shipped import find_sweep
    from wnexplore.design.sweep_file import load_sweep

    options = {name: given[name] for name in _RECIPE if given[name] is not None}
    overrides: Overrides = {
        ("train", name): (f"--{name.replace('_', '-')}", value) for name, value in options.items()
    }
    file = None if given["recipe"] is None else find_sweep(str(given["recipe"]))
    # What is wrong with several fields is said of the first.
    first = "--recipe" if file is not None or not overrides else next(iter(overrides.values()))[0]
    spec = load_sweep(file, {("train",): (first, True)} | dict(with_replaced(overrides)))
    train = spec.on_device(str(given["device"])).train
    assert train is not None
    return train


@contextmanager
def _table(task: str) -> Iterator[Callable[[Row, int], None]]:
    """Rows of the log as they are written: a live table in a terminal, one line per row elsewhere."""
    from rich.live import Live

    from wnexplore.cli.terminal import PlainConsole

    console = PlainConsole(stderr=True)
    if not console.is_terminal:
        yield lambda row, steps: notify(_line(row, steps))
        return
    rows: list[Row] = []
    with Live(console=console, auto_refresh=False) as live:

        def show(row: Row, steps: int) -> None:
            rows.append(row)
            live.update(_as_table(rows, steps, console.height, task), refresh=True)

        yield show


def _as_table(rows: list[Row], steps: int, height: int, task: str) -> Table:
    """The newest rows that fit into `height` lines."""
    from rich.table import Table

    shown = rows[-max(3, height - 8) :]
    passed = f"step {shown[-1].step} of {steps}, {_left(shown[-1], steps)} left"
    table = Table(
        title=passed,
        title_justify="left",
        title_style="",
        box=None,
        header_style="bold",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    detects = task == "detection"
    tests = ("AP (%)", "AP50 (%)") if detects else ("test loss", "top-1 (%)", "top-5 (%)")
    for heading in ("step", "epoch", "lr", "loss", "images/s", *tests):
        table.add_column(heading, justify="right")
    for row in shown:
        tested = (row.ap, row.ap50) if detects else (row.test_loss, row.top1, row.top5)
        table.add_row(
            str(row.step),
            f"{row.epoch:.2f}",
            f"{row.lr:.2g}",
            f"{row.loss:.4f}",
            f"{row.images_per_second:.0f}",
            *("" if value is None else f"{value:.2f}" for value in tested),
        )
    return table


def _line(row: Row, steps: int) -> str:
    tested = "" if row.top1 is None else f", top-1 {row.top1:.2f} %"
    tested += "" if row.ap is None else f", AP {row.ap:.2f} %"
    tested += "" if row.test_loss is None else f", test loss {row.test_loss:.4f}"
    return (
        f"step {row.step} of {steps}, epoch {row.epoch:.2f}: loss {row.loss:.4f}{tested},"
        f" {row.images_per_second:.0f} images/s, {_left(row, steps)} left"
    )


def _of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _left(row: Row, steps: int) -> str:
    """Estimated time of the remaining steps."""
    seconds = round(row.seconds / row.step * (steps - row.step))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _speaks() -> bool:
    """Whether this is torchrun's process of rank 0, which prints."""
    return os.environ.get("RANK", "0") == "0"
