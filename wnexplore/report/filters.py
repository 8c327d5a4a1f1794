"""Choose and order rows: `where` reads a small language of its own, nothing is ever evaluated as code.

condition  = all { "or" all }                 all  = part { "and" part }
part       = "not" part | "(" condition ")" | comparison
comparison = value ("==" "!=" "<" "<=" ">" ">=") value [again, as in 1 < M <= 4]
           | column ["not"] "in" "[" value { "," value } "]"
value      = column | number | text
number     = 2, 2.5, 1e6, 3M (also k, G, T), 1/48;   text = 'quoted', "quoted" or bare
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

import pandas as pd

from wnexplore.errors import InputError, unknown
from wnexplore.report.columns import COLUMNS, PREFIXES, Column, column
from wnexplore.report.frame import cells

Truth = list[bool | None]
"""One answer a row; None where a value is missing, which no condition matches, negated or not."""


def where(frame: pd.DataFrame, expression: str) -> pd.DataFrame:
    """The rows of `frame` for which `expression` holds, in their order.

    A comparison with a missing value is neither true nor false, so that neither it nor its negation
    matches. Raises `InputError` with the position of a mistake, or the nearest name of an unknown
    column.
    """
    truth = _Parser(frame, expression).parse()
    return frame[[answer is True for answer in truth]].reset_index(drop=True)


def sort(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """`frame` ordered by a column, "-top1" for the largest first, "backbone,-top1" for several.

    Rows with a missing value come last either way, equal ones keep their order. Raises `InputError`
    for an unknown column.
    """
    order = list(range(len(frame)))
    for part in reversed(key.split(",")):
        name = part.strip()
        descending = name.startswith("-")
        values = cells(frame, column(name.removeprefix("-").strip()).name)
        known = [index for index in order if values[index] is not None]
        known.sort(key=values.__getitem__, reverse=descending)
        order = known + [index for index in order if values[index] is None]
    return frame.iloc[order].reset_index(drop=True)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


@dataclass(frozen=True)
class _Value:
    """One side of a comparison: a column, a number or a text."""

    token: _Token
    column: Column | None = None
    number: Fraction | None = None

    @property
    def numeric(self) -> bool:
        return self.number is not None or (self.column is not None and self.column.numeric)


# A bare word may hold what device and data set names hold; there is no arithmetic to mistake it for.
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?[kMGT]?)(?![\w.])
    | (?P<word>[^\W\d][\w.:-]*)
    | (?P<text>'[^']*'|"[^"]*")
    | (?P<mark>==|!=|<=|>=|[<>()\[\],/+-])
    """,
    re.VERBOSE,
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_KEYWORDS = ("and", "or", "not", "in")
_MAX_LENGTH = 10_000
_MAX_DEPTH = 50
_HINTS = {"=": ": write == for equal", "&": ": write and", "|": ": write or", "!": ": write != or not"}


