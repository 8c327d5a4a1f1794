"""A row of the store as a record: checked strictly, as anything may have been written into the file since."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, shown
from wnexplore.results.record import Figure, Record, Status, record_key

COLUMNS = ("key", "figure", "point", "protocol", "status", "value", "samples", "error", "made_at")
"""Of a row, before the content of its environment."""

MAX_DEPTH = 10
"""Of lists and objects within one another in one of its texts."""


class DamagedRowError(ValueError):
    """What is wrong with a row, in one line that names the field."""


class RowReader:
    """Makes records of rows; what many rows share (points, protocols, environments) is checked once."""

    def __init__(self) -> None:
        self._points: dict[str, DesignPoint] = {}
        self._protocols: dict[str, dict[str, Any]] = {}
        self._environments: dict[str, Mapping[str, Any]] = {}

    def record(self, row: tuple[Any, ...]) -> Record:
        """The record of a row of `COLUMNS` and its environment. Raises `DamagedRowError`."""
        fields = dict(zip((*COLUMNS, "environment"), row, strict=True))
        optional = ("error",)
        for name, value in fields.items():
            if not isinstance(value, str) and not (value is None and name in optional):
                raise DamagedRowError(f"{name} is '{shown(value)}': expected text")
        figure = _one_of(fields, "figure", get_args(Figure))
        status = _one_of(fields, "status", get_args(Status))
        try:
            datetime.fromisoformat(fields["made_at"])
        except ValueError:
            raise DamagedRowError(f"made_at is '{shown(fields['made_at'])}': expected a date") from None
        point = _once(self._points, fields["point"], _point)
        protocol = _once(
            self._protocols, fields["protocol"], lambda text: _checked(text, "protocol", _Protocol)
        )
        value = _checked(fields["value"], "value", _VALUES[figure] if status == "ok" else _Value)
        samples = _checked(fields["samples"], "samples", _Samples)
        rounds, times = value.get("rounds"), samples.get("latency_ms")
        if rounds is not None and times and len(times) != rounds:
            raise DamagedRowError(f"samples.latency_ms has {len(times)} values, and value.rounds is {rounds}")
        key = record_key(figure, point, protocol)
        if key != fields["key"]:
            raise DamagedRowError("key is that of another point or protocol")
        return Record(
            figure=figure,
            point=point,
            protocol=protocol,
            status=status,
            value=value,
            samples=samples,
            error=fields["error"],
            environment=_once(self._environments, fields["environment"], lambda t: _object(t, "environment")),
        )


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
    """The JSON object that `text` is; within bounds, and without what JSON doesn't have (NaN, Infinity)."""

    def refuse(constant: str) -> Any:
        raise DamagedRowError(f"{name} holds {constant}, which is no number")

    try:
        content = json.loads(text, parse_constant=refuse, parse_float=_finite, object_pairs_hook=_distinct)
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


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number too large")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _too_deep(content: Any, left: int) -> bool:
    if not isinstance(content, (dict, list)):
        return False
    below = content.values() if isinstance(content, dict) else content
    return left == 0 or any(_too_deep(own, left - 1) for own in below if isinstance(own, (dict, list)))


def _point(text: str) -> DesignPoint:
    axes = _object(text, "point")
    try:
        return DesignPoint.from_dict(axes)
    except InputError as error:
        raise DamagedRowError(str(error)) from None
    except TypeError:
        wrong = set(axes) - set(DesignPoint.__dataclass_fields__)
        name = shown(next(iter(wrong))) if wrong else "backbone"
        raise DamagedRowError(f"point has {'an unknown' if wrong else 'no'} axis '{name}'") from None


def _checked(text: str, name: str, model: type[BaseModel]) -> dict[str, Any]:
    """The object that `text` is, of which `model` says what it may hold; as it was written."""
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
    """What was asked for: names, numbers and switches, so that protocols can be told apart."""

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

    @model_validator(mode="after")
    def _whole_schedule(self) -> Self:
        if self.schedule == "halving" and None in (self.min_epochs, self.max_epochs, self.eta):
            raise ValueError("halving without min_epochs, max_epochs and eta")
        return self


class _Warning(_Part):
    kind: str
    text: str


class _Value(_Part):
    """Every figure that a record may have; which ones it must have goes by what it is a record of."""

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
    seconds: Number | None = None
    epochs: Count | None = None
    dropped_at: Positive | None = None
    damaged: list[str] = Field(default_factory=list)
    why_damaged: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in ("latency_ms", "latency_ratio"):
            low, high = (getattr(self, name + end) for end in ("_low", "_high"))
            if low is not None and high is not None and low > high:
                raise ValueError(f"the interval of {name} goes from {low} to {high}")
        return self


class _Complexity(_Value):
    params: Count
    flops: Count


class _Latency(_Value):
    latency_ms: Number


class _Training(_Value):
    top1: Percent


_VALUES: dict[str, type[_Value]] = {"complexity": _Complexity, "latency": _Latency, "training": _Training}
"""What a measurement that succeeded must have found."""


class _Samples(_Part):
    """Lists of numbers; what belongs together is equally long."""

    __pydantic_extra__: dict[str, list[Finite | None]]

    latency_ms: list[Number] = Field(default_factory=list)
    baseline_ms: list[Number] = Field(default_factory=list)
    loss: list[Finite] = Field(default_factory=list)
    tested_epochs: list[Annotated[float, Field(gt=0, le=10**9, multiple_of=1)]] = Field(default_factory=list)
    tested_top1: list[Percent] = Field(default_factory=list)

    @model_validator(mode="after")
    def _side_by_side(self) -> Self:
        pairs = (("latency_ms", "baseline_ms"), ("tested_epochs", "tested_top1"))
        for one, other in pairs:
            lengths = len(getattr(self, one)), len(getattr(self, other))
            if lengths[0] != lengths[1] and (one != "latency_ms" or lengths[1]):
                raise ValueError(f"{one} has {lengths[0]} values, and {other} {lengths[1]}")
        return self
