"""Conditions on the columns of a table, in a small language; nothing is evaluated as code.

condition  = all { "or" all }                 all  = part { "and" part }
part       = "not" part | "(" condition ")" | comparison
comparison = value ("==" "!=" "<" "<=" ">" ">=") value [again, as in 1 < M <= 4]
           | column ["not"] "in" "[" value { "," value } "]"
value      = column | number | text
number     = 2, 2.5, 1e6, 3M (also k, G, T), 1/48;   text = 'quoted', "quoted" or bare

Where a value is missing a comparison neither holds nor fails, so that neither it nor its negation matches.
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from wnexplore.design.multiplier import OverChannels, PerStage, parse_setting
from wnexplore.errors import InputError, unknown

Kind = Literal["text", "multiplier", "whole", "count", "number"]
"""Kinds of columns: text, M or G, small or large integers, floats."""

PREFIXES = (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3))
"""The suffixes of numbers and their factors, largest first."""

Flags = np.ndarray[Any, np.dtype[np.bool_]]


class Truth(NamedTuple):
    """For each row whether a condition holds, and whether it fails; neither if unknown."""

    holds: Flags
    fails: Flags

    @classmethod
    def of(cls, answers: Iterable[bool | None]) -> Truth:
        """From one answer per row, None if unknown."""
        known = list(answers)
        return cls(*(np.array([a is wanted for a in known], dtype=np.bool_) for wanted in (True, False)))


class Condition(ABC):
    """A tree of `And`, `Or` and `Not` over comparisons."""

    @property
    @abstractmethod
    def names(self) -> frozenset[str]:
        """The columns used."""

    @abstractmethod
    def truth(self, leaf: Callable[[Comparison], Truth]) -> Truth:
        """Its truth in each row, in Kleene's three-valued logic; `leaf` evaluates comparisons."""


@dataclass(frozen=True)
class _Several(Condition):
    parts: tuple[Condition, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for part in self.parts for name in part.names)


class And(_Several):
    """Holds where all parts hold, fails where one fails."""

    def truth(self, leaf: Callable[[Comparison], Truth]) -> Truth:
        parts = (part.truth(leaf) for part in self.parts)
        return reduce(lambda a, b: Truth(a.holds & b.holds, a.fails | b.fails), parts)


class Or(_Several):
    """Holds where one part holds, fails where all fail."""

    def truth(self, leaf: Callable[[Comparison], Truth]) -> Truth:
        parts = (part.truth(leaf) for part in self.parts)
        return reduce(lambda a, b: Truth(a.holds | b.holds, a.fails & b.fails), parts)


@dataclass(frozen=True)
class Not(Condition):
    """Holds where its part fails, fails where it holds."""

    part: Condition

    @property
    def names(self) -> frozenset[str]:
        return self.part.names

    def truth(self, leaf: Callable[[Comparison], Truth]) -> Truth:
        holds, fails = self.part.truth(leaf)
        return Truth(fails, holds)


@dataclass(frozen=True)
class Name:
    """The column of this name, as a side of a comparison."""

    name: str


Side = Name | Fraction | float | str
"""A column or a constant: a float if compared with a column of floats, otherwise an exact number or a
text."""

