"""Reads rows of the store as records, with strict checks, since the file may have been modified."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Literal, NotRequired, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import SchemaValidator, from_json
from typing_extensions import TypedDict

from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, shown
from wnexplore.results.record import (
    FIGURES,
    EndedBy,
    Figure,
    Record,
    Status,
    key_of_parts,
    point_part,
    protocol_part,
)

COLUMNS = ("key", "figure", "point", "protocol", "status", "value", "samples", "error", "made_at")
"""The columns of a row, before the content of its environment."""

MAX_DEPTH = 10
"""Deepest nesting of lists and objects in one of its texts."""


class DamagedRowError(ValueError):
    """A damaged row; one line that names the field."""


class RowReader:
    """Converts rows to records; parts that many rows share (points, protocols, environments) are checked
    once.
    """

    def __init__(self) -> None:
        self._points: dict[str, tuple[DesignPoint, str]] = {}
        self._protocols: dict[str, tuple[dict[str, Any], str]] = {}
        self._environments: dict[str, Mapping[str, Any]] = {}

    def record(self, row: Sequence[Any], samples_of: Collection[Figure] = FIGURES) -> Record:
        """The record of a row of `COLUMNS` and its environment. Raises `DamagedRowError`.

        Samples of figures not in `samples_of` are checked too, but left out.
        """
        # Nearly every row is valid, which is checked fast; otherwise the error is determined.
        record = self._valid(row, samples_of)
        return self._checked(row, samples_of) if record is None else record

    def point(self, text: Any) -> DesignPoint:
        """The point of a row with this text. Raises `DamagedRowError`."""
        if not isinstance(text, str):
            raise DamagedRowError(f"point is '{shown(text)}': expected text")
        return _once(self._points, text, _point)[0]

    def _valid(self, row: Sequence[Any], samples_of: Collection[Figure]) -> Record | None:
        """The record of a row that is certainly valid; None for others."""
        key, figure, point, protocol, status, value, samples, error, made_at, environment = row
        if set(map(type, row)) - {NoneType} != {str} or row.count(None) != (error is None):
            return None
        try:
            network, of_network = _once(self._points, point, _point)
            settings, of_settings = _once(self._protocols, protocol, _protocol)
            origin = _once(self._environments, environment, _environment)
        except DamagedRowError:
            return None
        try:
            datetime.fromisoformat(made_at)
        except ValueError:
            return None
        if figure not in _VALUES or status not in _STATUSES:
            return None
        figures = _valid_value(value, _REQUIRED[figure] if status == "ok" else ())
        if figures is None:
            return None
        kept = figure in samples_of
        curves: dict[str, Any] | None = {} if samples == "{}" else _valid_samples(samples, kept)
        if curves is None:
            return None
        rounds, times = figures.get("rounds"), curves.get("latency_ms")
        if rounds is not None and times and len(times) != rounds:
            return None
        if key_of_parts(figure, of_network, of_settings) != key:
            return None
        # As its constructor would do it, which takes longer, because a record is frozen.
        record = Record.__new__(Record)
        vars(record).update(
            figure=figure,
            point=network,
            protocol=settings,
            status=status,
            value=figures,
            samples=curves if kept else {},
            error=error,
            environment=origin,
            key=key,
        )
        return record

    def _checked(self, row: Sequence[Any], samples_of: Collection[Figure]) -> Record:
        fields = dict(zip((*COLUMNS, "environment"), row, strict=True))
        optional = ("error",)
        for name, value in fields.items():
            if not isinstance(value, str) and not (value is None and name in optional):
                raise DamagedRowError(f"{name} is '{shown(value)}': expected text")
        figure = _one_of(fields, "figure", FIGURES)
        status = _one_of(fields, "status", _STATUSES)
        try:
            datetime.fromisoformat(fields["made_at"])
        except ValueError:
            raise DamagedRowError(f"made_at is '{shown(fields['made_at'])}': expected a date") from None
        point, of_point = _once(self._points, fields["point"], _point)
        protocol, of_protocol = _once(self._protocols, fields["protocol"], _protocol)
        value = _checked(fields["value"], "value", _VALUES[figure] if status == "ok" else _Value)
        samples = {} if fields["samples"] == "{}" else _checked(fields["samples"], "samples", _Samples)
        rounds, times = value.get("rounds"), samples.get("latency_ms")
        if rounds is not None and times and len(times) != rounds:
            raise DamagedRowError(f"samples.latency_ms has {len(times)} values, and value.rounds is {rounds}")
        if key_of_parts(figure, of_point, of_protocol) != fields["key"]:
            raise DamagedRowError("key is that of another point or protocol")
        record = Record(
            figure=figure,
            point=point,
            protocol=protocol,
            status=status,
            value=value,
            samples=samples if figure in samples_of else {},
            error=fields["error"],
            environment=_once(self._environments, fields["environment"], _environment),
        )
        # Known already: hashing it again takes as long as reading it.
        vars(record)["key"] = fields["key"]
        return record


_STATUSES = get_args(Status)
_T = TypeVar("_T")


def _once(known: dict[str, _T], text: str, make: Callable[[str], _T]) -> _T:
    if text not in known:
        known[text] = make(text)
    return known[text]


def _one_of(fields: Mapping[str, Any], name: str, valid: tuple[Any, ...]) -> Any:
    if fields[name] not in valid:
        raise DamagedRowError(f"{name} is '{shown(fields[name])}': expected one of {', '.join(valid)}")
    return fields[name]


def _object(text: str, name: str) -> dict[str, Any]:
    """Parse a JSON object, within bounds, and without NaN and Infinity, which JSON lacks."""
    # Nearly every text is valid, which is checked fast; otherwise the error is determined.
    try:
        content = _DECODER.decode(text)
        brackets = text.count("[") + text.count("{")
        if isinstance(content, dict) and brackets <= MAX_DEPTH and "\\u" not in text and _finite(content):
            return content
    except (ValueError, RecursionError):
        pass
    return _object_or_why_not(text, name)


def _valid_object(text: str) -> dict[str, Any] | None:
    """What `_object` returns for a text that is certainly valid; None for others."""
    content = _parsed(text)
    # There are at least as many colons as keys, so that none was lost because it stands twice.
    return content if content is not None and text.count(":") == _keys(content) else None


def _parsed(text: str) -> dict[str, Any] | None:
    """The JSON object of `text`, of keys that stand twice one; None for what needs a closer look."""
    if text.count("[") + text.count("{") > MAX_DEPTH or "\\u" in text:
        return None
    try:
        content = from_json(text, allow_inf_nan=False)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _keys(content: dict[str, Any] | list[Any]) -> float:
    """The number of keys in `content`, without NaN, whatever their depth; NaN if a number is infinite."""
    found, values = (float(len(content)), content.values()) if isinstance(content, dict) else (0.0, content)
    for value in values:
        if type(value) is float:
            # Zero for finite numbers, NaN for others.
            found += value - value
        elif value and type(value) in _NESTED:
            found += _keys(value)
    return found


_NESTED = (dict, list)


def _object_or_why_not(text: str, name: str) -> dict[str, Any]:
    def refuse(constant: str) -> Any:
        raise DamagedRowError(f"{name} holds {constant}, which is no number")

    try:
        content = json.loads(text, parse_constant=refuse, parse_float=_number, object_pairs_hook=_distinct)
    except DamagedRowError:
        raise
    except RecursionError:
        raise DamagedRowError(f"{name} is nested too deep") from None
    except ValueError as error:
        raise DamagedRowError(f"{name} is no JSON: {shown(error)}") from None
    if not isinstance(content, dict):
        raise DamagedRowError(f"{name} is '{shown(content)}': expected a JSON object")
    if _too_deep(content, MAX_DEPTH):
        raise DamagedRowError(f"{name} is nested more than {MAX_DEPTH} deep")
    if "\\u" in text:
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DamagedRowError(f"{name} holds half of a surrogate pair") from None
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_distinct)
"""Its numbers are parsed in C, where overflow is infinite."""


def _finite(content: dict[str, Any] | list[Any]) -> bool:
    """Whether all numbers in `content`, which has no NaN, are finite."""
    values = content.values() if isinstance(content, dict) else content
    # A sum with infinite terms is never finite.
    if not math.isfinite(sum([value for value in values if type(value) is float])):
        return False
    inner = [value for value in values if value and isinstance(value, (dict, list))]
    return not inner or all(map(_finite, inner))


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number too large")
    return number


def _too_deep(content: Any, left: int) -> bool:
    if not isinstance(content, (dict, list)):
        return False
    below = content.values() if isinstance(content, dict) else content
    return left == 0 or any(_too_deep(item, left - 1) for item in below if isinstance(item, (dict, list)))


def _point(text: str) -> tuple[DesignPoint, str]:
    """The point of `text`, and its part of a key."""
    axes = _object(text, "point")
    try:
        point = DesignPoint.from_dict(axes)
    except InputError as error:
        raise DamagedRowError(str(error)) from None
    except TypeError:
        wrong = set(axes) - set(DesignPoint.__dataclass_fields__)
        name = shown(next(iter(wrong))) if wrong else "backbone"
        raise DamagedRowError(f"point has {'an unknown' if wrong else 'no'} axis '{name}'") from None
    return point, point_part(point)


def _environment(text: str) -> dict[str, Any]:
    return _object(text, "environment")


def _protocol(text: str) -> tuple[dict[str, Any], str]:
    """The protocol of `text`, and its part of a key."""
    protocol = _checked(text, "protocol", _Protocol)
    return protocol, protocol_part(protocol)


def _checked(text: str, name: str, model: type[BaseModel]) -> dict[str, Any]:
    """Parse the object `text`, validate it by `model`, and return it as written."""
    content = _object(text, name)
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = shown(".".join(map(str, (name, *first["loc"]))))
        problem = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        if first["type"] == "missing":
            raise DamagedRowError(f"{at} is missing") from None
        raise DamagedRowError(f"{at} is '{shown(first['input'])}': {shown(problem)}") from None
    return content


Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(gt=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Protocol(_Part):
    """A protocol: names, numbers and switches."""

    __pydantic_extra__: dict[str, str | int | Finite | bool | None]

    device: str | None = None
    device_name: str | None = None
    dtype: str | None = None
    batch_size: Positive | None = None
    runtime: str | None = None
    memory_format: str | None = None
    threads: Positive | None = None
    cache: str | None = None
    mode: str | None = None
    dataset: str | None = None
    path: str | None = None
    source: str | None = None
    seed: Seed | None = None
    epochs: Positive | None = None
    steps: Positive | None = None
    schedule: Literal["full", "halving"] | None = None
    min_epochs: Positive | None = None
    max_epochs: Positive | None = None
    eta: Annotated[int, Field(ge=2, le=10**9)] | None = None
    by: Literal["top1", "test_loss", "ap"] | None = None
    seed_target: Annotated[float, Field(gt=0, le=100)] | None = None
    first_seeds: Positive | None = None
    max_seeds: Positive | None = None
    seed_hours: Number | None = None
    seeds: Count | None = None

    @model_validator(mode="after")
    def _complete_schedule(self) -> Self:
        if self.schedule == "halving" and None in (self.min_epochs, self.max_epochs, self.eta):
            raise ValueError("halving without min_epochs, max_epochs and eta")
        return self


class _Warning(_Part):
    kind: str
    text: str


class _Value(_Part):
    """All figures that a record may have; the required ones depend on its kind."""

    params: Count | None = None
    flops: Count | None = None
    fvcore_flops: Count | None = None
    operators: dict[str, Number] | None = None
    uncounted: dict[str, Number] | None = None
    latency_ms: Number | None = None
    latency_ms_low: Number | None = None
    latency_ms_high: Number | None = None
    latency_ratio: Number | None = None
    latency_ratio_low: Number | None = None
    latency_ratio_high: Number | None = None
    peak_memory_mb: Number | None = None
    compile_s: Number | None = None
    energy_j: Number | None = None
    rounds: Count | None = None
    stopped_by: Literal["target", "budget"] | None = None
    warnings: list[_Warning] = Field(default_factory=list)
    top1: Percent | None = None
    ap: Percent | None = None
    ap50: Percent | None = None
    ap75: Percent | None = None
    ap_small: Percent | None = None
    ap_medium: Percent | None = None
    ap_large: Percent | None = None
    ar: Percent | None = None
    test_loss: Number | None = None
    test_images: Count | None = None
    seconds: Number | None = None
    epochs: Count | None = None
    dropped_at: Positive | None = None
    seed_target: Annotated[float, Field(gt=0, le=100)] | None = None
    first_seeds: Positive | None = None
    max_seeds: Positive | None = None
    seed_hours: Number | None = None
    ended_by: EndedBy | None = None
    damaged: list[str] = Field(default_factory=list)
    why_damaged: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, low, high in _out_of_order(vars(self)):
            raise ValueError(f"the interval of {name} goes from {low} to {high}")
        return self


def _out_of_order(value: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The intervals of a value with their bounds, the lower one of which is the higher one."""
    return [
        (name, value[below], value[above])
        for name, below, above in _INTERVALS
        if value.get(below) is not None and value.get(above) is not None and value[below] > value[above]
    ]


