"""Parses a checkpoint's metadata, which is untrusted text and validated field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wnexplore.design.data_source import parse_data
from wnexplore.design.legality import check_legal
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import Recipe
from wnexplore.errors import InputError, shown

VERSION = 1
MAX_BYTES = 4 * 2**20
"""Largest text: a hundred thousand classes take half of it."""
MAX_VALUES = 1000
"""Most values of one field, except the class names."""
MAX_DEPTH = 5
"""Deepest nesting of lists and objects in a field."""


class DamagedError(Exception):
    """A field of a checkpoint is invalid."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")


class NewerError(Exception):
    """A checkpoint is of a later version's format."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _with_data(text: str) -> str:
    parse_data(text)
    return text


def _with_recipe(content: dict[str, Any]) -> dict[str, Any]:
    Recipe.model_validate(content)
    return content


def _ordered(found: tuple[float, float]) -> tuple[float, float]:
    if found[0] >= found[1]:
        raise ValueError("expected black below white")
    return found


_Share = Annotated[float, Field(ge=0, le=1)]
_Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]
_Limit = Annotated[float, Field(ge=-1e30, le=1e30)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class PreprocessingMetadata(_Strict):
    """The fields of `Preprocessing`."""

    mean: tuple[_Share, _Share, _Share]
    std: tuple[_Deviation, _Deviation, _Deviation]
    grey: bool = False
    crop: Annotated[float, Field(ge=0.05, le=1)] = 1.0
    # Absent from files written before 16-bit images were scaled.
    ranges: dict[str, Annotated[tuple[_Limit, _Limit], AfterValidator(_ordered)]] = {}


class Metadata(_Strict):
    """The fields of `CheckpointMetadata`, and the format's version."""

    version: Annotated[int, Field(ge=1)]
    point: dict[str, str | int | None]
    data: Annotated[str, AfterValidator(_with_data)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    preparation: PreprocessingMetadata
    recipe: Annotated[dict[str, Any], AfterValidator(_with_recipe)]
    seed: _Count
    step: _Count
    epoch: Annotated[float, Field(ge=0)]
    top1: Annotated[float, Field(ge=0, le=100)] | None = None
    ap: Annotated[float, Field(ge=0, le=100)] | None = None
    # Absent from older files.
    source: Annotated[str, Field(pattern=r"^[0-9a-f]{12,64}$")] | None = None

    @model_validator(mode="after")
    def _right_point(self) -> Metadata:
        classes = self.design_point().num_classes
        if classes != len(self.classes):
            raise DamagedError("classes", f"{len(self.classes)} names of {shown(classes)} classes")
        return self

    def design_point(self) -> DesignPoint:
        """The network. Raises `DamagedError` if it is invalid."""
        try:
            point = DesignPoint.from_dict(self.point)
            check_legal(point)
            return point
        except TypeError:
            raise DamagedError("point", "its axes are not those of a network") from None
        except InputError as error:
            raise DamagedError("point", str(error)) from None


def read_metadata(text: str) -> Metadata:
    """Parse `text`, untrusted JSON.

    Raises `DamagedError` for anything that no training writes, `NewerError` for a later version.
    """
    if len(text) > MAX_BYTES:
        raise DamagedError("metadata", f"{len(text):,} characters, expected at most {MAX_BYTES:,}")
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise DamagedError("metadata", "nested too deep") from None
    except ValueError as error:
        raise DamagedError("metadata", f"not JSON: {shown(error)}") from None
    if not isinstance(content, dict):
        raise DamagedError("metadata", f"expected an object, not {shown(text)}")
    version = content.get("version")
    if type(version) is int and version > VERSION:
        raise NewerError
    _check_bounds(content)
    try:
        # As JSON, in which pydantic accepts a list for a tuple.
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "metadata"
        given = "" if first["type"] == "missing" else f", not '{shown(first['input'])}'"
        raise DamagedError(shown(field), f"{shown(first['msg'])}{given}") from None


def _check_bounds(content: Mapping[str, Any]) -> None:
    """Raise `DamagedError` for more data than any training writes: pydantic would list every value."""
    for name, value in content.items():
        if name == "classes" and isinstance(value, list):
            wrong = next((name_ for name_ in value if not isinstance(name_, str)), None)
            if wrong is not None:
                raise DamagedError("classes", f"expected names, not '{shown(wrong)}'")
            continue
        count, level = 0, [value]
        for _ in range(MAX_DEPTH):
            count += len(level)
            level = [item for above in level if isinstance(above, dict | list) for item in _inside(above)]
        if level:
            raise DamagedError(shown(name), f"nested more than {MAX_DEPTH} deep")
        if count > MAX_VALUES:
            raise DamagedError(shown(name), f"{count:,} values, expected at most {MAX_VALUES:,}")
    if len(content) > MAX_VALUES:
        raise DamagedError("metadata", f"{len(content):,} fields, expected at most {MAX_VALUES:,}")


def _inside(above: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return above.values() if isinstance(above, dict) else above


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DamagedError(shown(name), "given twice")
        found[name] = value
    return found


def _no_number(name: str) -> Mapping[str, Any]:
    raise DamagedError("metadata", f"{name} is not a number")
