"""Escapes untrusted text for terminals, CSV, Markdown and LaTeX."""

from __future__ import annotations

from typing import Any

from wnexplore.errors import shown

_LONGEST_ESCAPE = len("\\U0010ffff")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters that start a formula in a spreadsheet."""


def csv_cell(value: Any) -> Any:
    """`value` as a CSV cell: an apostrophe precedes texts that would be formulas; numbers are unchanged."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if value.startswith(_FORMULA) else text


def visible(text: str) -> str:
    """`text` with control characters escaped, except line ends."""
    if text.isprintable():
        return text
    return "\n".join(
        line if _plain(line) else shown(line, _LONGEST_ESCAPE * len(line)) for line in text.split("\n")
    )


def one_line(text: str) -> str:
    """`text` as in `visible`, with line ends escaped too."""
    return visible(text.replace("\n", "\\n"))


def markdown(text: str) -> str:
    """`text` in a cell of a Markdown table, of GitHub's kind too, which has formulas and strikes through."""
    return " ".join(visible(text).splitlines()).translate(_MARKDOWN)


def latex(text: str) -> str:
    """`text` in a cell of a LaTeX table, in whichever font encoding."""
    # A bracket after \\ would be read as its argument.
    escaped = " ".join(visible(text).splitlines()).translate(_LATEX)
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) else escaped


def _plain(line: str) -> bool:
    # Spaces of other widths aren't printable to Python, but harmless.
    return all(character.isprintable() or character in "\u00a0\u2009\u202f" for character in line)


_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`<>[]$~"})
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "|": "\\textbar{}",
        "<": "$<$",
        ">": "$>$",
        "★": "$\\star$",
        "≈": "$\\approx$",
        "⚠": "$\\triangle$",
        "✗": "$\\times$",
        "±": "$\\pm$",
        "Δ": "$\\Delta$",
        "−": "$-$",
        "×": "$\\times$",
        "·": "$\\cdot$",
        "…": "\\dots{}",
    }
)
