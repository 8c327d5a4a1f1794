from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.design.conditions import Row, Written, conditions
from tests.examples import examples
from wnexplore.design.multiplier import OverChannels, PerStage, parse_setting
from wnexplore.design.where import And, Comparison, Kind, Name, Not, Or, Sign, Truth, compare, parse
from wnexplore.errors import InputError

KINDS: dict[str, Kind] = {
    "method": "text",
    "device": "text",
    "M": "multiplier",
    "G": "multiplier",
    "batch_size": "whole",
    "params": "count",
    "latency_ms": "number",
    "top1": "number",
}
M, G = Name("M"), Name("G")
STAGED = parse_setting("2:1+3:2+4:8", "M")
MIXED = parse_setting("2:1+3:4/C+4:8", "M")


def truth(expression: str, rows: Sequence[Row]) -> list[bool | None]:
    def value(side: Any, row: Row) -> Any:
        return row[side.name] if isinstance(side, Name) else side

    found = parse(expression, KINDS).truth(
        lambda leaf: Truth.of(compare(value(leaf.left, r), leaf.sign, value(leaf.right, r)) for r in rows)
    )
    assert not (found.holds & found.fails).any()
    answers = zip(found.holds.tolist(), found.fails.tolist(), strict=True)
    return [True if holds else False if fails else None for holds, fails in answers]


_settings = st.sampled_from([None, Fraction(1, 48), Fraction(2), Fraction(4), OverChannels(4), STAGED, MIXED])
_row = st.fixed_dictionaries(
    {
        "method": st.sampled_from([None, "plain", "weightnet"]),
        "device": st.sampled_from([None, "se"]),
        "M": _settings,
        "G": _settings,
        "batch_size": st.sampled_from([None, 1, 2]),
        "params": st.sampled_from([None, 350_000, 350_001, 10**17]),
        "latency_ms": st.sampled_from([None, 0.1, 2.0]),
        "top1": st.sampled_from([None, 91.25, 0.1]),
    }
)


@examples(300)
@given(conditions(KINDS), st.lists(_row, max_size=5))
def test_answers_as_a_naive_reading_row_by_row(written: Written, rows: list[Row]) -> None:
    assert truth(written.text, rows) == [written.answer(row) for row in rows]


def test_the_tree() -> None:
    read = parse("1 < M <= 4 and (method not in [plain, 'se'] or not M == G)", KINDS)
    chain = And((Comparison(Fraction(1), "<", M), Comparison(M, "<=", Fraction(4))))
    names = [Comparison(Name("method"), "==", text) for text in ("plain", "se")]
    assert read == And((chain, Or((Not(Or(tuple(names))), Not(Comparison(M, "==", G))))))
    assert read.names == {"M", "G", "method"}
    assert len({read, read}) == 1
    assert parse("(((M == 1)))", KINDS) == Comparison(M, "==", Fraction(1)) == parse("M in [1]", KINDS)


@pytest.mark.parametrize(
    ("expression", "constant"),
    [
        ("top1 == 91.2", 91.2),
        ("top1 < 1e999", float("inf")),
        ("top1 > -1e999", float("-inf")),
        ("M == 0.1", Fraction(1, 10)),
        ("M == -1/48", Fraction(-1, 48)),
        ("params < 2.5M", Fraction(2_500_000)),
        ("params < 1.5k", Fraction(1500)),
        ("method == plain", "plain"),
        ('method == "a b"', "a b"),
        ("M == '3:0.5 + 2:1'", "2:1+3:1/2"),
        ("M != '4/C'", "4/C"),
    ],
)
def test_a_constant_is_exact_or_the_nearest_float(expression: str, constant: object) -> None:
    read = parse(expression, KINDS)
    assert isinstance(read, Comparison)
    assert (type(read.right), read.right) == (type(constant), constant)


def test_a_leaf_may_answer_for_a_million_rows_at_once() -> None:
    rng = np.random.default_rng(0)
    params = rng.integers(0, 5_000_000, 1_000_000)
    known = rng.random(len(params)) < 0.9
    tests = {"<": np.less, ">=": np.greater_equal}

    def leaf(comparison: Comparison) -> Truth:
        assert comparison.left == Name("params")
        assert isinstance(comparison.right, Fraction)
        answer = tests[comparison.sign](params, float(comparison.right))
        return Truth(answer & known, ~answer & known)

    found = parse("not (params < 1M or params >= 2.5e6)", KINDS).truth(leaf)
    inside = (params >= 1_000_000) & (params < 2_500_000)
    assert (found.holds == (inside & known)).all()
    assert (found.fails == (~inside & known)).all()


@pytest.mark.parametrize(
    ("a", "sign", "b", "expected"),
    [
        (STAGED, "<=", 8, True),
        (STAGED, "<", 8, False),
        (8, ">=", STAGED, True),
        (STAGED, "!=", 2, False),  # it is 2 in one stage
        (STAGED, "==", 2, False),
        (STAGED, "==", STAGED, True),
        (STAGED, "<=", parse_setting("2:1+3:2+4:9", "G"), True),
        (STAGED, "<=", parse_setting("2:1+3:2", "G"), None),
        (MIXED, "<=", 8, None),
        (MIXED, "==", MIXED, True),
        (OverChannels(4), "<", 10**9, None),
        (Fraction(2), "!=", OverChannels(4), None),
        (OverChannels(4), ">", OverChannels(2), True),
        (STAGED, "==", "2:1+3:2+4:8", True),
        (OverChannels(4), "==", "4/C", True),
        (Fraction(2), "!=", "4/C", True),
        ("1/48", "==", Fraction(1, 48), True),
        (None, "==", "4/C", None),
        (None, "!=", None, None),
        (0.1, "==", Fraction(1, 10), False),
        (0.1, "==", 0.1, True),
        (10**17 + 1, ">", Fraction(10**17), True),
    ],
)
def test_plain_values(a: object, sign: Sign, b: object, expected: bool | None) -> None:
    assert compare(a, sign, b) is expected


