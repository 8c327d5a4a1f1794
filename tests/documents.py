"""The commands that the documents show: as a shell, a person or Python would take them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    *("README.md", "sweeps/README.md", "sweeps/results/README.md", "tests/README.md"),
    "wnexplore/nn/formulations/README.md",
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_PROGRAMS = ("wnexplore", "python", "python3", "torchrun", "pip", ".venv/bin/")


def blocks(document: str, language: str) -> list[str]:
    """The code blocks of `document` in `language`."""
    return [text for found, text in _BLOCK.findall(_text(document)) if found == language]


def commands(document: str) -> list[str]:
    """Every command of `document`, from its blocks for a shell and from its sentences, each once.

    A line that ends in a backslash goes on, and what follows two spaces and # is a comment.
    """
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    shown = [re.sub(r"\s+#\s.*$", "", line) for line in lines]
    shown += re.findall(r"`([^`]+)`", _BLOCK.sub("", _text(document)))
    words = [" ".join(line.split()) for line in shown]
    return list(dict.fromkeys(word for word in words if word.startswith(_PROGRAMS) and " " in word))


def _text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")