Sign = Literal["==", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Comparison(Condition):
    """One or two columns compared: at least one side is a `Name`."""

    left: Side
    sign: Sign
    right: Side

    @property
    def names(self) -> frozenset[str]:
        return frozenset(side.name for side in (self.left, self.right) if isinstance(side, Name))

    def truth(self, leaf: Callable[[Comparison], Truth]) -> Truth:
        return leaf(self)


def parse(expression: str, kinds: Mapping[str, Kind]) -> Condition:
    """Parse `expression` over the columns `kinds`: name -> kind of the column.

    A number compared with a column of floats is the nearest float, so that 91.2 matches the printed value;
    otherwise it is exact. An M or G can also be equal to a quoted text, '2:1+3:2'. Raises `InputError` with
    the position of a mistake, or the nearest name of an unknown column.
    """
    return _Parser(expression, kinds).parse()


def compare(a: Any, sign: Sign, b: Any) -> bool | None:
    """Whether `a sign b` for two values of rows or constants; None if one is missing or it is undecidable.

    Values per stage are compared in every stage: M <= 4 means at most 4 in each, M != 2 means 2 in none, and
    a comparison that doesn't hold in all stages fails. 4/C depends on the layer: compared with a number it is
    undecidable. Compared with a text, a value is its written form.
    """
    if a is None or b is None:
        return None
    test = _SIGNS[sign]
    if isinstance(a, str) or isinstance(b, str):
        return test(str(a), str(b))
    answers = [_test(test, left, right) for left, right in _by_stage(a, b)]
    return None if None in answers else all(answers)


def _by_stage(a: Any, b: Any) -> Sequence[tuple[Any, Any]]:
    if not isinstance(a, PerStage):
        return [(a, number) for _, number in b.stages] if isinstance(b, PerStage) else [(a, b)]
    if not isinstance(b, PerStage):
        return [(number, b) for _, number in a.stages]
    ours, theirs = dict(a.stages), dict(b.stages)
    return [(ours.get(stage), theirs.get(stage)) for stage in ours | theirs]


def _test(test: Callable[[Any, Any], bool], a: Any, b: Any) -> bool | None:
    if isinstance(a, OverChannels) and isinstance(b, OverChannels):
        # Over the same channels in every layer.
        return test(a.count, b.count)
    if a is None or b is None or isinstance(a, OverChannels) or isinstance(b, OverChannels):
        return None
    return test(a, b)


_SIGNS: dict[Sign, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


@dataclass(frozen=True)
class _Value:
    """One side of a comparison as written: a column (with its kind), a number or a text."""

    token: _Token
    kind: Kind | None = None
    number: Fraction | None = None

    @property
    def numeric(self) -> bool:
        return self.number is not None or self.kind not in (None, "text")

    @property
    def bare(self) -> bool:
        """Whether it is an unquoted word that is not a column."""
        return self.kind is None and self.token.kind == "word"


# A bare word may contain the characters of device and data set names; there is no arithmetic.
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?[kMGT]?)(?![\w.])
    | (?P<word>[^\W\d][\w.:-]*)
    | (?P<text>'[^']*'|"[^"]*")
    | (?P<mark>==|!=|<=|>=|[<>()\[\],/+-])
    """,
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in")
_MAX_LENGTH = 10_000
_MAX_DEPTH = 50
_HINTS = {"=": ": write == for equal", "&": ": write and", "|": ": write or", "!": ": write != or not"}


class _Parser:
    """A recursive-descent parser with one method per rule."""

    def __init__(self, expression: str, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._tokens = _tokens(expression)
        self._next = 0
        self._depth = 0

    def parse(self) -> Condition:
        condition = self._any()
        if self._token.kind != "end":
            self._fail("'and', 'or' or the end")
        return condition

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> str | None:
        """Consume the next token if it is one of `texts`, and return its text."""
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

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return _joined(Or, parts)

    def _all(self) -> Condition:
        parts = [self._part()]
        while self._take("and"):
            parts.append(self._part())
        return _joined(And, parts)

    def _part(self) -> Condition:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _wrong(self._token.position, f"nested more than {_MAX_DEPTH} deep")
        if self._take("not"):
            condition: Condition = Not(self._part())
        elif self._take("("):
            condition = self._any()
            self._need(")", "')'")
        else:
            condition = self._comparison()
        self._depth -= 1
        return condition

    def _comparison(self) -> Condition:
        left = self._value()
        negated = self._take("not") is not None
        if negated or self._token.text == "in":
            self._need("in", "'in'")
            return self._membership(left, negated)
        sign = self._sign()
        if sign is None:
            if left.bare:
                raise unknown("column", left.token.text, self._kinds)
            self._fail("a comparison (== != < <= > >= in)")
        parts = []
        while sign is not None:
            right = self._value()
            parts.append(self._compare(left, sign, right))
            left, sign = right, self._sign()
        return _joined(And, parts)

    def _sign(self) -> Sign | None:
        return next((sign for sign in _SIGNS if self._take(sign)), None)

    def _membership(self, left: _Value, negated: bool) -> Condition:
        self._need("[", "'[' and a list")
        parts = [self._compare(left, "==", self._value())]
        while self._take(","):
            parts.append(self._compare(left, "==", self._value()))
        self._need("]", "',' or ']'")
        condition = _joined(Or, parts)
        return Not(condition) if negated else condition

    def _value(self) -> _Value:
        token = self._token
        if token.kind in ("word", "text"):
            self._next += 1
            return _Value(token, kind=self._kinds.get(token.text) if token.kind == "word" else None)
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

    def _compare(self, left: _Value, sign: Sign, right: _Value) -> Comparison:
        self._check(left, sign, right)
        return Comparison(_side(left, right), sign, _side(right, left))

    def _check(self, left: _Value, sign: Sign, right: _Value) -> None:
        """Raise `InputError` unless a column is compared with a value of its kind."""
        bare = next((side for side in (left, right) if side.bare), None)
        if left.kind is None and right.kind is None:
            if bare:
                raise unknown("column", bare.token.text, self._kinds)
            raise _wrong(left.token.position, "nothing to compare: neither side is a column")
        equality = sign in ("==", "!=")
        if equality and (_setting_text(left, right) or _setting_text(right, left)):
            return
        if left.numeric != right.numeric:
            if bare:
                numeric = [name for name, kind in self._kinds.items() if kind != "text"]
                raise unknown("column", bare.token.text, numeric)
            raise _wrong(right.token.position, "a number and a text can't be compared")
        if not left.numeric and not equality:
            raise _wrong(left.token.position, "texts can only be compared with ==, != and in")


def _side(value: _Value, other: _Value) -> Side:
    if value.kind is not None:
        return Name(value.token.text)
    if value.number is not None:
        return _nearest_float(value.number) if other.kind == "number" else value.number
    return _setting_text(value, other) or _text(value)


def _setting_text(value: _Value, other: _Value) -> str | None:
    """'2:1 + 3:2' compared with M or G in canonical form, "2:1+3:2"; None for other texts."""
    if other.kind != "multiplier" or value.token.kind != "text":
        return None
    try:
        return str(parse_setting(_text(value), other.token.text))
    except InputError:
        return None


def _text(value: _Value) -> str:
    return value.token.text[1:-1] if value.token.kind == "text" else value.token.text


def _joined(kind: type[And | Or], parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


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