_INTERVALS = [(name, f"{name}_low", f"{name}_high") for name in ("latency_ms", "latency_ratio")]


class _Complexity(_Value):
    params: Count
    flops: Count


class _Latency(_Value):
    latency_ms: Number


_SCORES = ("top1", "ap")
"""A training has one of them."""


class _Training(_Value):
    @model_validator(mode="after")
    def _has_a_score(self) -> Self:
        if all(getattr(self, name) is None for name in _SCORES):
            raise ValueError(f"a training without {' or '.join(_SCORES)}")
        return self


class _Seeds(_Value):
    ended_by: EndedBy


_VALUES: dict[str, type[_Value]] = {
    "complexity": _Complexity,
    "latency": _Latency,
    "training": _Training,
    "seeds": _Seeds,
}
"""The required figures of a successful measurement."""


class _Samples(_Part):
    """Lists of numbers; related lists have equal length."""

    __pydantic_extra__: dict[str, list[Finite | None]]

    latency_ms: list[Number] = Field(default_factory=list)
    baseline_ms: list[Number] = Field(default_factory=list)
    loss: list[Finite] = Field(default_factory=list)
    tested_epochs: list[Annotated[float, Field(gt=0, le=10**9, multiple_of=1)]] = Field(default_factory=list)
    tested_top1: list[Percent] = Field(default_factory=list)
    tested_ap: list[Percent] = Field(default_factory=list)
    tested_loss: list[Number | None] = Field(default_factory=list)

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        for one, length, other, other_length in _unequal(vars(self)):
            raise ValueError(f"{one} has {length} values, and {other} {other_length}")
        return self


