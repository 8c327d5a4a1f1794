"""What a message shows of a bad value."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wnexplore.errors import shown, unknown


@given(st.one_of(st.text(st.characters(), max_size=400), st.integers(), st.lists(st.floats())))
def test_what_is_shown_is_short_and_printable(value: object) -> None:
    text = shown(value, limit=40)
    assert len(text) < 80
    assert text.isprintable()


def test_an_ordinary_value_is_shown_as_it_is() -> None:
    assert shown("shufflenet_v2_x1_0") == "shufflenet_v2_x1_0"
    assert shown("größer ü") == "größer ü"
    assert shown([1, 2]) == "[1, 2]"


def test_escapes_and_surrogates_are_spelled_out() -> None:
    assert shown("\x1b[31mred\x1b[0m\n\ud800") == r"\x1b[31mred\x1b[0m\n\ud800"


def test_a_long_value_is_cut_and_counted() -> None:
    assert shown("x" * 100_000, limit=10) == "xxxxxxxxxx... (99990 more characters)"
    # No escape is cut in two, and ten of them are not ten characters.
    assert shown("\x1b" * 10, limit=10) == "\\x1b\\x1b... (8 more characters)"


def test_a_value_that_cannot_be_printed_has_its_type() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert "list" in shown(nested)


def test_an_unknown_name_is_cut_too() -> None:
    assert len(str(unknown("method", "x" * 10_000, ["plain", "se"]))) < 300
