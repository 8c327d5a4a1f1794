"""Reads YAML by the core schema of version 1.2, within bounds.

PyYAML reads YAML 1.1, where 3:2 is 182 (base 60), 010 is 8 and yes is true. Only its parser is used here;
plain scalars follow https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wnexplore.errors import InputError, shown

MAX_BYTES = 1_000_000
"""Largest file, in bytes."""
MAX_VALUES = 50_000
"""Most values of a file, with aliases expanded."""
MAX_DEPTH = 20
"""Deepest nesting of lists and mappings."""
MAX_DIGITS = 100
"""Most characters of a number."""

Places = dict[tuple[str | int, ...], str]
"""Path of a key or value -> its place ("file, line 3")."""


class Written(float):
    """A decimal number that prints as it was written, so that it can be made exact."""

    text: str

    def __new__(cls, text: str) -> Written:
        """The float nearest to `text`."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


def read_yaml(path: Path, what: str) -> tuple[Any, Places]:
    """The single document of the file `path` and the places of its parts; None for an empty file.

    Mappings have texts and integers as keys. Raises `InputError` naming file and line for a file that can't
    be read or isn't YAML, duplicate keys, recursive aliases, and anything beyond the bounds above. `what`
    describes the file: "sweep file".
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _reason(error)
        raise InputError(f"can't read {what} {shown(path)}: {reason}") from None
    name = shown(path)
    if len(raw) > MAX_BYTES:
        raise InputError(f"can't read {what} {name}: it has more than the {MAX_BYTES:,} bytes allowed")
    return _Reader(name).read(text)


def parse_yaml(text: str, name: str) -> Any:
    """The single document of `text`, which messages call `name`; raises `InputError` as `read_yaml` does."""
    if len(text) > MAX_BYTES:
        raise InputError(f"can't read {name}: it has more than the {MAX_BYTES:,} characters allowed")
    return _Reader(name).read(text)[0]


def dump_yaml(content: Any) -> str:
    """`content` as YAML that versions 1.1 and 1.2 read alike, with quotes where they would differ."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None))


@dataclass
class _Anchored:
    """The value of an anchor; `done` once it is complete."""

    value: Any = None
    values: int = 1
    depth: int = 0
    done: bool = False


