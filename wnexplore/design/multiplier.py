"""M and G as exact values: one number, one over a layer's channels, or one for each stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, total_ordering

from wnexplore.design.part_stages import NUMBER_OR_NAME, stage_name, stage_number
from wnexplore.errors import InputError, shown

Multiplier = Fraction | int | float | str
"""How users write the M or G of one layer: 2, 0.5, "1/48"."""


class _Ordered:
    """Sorts numbers before counts over channels, and both before values per stage."""

    def _order(self) -> tuple[object, ...]:
        raise NotImplementedError

    def __lt__(self, other: object) -> bool:
        return _order(self) < _order(other)


@total_ordering
@dataclass(frozen=True)
class OverChannels(_Ordered):
    """A number over the layer's output channels: "4/C" is M·C_out = 4 in every layer."""

    count: int

    def _order(self) -> tuple[object, ...]:
        return (1, self.count)

    def __str__(self) -> str:
        return f"{self.count}/C"


@total_ordering
@dataclass(frozen=True)
class PerStage(_Ordered):
    """A value for each stage that gets the method, in order: "2:1+3:2+4:8"."""

    stages: tuple[tuple[int, Fraction | OverChannels], ...]

    def _order(self) -> tuple[object, ...]:
        return (2, *((stage, *_order(value)) for stage, value in self.stages))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self._text

    # Rows share these values: a large table hashes and writes each of them many times.
    @cached_property
    def _hash(self) -> int:
        return hash(self.stages)

    @cached_property
    def _text(self) -> str:
        return "+".join(f"{stage_name(stage)}:{value}" for stage, value in self.stages)


Setting = Fraction | OverChannels | PerStage
"""An M or G of a network."""

Written = Multiplier | Setting | Mapping[int | str, Multiplier] | Mapping[int, Multiplier]
"""How users write the M or G of a network: also "4/C", {2: 1, 3: 2, 4: 8} or "2:1+3:2+4:8"."""

LARGEST = 10**9
"""Largest value of M, G and counts over channels; the smallest is its reciprocal."""

_DIGITS = 40
_NUMBER = re.compile(
    r"\+?([0-9]{1,15}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?"
    rf"|[0-9]{{1,{_DIGITS}}}/[0-9]{{1,{_DIGITS}}}"
)
_OVER_CHANNELS = re.compile(r"([1-9][0-9]{0,9}) */ *C")
_STAGE = re.compile(rf" *({NUMBER_OR_NAME}) *:([^:+]+)")


def parse_multiplier(value: object, name: str) -> Fraction:
    """`value` as an exact positive `Fraction`; `InputError` naming `name` (M or G) otherwise.

    A float is taken as the decimal number it prints as, so that 0.1 is 1/10.
    """
    # Tables of many points have few different texts.
    known = type(value) in (str, int)
    return _known_multiplier(value, name) if known else _parse_multiplier(value, name)


def parse_setting(value: object, name: str) -> Setting:
    """`value` as the M or G of a network; `InputError` naming `name` (M or G) if invalid.

    Whether a backbone has its stages is not checked here.
    """
    return _known_setting(value, name) if type(value) is str else _parse_setting(value, name)


def _parse_setting(value: object, name: str) -> Setting:
    if isinstance(value, (OverChannels, PerStage)):
        return value
    if isinstance(value, str):
        if ":" in value:
            # Stages are distinct, so more than these are a mistake.
            parts = [_STAGE.fullmatch(part) for part in value.split("+", 1000)]
            if not all(parts):
                raise InputError(
                    f"{name} is '{shown(value)}': expected a value for each stage, such as 2:1+3:2+4:8"
                )
            return _per_stage(((stage_number(part[1]), part[2]) for part in parts if part), name)
        found = _OVER_CHANNELS.fullmatch(value.strip())
        if found and int(found[1]) <= LARGEST:
            return OverChannels(int(found[1]))
    if isinstance(value, Mapping):
        return _per_stage(value.items(), name)
    return parse_multiplier(value, name)


def at_stage(setting: Setting, stage: int, name: str = "M or G") -> Fraction | OverChannels:
    """The value in one stage; `InputError` if `setting` names others, but not this one."""
    if not isinstance(setting, PerStage):
        return setting
    for number, value in setting.stages:
        if number == stage:
            return value
    raise InputError(f"{name} is '{shown(setting)}': it has no value for stage {stage_name(stage)}")


def at_layer(value: Fraction | OverChannels, out_channels: int) -> Fraction:
    """The number in a layer with `out_channels` filters."""
    return Fraction(value.count, out_channels) if isinstance(value, OverChannels) else value


def plain_multiplier(value: Setting) -> int | str:
    """`value` for JSON and CSV: 2 if it is an integer, else text ("1/48", "4/C", "2:1+3:2")."""
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else str(value)


def _per_stage(values: Iterable[tuple[object, object]], name: str) -> PerStage:
    found: dict[int, Fraction | OverChannels] = {}
    for written, value in values:
        stage = written
        if isinstance(written, str) and re.fullmatch(NUMBER_OR_NAME, written):
            stage = stage_number(written)
        if isinstance(stage, bool) or not isinstance(stage, int) or stage < 0:
            raise InputError(
                f"{name} has a value for stage '{shown(stage)}': expected a stage's number, pyramid or head"
            )
        if stage in found:
            raise InputError(f"{name} has two values for stage {stage_name(stage)}")
        parsed = parse_setting(value, name)
        if isinstance(parsed, PerStage):
            raise InputError(
                f"{name} is '{shown(parsed)}' in stage {stage_name(stage)}: expected one number there"
            )
        found[stage] = parsed
    if not found:
        raise InputError(f"{name} is empty: expected a value for each stage, such as 2:1+3:2+4:8")
    return PerStage(tuple(sorted(found.items())))


def _order(value: object) -> tuple[object, ...]:
    if isinstance(value, _Ordered):
        return value._order()
    if isinstance(value, (Fraction, int, float)):
        return (0, value)
    raise TypeError(f"can't be compared with M or G: {value!r}")


def _parse_multiplier(value: object, name: str) -> Fraction:
    wrong = InputError(
        f"{name} is '{shown(value)}': expected a number above 0, whole (2), decimal (0.5) or a fraction"
        " (1/48)"
    )
    if isinstance(value, bool) or not isinstance(value, (Fraction, int, float, str)):
        raise wrong
    # As an integer, 1e999999999 would fill the memory.
    if isinstance(value, (float, str)) and not _NUMBER.fullmatch(str(value).strip()):
        raise wrong
    try:
        number = Fraction(value if isinstance(value, (Fraction, int)) else str(value).strip())
    except (ValueError, ZeroDivisionError, OverflowError):
        raise wrong from None
    if number <= 0:
        raise wrong
    if not Fraction(1, LARGEST) <= number <= LARGEST:
        raise InputError(f"{name} is '{shown(value)}': expected 1/{LARGEST:,} to {LARGEST:,}")
    # What is stored as text must read back.
    if max(number.numerator, number.denominator) >= 10**_DIGITS:
        raise InputError(f"{name} is '{shown(value)}': expected at most {_DIGITS} digits in a fraction")
    return number


_known_multiplier = lru_cache(maxsize=1024, typed=True)(_parse_multiplier)
_known_setting = lru_cache(maxsize=1024)(_parse_setting)
