"""wnexplore report: runs as one page to open, click in and send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from wnexplore.cli.options import SkipDamaged, SpaceFile, Where
from wnexplore.cli.output import notify, say
from wnexplore.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from wnexplore.design.point import DesignPoint
    from wnexplore.design.skeleton import Skeleton
    from wnexplore.report.page_data import PageRun
    from wnexplore.results.record import Record


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run directories, shown side by side.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default report.html in the first directory.")
    ] = None,
    where: Where = None,
    space: SpaceFile = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve it on 127.0.0.1 while sweeps write these directories.")
    ] = False,
    skip_damaged: SkipDamaged = False,
) -> None:
    """Write runs as one HTML file: the point to take, linked plots, a table, and each point's details.

    The file requests nothing and opens from disk. With --space it also has the points of a sweep file with
    the latencies that the first run predicts, drawn hollow. With --watch nothing is written: the page is
    served at an address with a random token and follows the records as they come, until it is stopped.
    """
    from wnexplore.files import check_writable, write_atomically

    if watch and out is not None:
        raise InputError("--watch writes no file: leave --out out")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out is '{out}': expected a name that ends in .html")

    # A run beside itself would show each point twice.
    once: dict[Path, Path] = {}
    for directory in directories:
        once.setdefault(directory.resolve(), directory)
    directories = list(once.values())

    def runs() -> list[PageRun]:
        return [
            read_run(directory, where, skip_damaged, space if at == 0 else None)
            for at, directory in enumerate(directories)
        ]

    title = " and ".join(dict.fromkeys(directory.resolve().name for directory in directories))
    if watch:
        from wnexplore.cli.page_server import LivePage, serve

        page = LivePage(title, directories, runs, known_skeleton)
        wait_for_rows(page.update)
        serve(page)
        return
    if out is not None:
        check_writable(out)
    found = runs()
    path = out or directories[0] / "report.html"
    write_atomically(path, page_of(title, found))
    say(path)


def page_of(title: str, runs: Sequence[PageRun]) -> bytes:
    """The page of `runs` as a file."""
    from wnexplore.report.page_data import page_data, page_details
    from wnexplore.report.page_file import page_file

    return page_file(title, page_data(runs), page_details(runs, known_skeleton))


class NoRowsError(InputError):
    """A run has nothing to show, or nothing yet."""


def read_run(directory: Path, where: str | None, skip_damaged: bool, space: str | None) -> PageRun:
    """A run directory as a page needs it. Raises `NoRowsError` if it has no rows."""
    from wnexplore.cli.show import load_records, rows_of, with_predicted_rows
    from wnexplore.report.page_data import PageRun
    from wnexplore.results.store import read_dates

    records = load_records(directory, skip_damaged, ("latency", "training"))
    rows = rows_of(records, where, None)
    if space is not None:
        rows = with_predicted_rows(directory, records, rows, space, where)
    if not len(rows):
        raise NoRowsError(
            f"{directory} has no rows{f' with {where}' if where else ' yet'}: nothing to report"
        )
    return PageRun(str(directory), records, rows, read_dates(directory))


def wait_for_rows(update: Callable[[], None]) -> None:
    """Call `update` until a sweep that has just begun has rows."""
    waited = False
    while True:
        try:
            update()
            return
        except NoRowsError as error:
            if not waited:
                notify(f"{error}: waiting for the first ones")
            waited = True
            sleep(1)


def known_skeleton(point: DesignPoint) -> Skeleton | None:
    """The skeleton of a network; None for one from a file, which would be run, or that can't be had here."""
    from wnexplore.design.external_names import is_external
    from wnexplore.errors import WnexploreError
    from wnexplore.space.skeleton_cache import skeleton_of

    library, _, _ = point.backbone.partition(":")
    if is_external(point.backbone) and library not in ("timm", "torchvision"):
        return None
    try:
        return skeleton_of(point)
    except (WnexploreError, ImportError):
        return None


def write_report(
    directory: Path, rows: pd.DataFrame, records: Sequence[Record]
) -> tuple[Path | None, str | None]:
    """Write report.html of `rows`, made from `records`, into their run directory at the end of a sweep.

    Returns its path, or why there is none: the records are safe in any case.
    """
    from wnexplore.errors import WnexploreError, shown
    from wnexplore.files import write_atomically
    from wnexplore.report.page_data import PageRun
    from wnexplore.results.store import read_dates

    path = directory / "report.html"
    try:
        run = PageRun(str(directory), records, rows, read_dates(directory))
        write_atomically(path, page_of(directory.resolve().name, [run]))
    except WnexploreError as error:
        return None, str(error)
    except Exception as error:  # no memory, a library that fails: the sweep hasn't
        return None, f"{type(error).__name__}: {shown(error)}"
    return path, None