def _unequal(samples: Mapping[str, Sized]) -> list[tuple[str, int, str, int]]:
    """The related lists of samples with their lengths, which are not equal."""
    return [
        (one, first, other, second)
        for one, other, required in _RELATED
        if (first := len(samples.get(one, ()))) != (second := len(samples.get(other, ())))
        and ((required and not samples.get("tested_ap")) or second)
    ]


_RELATED = (
    ("tested_epochs", "tested_top1", True),
    ("tested_epochs", "tested_ap", False),
    ("latency_ms", "baseline_ms", False),
    ("latency_ms", "round_s", False),
    ("tested_epochs", "tested_loss", False),
)
"""Lists of samples of equal length, and whether the second may not be left out, but for a detector's."""


def _quick(model: type[BaseModel], extra: Literal["allow", "forbid"], **more: Any) -> SchemaValidator:
    """Checks the types of a model's fields, all of which may be left out, without making an object.

    Numbers must be finite. It needs no Python, and lets the fields of the model only come with values that
    the model accepts.
    """
    fields = {
        name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for name, field in model.model_fields.items()
    }
    every = {name: NotRequired[kind] for name, kind in (fields | more).items()}
    content: Any = TypedDict(f"{model.__name__}Content", every)  # type: ignore[misc]
    setattr(content, "__pydantic_config__", ConfigDict(strict=True, extra=extra, allow_inf_nan=False))  # noqa: B010
    validator = TypeAdapter(content).validator
    assert isinstance(validator, SchemaValidator)
    return validator


