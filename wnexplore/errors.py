"""The errors that a person can cause or meet, each one line long."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WnexploreError(Exception):
    """An error whose message is written for the person at the terminal (exit code 1)."""

    exit_code = 1


class InputError(WnexploreError, ValueError):
    """Something given to wnexplore is wrong: what, where, what would be right (exit code 2)."""

    exit_code = 2


class RunError(WnexploreError, RuntimeError):
    """Right input, but the work failed while it ran: disk full, out of memory (exit code 1)."""


def unknown(what: str, value: object, valid: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in a list, the nearest valid name first."""
    names = list(valid)
    near = get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"unknown {what} '{value}': {hint}choose from {', '.join(names)}")
