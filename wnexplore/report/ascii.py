"""Plain ASCII for consoles and files that can hold nothing else."""

from __future__ import annotations

_ASCII = str.maketrans(
    dict(zip("★≈⚠✗±×Δ−·…—–", ("*", "~", "!", "x", "+-", "x", "diff", "-", "-", "...", "-", "-"), strict=True))
)


def to_ascii(text: str) -> str:
    """`text` in ASCII: what the tables use has a counterpart, anything else becomes "?"."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