@dataclass
class _Reader:
    """Builds values from parser events one at a time: nothing is expanded before it is counted."""

    file: str
    places: Places = field(default_factory=dict)
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    values: int = 0

    def read(self, text: str) -> tuple[Any, Places]:
        self.places[()] = self.file
        try:
            events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            return self._document(iter(events)), self.places
        except InputError:
            raise
        except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "a character that YAML doesn't allow"
            raise InputError(f"{self.file}{line}: not valid YAML: {shown(problem)}") from None
        except (ValueError, OverflowError):  # \UFFFFFFFF, which PyYAML passes to chr
            raise InputError(f"{self.file}: not valid YAML: an invalid character") from None

    def _document(self, events: Iterator[Any]) -> Any:
        value, documents = None, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._wrong(event, "a second document: expected one")
                value, _ = self._value(next(events), events, (), 0)
        return value

    def _value(self, event: Any, events: Iterator[Any], at: tuple[str | int, ...], depth: int) -> Any:
        """The value that starts with `event`, and its depth."""
        self.places.setdefault(at, self._line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        self._count(event, 1)
        anchored = _Anchored()
        before = self.values
        if event.anchor is not None:
            self.anchors[event.anchor] = anchored
        if isinstance(event, yaml.ScalarEvent):
            anchored.value = self._scalar(event)
        else:
            if depth >= MAX_DEPTH:
                raise self._wrong(event, f"nested more than {MAX_DEPTH} deep")
            if isinstance(event, yaml.SequenceStartEvent):
                anchored.value, anchored.depth = self._sequence(event, events, at, depth + 1)
            else:
                anchored.value, anchored.depth = self._mapping(event, events, at, depth + 1)
        anchored.values = 1 + self.values - before
        anchored.done = True
        return anchored.value, anchored.depth

    def _alias(self, event: Any, depth: int) -> Any:
        anchored = self.anchors.get(event.anchor)
        if anchored is None:
            raise self._wrong(event, f"alias '*{shown(event.anchor)}' has no anchor before it")
        if not anchored.done:
            raise self._wrong(event, f"alias '*{shown(event.anchor)}' refers to itself")
        self._count(event, anchored.values)
        if depth + anchored.depth > MAX_DEPTH:
            raise self._wrong(event, f"nested more than {MAX_DEPTH} deep")
        return anchored.value, anchored.depth

    def _sequence(self, event: Any, events: Iterator[Any], at: tuple[str | int, ...], depth: int) -> Any:
        self._check_tag(event, "seq")
        found: list[Any] = []
        deepest = 0
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            value, below = self._value(event, events, (*at, len(found)), depth)
            found.append(value)
            deepest = max(deepest, below)
        return found, 1 + deepest

    def _mapping(self, event: Any, events: Iterator[Any], at: tuple[str | int, ...], depth: int) -> Any:
        self._check_tag(event, "map")
        found: dict[Any, Any] = {}
        deepest = 0
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._key(event, events, depth)
            below = (*at, str(key))
            if below in self.places:
                raise self._wrong(event, f"key '{shown(key)}' stands twice")
            self.places[below] = self._line(event)
            found[key], deep = self._value(next(events), events, below, depth)
            deepest = max(deepest, deep)
        return found, 1 + deepest

    def _key(self, event: Any, events: Iterator[Any], depth: int) -> Hashable:
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise self._wrong(event, "'<<' merges keys only in YAML 1.1: write them out")
        if isinstance(event, yaml.CollectionStartEvent):
            raise self._wrong(event, "a list or mapping as a key: expected a word or a whole number")
        key, _ = self._value(event, events, ("?", len(self.places)), depth)
        if type(key) is not int and not isinstance(key, str):
            raise self._wrong(event, f"'{shown(key)}' as a key: expected a word or a whole number")
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self._wrong(event, "half of a surrogate pair, which is not a character")
        tag = event.tag
        if tag is None or tag == "!":
            # A tag of "!" or quotes make it a text.
            plain = tag is None and event.implicit[0]
            return self._plain(event, text) if plain else text
        name = tag.removeprefix(_TAGS)
        if name not in ("str", "int", "float", "bool", "null") or name == tag:
            raise self._wrong(event, f"tag '{shown(tag)}' is not one of YAML's core schema")
        if name == "str":
            return text
        value = self._plain(event, text)
        kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
        if not isinstance(value, kinds[name]) or (name != "bool" and isinstance(value, bool)):
            raise self._wrong(event, f"'{shown(text)}' is not what its tag !!{name} says")
        return value

    def _plain(self, event: Any, text: str) -> Any:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        base = next((base for base, pattern in _WHOLE.items() if pattern.fullmatch(text)), None)
        if base is None and not _DECIMAL.fullmatch(text):
            return text
        if len(text) > MAX_DIGITS:
            raise self._wrong(event, f"a number of {len(text):,} characters: expected at most {MAX_DIGITS}")
        if base is not None:
            return int(text, base)
        number = Written(text)
        if math.isinf(number) or (not number and re.search("[1-9]", text.lower().partition("e")[0])):
            raise self._wrong(event, f"'{shown(text)}' is too large or too small a number")
        return number

    def _check_tag(self, event: Any, name: str) -> None:
        if event.tag not in (None, "!", _TAGS + name):
            raise self._wrong(event, f"tag '{shown(event.tag)}' is not one of YAML's core schema")

    def _count(self, event: Any, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise self._wrong(event, f"more than {MAX_VALUES:,} values, aliases written out")

    def _line(self, event: Any) -> str:
        return f"{self.file}, line {event.start_mark.line + 1}"

    def _wrong(self, event: Any, problem: str) -> InputError:
        return InputError(f"{self._line(event)}: {problem}")


_TAGS = "tag:yaml.org,2002:"
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + name: math.inf for name in (".inf", ".Inf", ".INF") for sign in ("", "+")},
    **{f"-{name}": -math.inf for name in (".inf", ".Inf", ".INF")},
}
_WHOLE = {
    10: re.compile(r"[-+]?[0-9]+"),
    8: re.compile(r"0o[0-7]+"),
    16: re.compile(r"0x[0-9a-fA-F]+"),
}
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _is_text(text: str) -> bool:
    """Whether a plain scalar is a string by the core schema."""
    patterns = (*_WHOLE.values(), _DECIMAL)
    return text not in _CONSTANTS and not any(pattern.fullmatch(text) for pattern in patterns)


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 or 1.2 would read as something else, and writes no aliases."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag that a reader would find."""
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if kind is yaml.ScalarNode and implicit[0] and tag == f"{_TAGS}str" and not _is_text(value):
            return f"{_TAGS}float"
        return tag

    def ignore_aliases(self, data: Any) -> bool:
        """Always true: values are written in full."""
        return True


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not a file name"  # a NUL in it
