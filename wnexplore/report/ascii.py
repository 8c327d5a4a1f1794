"""Plain ASCII for consoles and files without Unicode."""

from __future__ import annotations

_ASCII = str.maketrans(
    dict(
        zip(
            "★≈○⚠✗±×Δ−·…—–",
            ("*", "~", "o", "!", "x", "+-", "x", "diff", "-", "-", "...", "-", "-"),
            strict=True,
        )
    )
)


def to_ascii(text: str) -> str:
    """`text` in ASCII: the tables' symbols have counterparts, anything else becomes "?"."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
