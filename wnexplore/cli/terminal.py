"""The terminal as rich draws on it, with names of anybody's as nothing but text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from wnexplore.results.escape import visible


class PlainConsole(Console):
    """A console to which a text is neither markup ("[red]") nor emoji (":smile:") nor commands (ESC)."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's, but that nothing in `text` is obeyed."""
        return super().render_str(visible(text), **options | {"markup": False, "emoji": False})


def output() -> PlainConsole:
    """Standard output; a pipe, which has no width of its own, gets room for every cell."""
    terminal = PlainConsole()
    return terminal if terminal.is_terminal else PlainConsole(width=200)
