"""The rich console, with untrusted names as plain text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from wnexplore.results.escape import visible


class PlainConsole(Console):
    """A console that interprets neither markup ("[red]") nor emoji (":smile:") nor ESC sequences."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's, without interpreting `text`."""
        return super().render_str(visible(text), **options | {"markup": False, "emoji": False})


def output() -> PlainConsole:
    """Standard output; a pipe, which has no width, gets room for every cell."""
    terminal = PlainConsole()
    return terminal if terminal.is_terminal else PlainConsole(width=200)
