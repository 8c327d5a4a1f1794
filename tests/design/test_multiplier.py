from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.design.multiplier import parse_multiplier, plain_multiplier
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
    with pytest.raises(InputError, match=r"^G is '.*': expected a number above 0"):
        parse_multiplier(wrong, "G")


@given(st.fractions(min_value=Fraction(1, 10**6), max_value=10**6))
def test_the_plain_form_reads_back(number: Fraction) -> None:
    plain = plain_multiplier(number)
    assert parse_multiplier(plain, "M") == number
    assert isinstance(plain, int) == (number.denominator == 1)
