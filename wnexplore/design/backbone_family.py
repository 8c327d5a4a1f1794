"""Families of backbones: one network at any width."""

from __future__ import annotations

from fractions import Fraction

from wnexplore.design.backbones import BACKBONES, FAMILIES, backbone_spec
from wnexplore.errors import InputError, unknown


def at_width(family: str, width: Fraction) -> str:
    """The backbone of `family` with `width` times the channels.

    Raises `InputError` for an unknown family or an impossible width.
    """
    if family not in FAMILIES:
        raise unknown("backbone of any width", family, FAMILIES)
    if width == 1 and family in BACKBONES:
        return family
    decimal = format(float(width), "f").rstrip("0")
    if Fraction(decimal) != width:
        raise InputError(f"width is '{width}': expected a decimal number with up to 6 digits, such as 0.75")
    integer, _, digits = decimal.partition(".")
    name = f"{family}_x{integer}_{digits or '0'}"
    backbone_spec(name)
    return name
