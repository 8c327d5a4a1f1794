"""Random conditions as text, each with a naive answer for one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from wnexplore.design.multiplier import OverChannels, PerStage
from wnexplore.design.where import Kind

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """A condition: `level` is 0 for an or, 1 for an and, 2 for what binds tighter."""

    text: str
    level: int
    answer: Callable[[Row], bool | None]

    def within(self, level: int) -> str:
        """The text as a part of a condition of that level."""
        return self.text if self.level >= level else f"({self.text})"


NUMBERS = {
    **{
        text: Fraction(text) for text in ("0", "1", "2", "4.0", "-1", "0.1", "1/48", "2e0", "91.25", "350001")
    },
    "0.4M": Fraction(400_000),
    "350k": Fraction(350_000),
}
TEXTS = ("plain", "weightnet", "se", "none of them")
MULTIPLIERS = ("2", "1/48", "4/C", "2:1+3:2+4:8", "9:1/2")
SIGNS = ("==", "!=", "<", "<=", ">", ">=")


def naive(a: Any, sign: str, b: Any) -> bool | None:
    """Whether `a sign b`, as it is defined: in every stage, nothing said about 4/C beside a number."""
    if a is None or b is None:
        return None
    if isinstance(a, str) or isinstance(b, str):
        return (str(a) == str(b)) is (sign == "==")
    pairs = [(x, y) for x in _stages(a) for y in _stages(b)]
    if any(isinstance(side, OverChannels) for pair in pairs for side in pair):
        return None
    return all(eval(f"x {sign} y", {"x": x, "y": y}) for x, y in pairs)


def conditions(kinds: Mapping[str, Kind]) -> st.SearchStrategy[Written]:
    """Conditions on these columns, up to a dozen comparisons each."""
    return st.recursive(
        _comparisons(kinds), lambda inner: st.one_of(_nots(inner), _several(inner)), max_leaves=12
    )


def _stages(value: Any) -> list[Any]:
    return [stage for _, stage in value.stages] if isinstance(value, PerStage) else [value]


def _comparisons(kinds: Mapping[str, Kind]) -> st.SearchStrategy[Written]:
    numeric = st.sampled_from([name for name, kind in kinds.items() if kind != "text"])
    texts = st.sampled_from([name for name, kind in kinds.items() if kind == "text"])
    multipliers = st.sampled_from([name for name, kind in kinds.items() if kind == "multiplier"])
    plain = st.sampled_from([name for name, kind in kinds.items() if kind not in ("text", "multiplier")])
    signs, numbers = st.sampled_from(SIGNS), st.sampled_from(list(NUMBERS))

    def number(text: str, name: str) -> Any:
        return float(NUMBERS[text]) if kinds[name] == "number" else NUMBERS[text]

    def chain(low: str, first: str, name: str, second: str, high: str) -> Written:
        ends = number(low, name), number(high, name)
        return Written(
            f"{low} {first} {name} {second} {high}",
            2,
            lambda row: _all([naive(ends[0], first, row[name]), naive(row[name], second, ends[1])]),
        )

    def against(name: str, sign: str, text: str, turned: bool) -> Written:
        value = number(text, name)
        if turned:
            return Written(f"{text}{sign}{name}", 2, lambda row: naive(value, sign, row[name]))
        return Written(f"{name}{sign}{text}", 2, lambda row: naive(row[name], sign, value))

    def columns(a: str, sign: str, b: str) -> Written:
        return Written(f"{a} {sign} {b}", 2, lambda row: naive(row[a], sign, row[b]))

    def text(name: str, sign: str, value: str) -> Written:
        return Written(f"{name} {sign} {_quoted(value)}", 2, lambda row: naive(row[name], sign, value))

    def members(column: tuple[str, Sequence[tuple[str, Any]]], negated: bool) -> Written:
        name, values = column
        listed = ", ".join(written for written, _ in values)

        def answer(row: Row) -> bool | None:
            equal = _any([naive(row[name], "==", value) for _, value in values])
            return None if equal is None else equal is not negated

        return Written(f"{name} {'not ' * negated}in [{listed}]", 2, answer)

    some_numbers = numeric.flatmap(
        lambda name: st.tuples(
            st.just(name), st.lists(numbers.map(lambda t: (t, number(t, name))), min_size=1, max_size=3)
        )
    )
    some_texts = st.tuples(
        texts, st.lists(st.sampled_from(TEXTS).map(lambda t: (_quoted(t), t)), min_size=1, max_size=3)
    )
    equality = st.sampled_from(SIGNS[:2])
    return st.one_of(
        st.builds(against, numeric, signs, numbers, st.booleans()),
        st.builds(chain, numbers, signs, numeric, signs, numbers),
        st.builds(columns, plain, signs, plain),
        st.builds(columns, multipliers, signs, plain),
        st.builds(text, texts, equality, st.sampled_from(TEXTS)),
        st.builds(text, multipliers, equality, st.sampled_from(MULTIPLIERS)),
        st.builds(members, st.one_of(some_numbers, some_texts), st.booleans()),
    )


def _nots(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
    def negated(part: Written) -> Written:
        def answer(row: Row) -> bool | None:
            found = part.answer(row)
            return None if found is None else not found

        return Written(f"not {part.within(2)}", 2, answer)

    return inner.map(negated)


def _several(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
    def joined(parts: list[Written], word: str) -> Written:
        level, rule = (0, _any) if word == "or" else (1, _all)
        text = f" {word} ".join(part.within(level + 1) for part in parts)
        return Written(text, level, lambda row: rule([part.answer(row) for part in parts]))

    return st.builds(joined, st.lists(inner, min_size=2, max_size=4), st.sampled_from(("and", "or")))


def _all(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def _any(answers: list[bool | None]) -> bool | None:
    if True in answers:
        return True
    return None if None in answers else False


def _quoted(text: str) -> str:
    # A word may stand without quotes; "se" is one that does here.
    return text if text == "se" else f"'{text}'"