class _Parser:
    """Recursive descent; each rule returns the truth of what it read for every row."""

    def __init__(self, frame: pd.DataFrame, expression: str) -> None:
        self._frame = frame
        self._tokens = _tokens(expression)
        self._next = 0
        self._depth = 0

    def parse(self) -> Truth:
        truth = self._any()
        if self._token.kind != "end":
            self._fail("'and', 'or' or the end")
        return truth

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> str | None:
        """The next token's text if it is one of these marks or keywords."""
        token = self._token
        if token.kind in ("mark", "keyword") and token.text in texts:
            self._next += 1
            return token.text
        return None

    def _need(self, text: str, expected: str) -> None:
        if self._take(text) is None:
            self._fail(expected)

    def _fail(self, expected: str) -> NoReturn:
        token = self._token
        found = "the end" if token.kind == "end" else repr(token.text[:40])
        raise _wrong(token.position, f"expected {expected}, found {found}")

    def _any(self) -> Truth:
        truth = self._all()
        while self._take("or"):
            truth = [_or(a, b) for a, b in zip(truth, self._all(), strict=True)]
        return truth

    def _all(self) -> Truth:
        truth = self._part()
        while self._take("and"):
            truth = [_and(a, b) for a, b in zip(truth, self._part(), strict=True)]
        return truth

    def _part(self) -> Truth:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _wrong(self._token.position, f"nested more than {_MAX_DEPTH} deep")
        if self._take("not"):
            truth: Truth = [None if answer is None else not answer for answer in self._part()]
        elif self._take("("):
            truth = self._any()
            self._need(")", "')'")
        else:
            truth = self._comparison()
        self._depth -= 1
        return truth

    def _comparison(self) -> Truth:
        left = self._value()
        negated = self._take("not") is not None
        if negated or self._token.text == "in":
            self._need("in", "'in'")
            return self._membership(left, negated)
        sign = self._take(*_COMPARISONS)
        if sign is None:
            if left.column is None and left.token.kind == "word":
                raise unknown("column", left.token.text, COLUMNS)
            self._fail("a comparison (== != < <= > >= in)")
        right = self._value()
        truth = self._compare(left, sign, right)
        while sign := self._take(*_COMPARISONS):
            left, right = right, self._value()
            truth = [_and(a, b) for a, b in zip(truth, self._compare(left, sign, right), strict=True)]
        return truth

    def _membership(self, left: _Value, negated: bool) -> Truth:
        self._need("[", "'[' and a list")
        truth: Truth = [False] * len(self._frame)
        while True:
            equal = self._compare(left, "==", self._value())
            truth = [_or(a, b) for a, b in zip(truth, equal, strict=True)]
            if not self._take(","):
                break
        self._need("]", "',' or ']'")
        return [None if answer is None else answer is not negated for answer in truth]

    def _value(self) -> _Value:
        token = self._token
        if token.kind in ("word", "text"):
            self._next += 1
            bare = token.kind == "word"
            return _Value(token, column=COLUMNS.get(token.text) if bare else None)
        if token.kind == "number" or token.text in ("+", "-"):
            return _Value(token, number=self._number())
        return self._fail("a column, a number or a text")

    def _number(self) -> Fraction:
        sign = -1 if self._take("+", "-") == "-" else 1
        number = self._digits()
        if self._take("/"):
            position = self._token.position
            divisor = self._digits()
            if divisor == 0:
                raise _wrong(position, "division by zero")
            number /= divisor
        return sign * number

    def _digits(self) -> Fraction:
        token = self._token
        if token.kind != "number":
            self._fail("a number")
        self._next += 1
        scale = dict(PREFIXES).get(token.text[-1])
        return Fraction(token.text if scale is None else token.text[:-1]) * (scale or 1)

    def _compare(self, left: _Value, sign: str, right: _Value) -> Truth:
        _check(left, sign, right)
        pairs = zip(self._side(left, right), self._side(right, left), strict=True)
        test = _COMPARISONS[sign]
        return [None if a is None or b is None else test(a, b) for a, b in pairs]

    def _side(self, value: _Value, other: _Value) -> list[Any]:
        if value.column is not None:
            return cells(self._frame, value.column.name)
        constant: Any = value.token.text if value.number is None else value.number
        if value.token.kind == "text":
            constant = value.token.text[1:-1]
        if value.number is not None and other.column is not None and other.column.kind == "number":
            # 91.2 means the float that is written so, not the exact decimal next to it.
            constant = _nearest_float(value.number)
        return [constant] * len(self._frame)


def _check(left: _Value, sign: str, right: _Value) -> None:
    """`InputError` unless a column is compared with something of its own kind."""
    bare = [side for side in (left, right) if side.column is None and side.token.kind == "word"]
    if left.column is None and right.column is None:
        if bare:
            raise unknown("column", bare[0].token.text, COLUMNS)
        raise _wrong(left.token.position, "nothing to compare: neither side is a column")
    if left.numeric != right.numeric:
        if bare:
            raise unknown("column", bare[0].token.text, [n for n, c in COLUMNS.items() if c.numeric])
        raise _wrong(right.token.position, "a number and a text can't be compared")
    if not left.numeric and sign not in ("==", "!="):
        raise _wrong(left.token.position, "texts can only be compared with ==, != and in")


def _tokens(expression: str) -> list[_Token]:
    if len(expression) > _MAX_LENGTH:
        raise InputError(f"filter has {len(expression)} characters: more than {_MAX_LENGTH}")
    tokens = []
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            character = expression[position]
            hint = _HINTS.get(character, "")
            raise _wrong(position, f"can't read {expression[position : position + 20]!r}{hint}")
        kind, text = str(match.lastgroup), match.group()
        if kind == "word" and text in _KEYWORDS:
            kind = "keyword"
        if kind != "space":
            tokens.append(_Token(kind, text, position))
        position = match.end()
    return [*tokens, _Token("end", "", len(expression))]


def _wrong(position: int, problem: str) -> InputError:
    return InputError(f"filter, character {position + 1}: {problem}")


def _nearest_float(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _and(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def _or(a: bool | None, b: bool | None) -> bool | None:
    if a is True or b is True:
        return True
    return None if a is None or b is None else False
