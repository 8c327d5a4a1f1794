"""The command line: parses, calls, prints. Heavy libraries load inside the commands that need them."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Any

import typer
import typer.core

from wnexplore import __version__
from wnexplore.cli import (
    analyze,
    calibrate,
    compare,
    evaluate,
    export,
    export_onnx,
    pick,
    plot,
    predict,
    profile,
    published,
    race,
    report,
    search,
    space,
    sweep,
    table,
    train,
)
from wnexplore.cli.elsewhere import with_address
from wnexplore.cli.output import OutputError, drop_output, separate_output_errors
from wnexplore.cli.stops import STOPPED, stops_raised
from wnexplore.errors import RunError, WnexploreError, print_notices, shown


class _StoppedError(Exception):
    """A `KeyboardInterrupt`, which Typer would turn into an exit code without a message."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run the requested command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _StoppedError from None


app = typer.Typer(
    cls=_Commands,
    name="wnexplore",
    help="Explore the design space of WeightNet: count, time, train and compare its networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for command in (
    *(sweep.sweep, space.space, calibrate.calibrate, search.search, profile.profile, race.race),
    *(train.train, evaluate.evaluate, predict.predict, analyze.analyze),
    *(table.table, pick.pick, plot.plot, export.export, export_onnx.export_onnx),
    *(compare.compare, report.report, published.published),
):
    app.command()(command)

# Typer is built on click, and bundles a copy of it in newer versions: this is the one in use.
_UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 stopped."""
    # pydantic, which typer loads, would search every installed package for its plug-ins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # cuBLAS reads it once, on first use, and is deterministic only with it; child processes inherit it. As in
    # `training.determinism`, which loads torch.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    separate_output_errors()
    print_notices()
    try:
        rest = with_address([a for a in given if a != "--debug"])
        with stops_raised():
            result = _command()(rest, prog_name="wnexplore", standalone_mode=False)
            sys.stdout.flush()
        code = result if isinstance(result, int) else 0
    except OutputError as error:
        if debug:
            traceback.print_exc()
        drop_output()
        # The reader closed the pipe (`| head`): not an error.
        code = 0 if error.closed else 1
        _complain("" if error.closed else f"can't write standard output: {error.reason}")
    except (_StoppedError, KeyboardInterrupt, typer.Abort):
        _complain("stopped")
        code = STOPPED
    except Exception as error:
        if debug:
            traceback.print_exc()
        code, line = _explain(error)
        _complain(line)
    sys.exit(code)


@cache
def _command() -> Any:
    """All commands with their options, from the functions' signatures; cached, since it takes a while."""
    return typer.main.get_command(app)


def _complain(line: str) -> None:
    """One line on standard error, if that can be written."""
    if line:
        with suppress(OSError):
            print(f"wnexplore: {line}", file=sys.stderr)


_LONGEST = 2000
"""Most characters of a message: values in it are cut before, and this is the last resort."""


def _one_line(text: str) -> str:
    return shown(" ".join(text[: 100 * _LONGEST].split()), _LONGEST)


def _explain(error: Exception) -> tuple[int, str]:
    if isinstance(error, WnexploreError):
        return error.exit_code, _one_line(str(error))
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "wnexplore"
        message = getattr(error, "format_message", lambda: str(error))()
        if not message:
            return 2, ""
        return 2, f"{_one_line(message)} (see '{command} --help')"
    if isinstance(error, OSError) and error.filename is not None:
        name = shown(os.fsdecode(error.filename) if not isinstance(error.filename, int) else error.filename)
        code = 2 if error.errno in _GIVEN_WRONG else 1
        return code, f"can't use '{name}': {error.strerror or type(error).__name__}"
    failed = _of_torch(error)
    if failed is not None:
        return failed.exit_code, _one_line(str(failed))
    return 1, f"unexpected {type(error).__name__}: {_one_line(str(error))} (add --debug for the traceback)"


_GIVEN_WRONG = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Errors of the system that a path which was given leads to, and no failure of work."""


def _of_torch(error: Exception) -> RunError | None:
    """Translate a torch error that any command may end with."""
    if "torch" not in sys.modules:
        return None
    from wnexplore.measure.failure import run_error

    return run_error(error)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wnexplore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; allowed anywhere.")
    ] = False,
) -> None:
    pass
