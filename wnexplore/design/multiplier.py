"""M and G as exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from wnexplore.errors import InputError

Multiplier = Fraction | int | float | str
"""What a person may write for M or G: 2, 0.5, "1/48"."""


_NUMBER = re.compile(r"\d{1,15}(\.\d{1,20})?(e-?\d{1,2})?|\d{1,99}/\d{1,99}")


def parse_multiplier(value: Multiplier, name: str) -> Fraction:
    """`value` as an exact positive `Fraction`; `InputError` naming `name` (M or G) otherwise.

    A float is taken as the decimal number it prints as, so that 0.1 is 1/10.
    """
    wrong = InputError(
        f"{name} is '{value}': expected a number above 0, whole (2), decimal (0.5) or a fraction (1/48)"
    )
    if isinstance(value, bool) or not isinstance(value, (Fraction, int, float, str)):
        raise wrong
    # Written out, 1e999999999 would fill the memory.
    if isinstance(value, (float, str)) and not _NUMBER.fullmatch(str(value).strip()):
        raise wrong
    try:
        number = Fraction(value if isinstance(value, (Fraction, int)) else str(value).strip())
    except (ValueError, ZeroDivisionError, OverflowError):
        raise wrong from None
    if number <= 0:
        raise wrong
    return number


def plain_multiplier(value: Fraction) -> int | str:
    """`value` as JSON and CSV show it: 2 if it is whole, "1/48" if not."""
    return value.numerator if value.denominator == 1 else str(value)