def test_a_value_for_each_stage_holds_in_every_stage_or_fails() -> None:
    rows = [{"M": value} for value in (Fraction(4), STAGED, MIXED, OverChannels(4), None)]
    assert truth("M <= 4", rows) == [True, False, None, None, None]
    assert truth("not M <= 8", rows) == [False, False, None, None, None]
    assert truth("M in [4, '4/C']", rows) == [True, False, None, True, None]
    assert truth("'2:1+3:2+4:8' == M", rows) == [False, True, False, False, None]
    assert isinstance(STAGED, PerStage)


EXPECTED = [
    ("M == 2 and and G == 1", "character 12: expected a column, a number or a text, found 'and'"),
    ("M = 2", "character 3: can't read '= 2': write == for equal"),
    ("M == 1/0", "character 8: division by zero"),
    ("M == 2 G", "character 8: expected 'and', 'or' or the end, found 'G'"),
    ("M", "character 2: expected a comparison (== != < <= > >= in), found the end"),
    ("1 == 1", "character 1: nothing to compare: neither side is a column"),
    ("params == 'x'", "character 11: a number and a text can't be compared"),
    ("M == method", "character 6: a number and a text can't be compared"),
    ("M == 'four'", "character 6: a number and a text can't be compared"),
    ("params == '4'", "character 11: a number and a text can't be compared"),
    ("M < '4/C'", "character 5: a number and a text can't be compared"),
    ("method < plain", "character 1: texts can only be compared with ==, != and in"),
    ("(" * 51 + "M", "character 51: nested more than 50 deep"),
    ("M in [1", "character 8: expected ',' or ']', found the end"),
]


@pytest.mark.parametrize(("expression", "message"), EXPECTED)
def test_errors_say_where_and_what(expression: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(expression, KINDS)
    assert str(caught.value) == f"filter, {message}"


@pytest.mark.parametrize(
    ("expression", "near", "choose"),
    [
        ("latncy_ms < 5", "latency_ms", ", ".join(KINDS)),
        ("metod", "method", ", ".join(KINDS)),
        # A number needs a number beside it.
        ("params < batchsize", "batch_size", "M, G, batch_size, params, latency_ms, top1"),
        ("M == C4", None, "M, G, batch_size, params, latency_ms, top1"),
    ],
)
def test_an_unknown_name_brings_the_nearest(expression: str, near: str | None, choose: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(expression, KINDS)
    head, _, names = str(caught.value).partition("choose from ")
    assert names == choose
    assert ("did you mean" in head) is (near is not None)
    assert near is None or f"did you mean '{near}'?" in head


HOSTILE = [
    *("", "   ", "(", ")", "()", "[", "M", "M ==", "== 2", "M == == 2", "M = 2", "M == 2 M", "M == 2 and"),
    *("and", "not", "not not", "M in", "M in []", "M in [1", "M in [1,]", "M in 1", "M not 1", "1 == 1"),
    *(
        "'a' == 'b'",
        "method == 'weightnet",
        "method < plain",
        "method == 1",
        "params == plain",
        "params == 'x'",
    ),
    *(
        "__import__('os').system('true')",
        "().__class__",
        "M.__class__ == 1",
        "method.upper() == 'SE'",
        "@frame",
    ),
    *(
        "M == 1/0",
        "M == 1/0.0",
        "M == 1//2",
        "M == 2**9",
        "M == 9**9**9",
        "M + 1 == 2",
        "M == 0x10",
        "lambda: 0",
    ),
    *("M == 1e9999999999", "params < " + "9" * 5000, "M == 1_000", "M == 3X", "M == --1", "M == 1/2/3x"),
    *(
        "(" * 5000,
        "not " * 3000 + "M == 1",
        "M == 1\x00",
        "M == ٣",
        "latncy_ms < 5",
        "M == 1; M == 2",
        "M == 1 # x",
    ),
    *("[x for x in y]", "f'{M}'", "M == `1`", "M && G", "!M", "M == 1 | G == 2", "True", "M is None", "\\"),
    *("params < topp1", "M == nan and", "{'a': 1}", "M == 1 == ", "é == 1", "method == plain, se", "💥"),
]


@pytest.mark.parametrize("expression", HOSTILE)
def test_hostile_input_is_an_input_error_of_one_line(expression: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(expression, KINDS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


_PIECES = st.sampled_from(
    [
        *("M", "G", "method", "top1", "==", "<", "in", "[", "]", "(", ")", "not", "and", "or"),
        *("1", "1/48", "'x'", ","),
    ]
)


@examples(150)
@given(st.one_of(st.text(max_size=30), st.lists(_PIECES, max_size=12).map(" ".join)))
def test_any_text_is_a_condition_or_an_input_error(expression: str) -> None:
    with suppress(InputError):
        assert parse(expression, KINDS).names <= set(KINDS)
