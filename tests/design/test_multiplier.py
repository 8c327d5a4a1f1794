from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.design.multiplier import (
    OverChannels,
    PerStage,
    Setting,
    at_layer,
    at_stage,
    parse_multiplier,
    parse_setting,
    plain_multiplier,
)
from wnexplore.errors import InputError


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (2, Fraction(2)),
        ("2", Fraction(2)),
        (0.1, Fraction(1, 10)),
        ("1/48", Fraction(1, 48)),
        (" 3 ", Fraction(3)),
    ],
)
def test_what_people_write_is_taken_exactly(written: int | float | str, number: Fraction) -> None:
    assert parse_multiplier(written, "M") == number


@pytest.mark.parametrize(
    "wrong", [0, -1, "0", "x", "", "1/0", "inf", "1e999999999", float("inf"), float("nan"), True, "2,4"]
)
def test_what_is_no_number_above_zero_is_refused_by_name(wrong: int | float | str) -> None:
    with pytest.raises(InputError, match=r"^G is '"):
        parse_multiplier(wrong, "G")


def test_a_fraction_that_would_not_read_back_is_refused() -> None:
    longest = Fraction(10**40 - 1, 10**39 + 1)
    assert parse_multiplier(str(parse_multiplier(longest, "M")), "M") == longest
    for wrong in (Fraction(10**40 + 1, 10**39), Fraction(10**39, 10**40 + 1)):
        with pytest.raises(InputError, match=r"^M is '.*40 digits"):
            parse_multiplier(wrong, "M")


@given(st.fractions(min_value=Fraction(1, 10**6), max_value=10**6, max_denominator=10**30))
def test_the_plain_form_reads_back(number: Fraction) -> None:
    plain = plain_multiplier(number)
    assert parse_multiplier(plain, "M") == number
    assert isinstance(plain, int) == (number.denominator == 1)


_FRACTIONS = st.fractions(min_value=Fraction(1, 64), max_value=64, max_denominator=10**30)
SINGLE = _FRACTIONS | st.integers(1, 100).map(OverChannels)
SETTINGS = SINGLE | st.dictionaries(st.integers(0, 9), SINGLE, min_size=1).map(
    lambda by_stage: PerStage(tuple(sorted(by_stage.items())))
)


@given(SETTINGS)
def test_the_plain_form_of_any_setting_reads_back(setting: Setting) -> None:
    assert parse_setting(plain_multiplier(setting), "M") == setting


@given(SETTINGS, SETTINGS, SETTINGS)
def test_settings_have_one_order(a: Setting, b: Setting, c: Setting) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert sorted([a, b, c]) == sorted([c, a, b])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({2: 1, 3: "1/2", 4: "4/C"}, "2:1+3:1/2+4:4/C"),
        ({4: 8, 2: 1}, "2:1+4:8"),
        (" 4:8 + 2:1 ", "2:1+4:8"),
        ("4/C", "4/C"),
        ({3: 0.5}, "3:1/2"),
    ],
)
def test_a_setting_is_written_in_one_way(written: object, text: str) -> None:
    assert plain_multiplier(parse_setting(written, "M")) == text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("2:1+3", r"M is '2:1\+3'"),
        ("2:1+2:3", r"\bM\b.* 2\b"),
        ({"x": 1}, r"\bM\b.*'x'"),
        ({2: {3: 1}}, r"\bM\b.*3"),
        ({2: 0}, "M is '0'"),
        ({}, "M is empty"),
        ("0/C", "M is '0/C'"),
        ("4/c", "M is '4/c'"),
        ("1.5/C", "M is '1.5/C'"),
    ],
)
def test_what_is_no_setting_is_refused(wrong: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_setting(wrong, "M")


def test_the_value_of_a_layer() -> None:
    setting = parse_setting("2:4/C+3:2", "M")
    assert at_layer(at_stage(setting, 2), 48) == Fraction(4, 48)
    assert at_layer(at_stage(setting, 3), 48) == 2
    with pytest.raises(InputError, match=r"\b4\b"):
        at_stage(setting, 4)