_REQUIRED: dict[str, list[tuple[str, ...]]] = {
    figure: [(name,) for name, field in model.model_fields.items() if field.is_required()]
    for figure, model in _VALUES.items()
}
_REQUIRED["training"].append(_SCORES)
"""One figure of each group stands in a successful measurement."""
_QUICK_VALUE = _quick(_Value, "allow")
_READINGS = ("sm_clock_mhz", "temperature_c", "power_w", "throttle_reasons")
_QUICK_SAMPLES = _quick(_Samples, "forbid", **dict.fromkeys(_READINGS, list[Finite | None]))


def _valid_value(text: str, required: Iterable[Iterable[str]]) -> dict[str, Any] | None:
    """What `_checked` returns for a value that is certainly valid; None for others.

    It has one figure of each group in `required`.
    """
    content = _valid_object(text)
    if content is None or not _QUICK_VALUE.isinstance_python(content) or _out_of_order(content):
        return None
    for names in required:
        if all(content.get(name) is None for name in names):
            return None
    return content


def _valid_samples(text: str, kept: bool) -> dict[str, Any] | None:
    """The same for samples; numbers are as written only if `kept`."""
    content: dict[str, Any] | None
    if kept:
        content = _parsed(text)
        if content is None or not _QUICK_SAMPLES.isinstance_python(content):
            return None
    else:
        try:
            content = _QUICK_SAMPLES.validate_json(text)
        except ValidationError:
            return None
    # Its values are lists of numbers: more colons mean that a key stands twice, or has one.
    return None if text.count(":") != len(content) or _unequal(content) else content
