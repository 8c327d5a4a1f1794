"""Latencies of a space's points, predicted from the measured ones of a run directory.

They are fitted when the records are read, in a second or so: no fit is stored that could differ from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wnexplore.design.external_names import is_external, source_hash
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.design.where import Condition
from wnexplore.errors import InputError, shown
from wnexplore.results import filters
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL
from wnexplore.results.frame import frame, varying
from wnexplore.results.record import Record
from wnexplore.space.grid import Space
from wnexplore.space.latency_fit import MIN_NETWORKS, Floats, LatencyFit, Timed, fit
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.space.stage_features import StageFeatures, plain_features, stage_features

PREDICTED = ("latency_ms", "latency_ratio")
"""The figures that are predicted, each with its `_low` and `_high`."""


@dataclass(frozen=True)
class PlainLatency:
    """The plain network's milliseconds in a run."""

    ms: float
    relative_error: float
    """Half the width of the 95 % interval over the median."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The latencies of a run under one protocol."""

    protocol: Mapping[str, Any]
    """What `LATENCY_PROTOCOL` names."""
    records: tuple[Record, ...]
    run: str
    """How messages name the run."""

    @cached_property
    def fits(self) -> Mapping[DesignPoint, LatencyFit]:
        """Plain network -> the fit to the networks made of it, of those with enough."""
        return {plain: fit(found) for plain, found in self.timed.items() if len(found) >= MIN_NETWORKS}

    @cached_property
    def timed(self) -> Mapping[DesignPoint, list[Timed]]:
        """Plain network -> the measured networks made of it, without itself."""
        found: dict[DesignPoint, list[Timed]] = {}
        for record in self._newest:
            plain = record.point.baseline()
            found.setdefault(plain, [])
            stages = _stages(record.point)
            if stages:
                found[plain].append(
                    Timed(stages, record.value["latency_ratio"], _error(record), _group(record))
                )
        return found

    def check(self, plains: Iterable[DesignPoint]) -> None:
        """Raise `InputError` if some of these plain networks have too few latencies."""
        for plain in plains:
            number = len(self.timed.get(plain, ()))
            if plain not in self.fits:
                have = ", ".join(f"{known} ({len(found)})" for known, found in self.timed.items())
                raise InputError(
                    f"{self.run} has latencies of {number} networks made of {plain} at {plain.resolution} px"
                    f" with {plain.num_classes} classes, and a prediction needs {MIN_NETWORKS}: wnexplore"
                    f" calibrate times more (there: {shown(have) or 'none'})"
                )

    def plain_latency(self, plain: DesignPoint) -> PlainLatency:
        """The milliseconds of a plain network with a fit."""
        for record in reversed(self._newest):
            if record.point == plain:
                value, ms = record.value, float(record.value["latency_ms"])
                low, high = (value.get(f"latency_ms_{end}") for end in ("low", "high"))
                return PlainLatency(ms, 0.0 if low is None or high is None else (high - low) / 2 / ms)
        values = [
            record.value["latency_ms"] / record.value["latency_ratio"]
            for record in self._newest
            if record.point.baseline() == plain
        ]
        low, middle, high = np.quantile(values, (0.025, 0.5, 0.975)).tolist()
        return PlainLatency(middle, (high - low) / 2 / middle)

    def plain_times(self, plain: DesignPoint) -> tuple[float, float]:
        """The plain network's milliseconds in the fastest and in the slowest part of the rounds.

        A group of networks timed in the same rounds has up to four parts. Far apart, the machine's speed
        changed, and ratios with it.
        """
        longest: dict[object, Sequence[float]] = {}
        for record in self._newest:
            times = record.samples.get("baseline_ms", ())
            if record.point.baseline() == plain and len(times) > len(longest.get(_group(record), ())):
                longest[_group(record)] = times
        middles = [
            float(np.median(part))
            for times in longest.values()
            for part in np.array_split(np.array(times), max(1, min(_PARTS, len(times) // _PART)))
        ]
        return min(middles, default=math.nan), max(middles, default=math.nan)

    def predict(self, space: Space, among: NDArray[np.intp] | None = None) -> Predictions:
        """The latencies of all points of `space`; if `among` is given, only these matter.

        Raises `InputError` as `check` does.
        """
        space.check_listed()
        self.check(space.baselines(among))
        parts = [self._in_cell(space, number) for number in range(len(space.cells))]
        columns = zip(*parts, strict=True) if parts else ([np.zeros(0)],) * 5
        ratio, half, plain_ms, plain_error, unseen = (np.concatenate(column) for column in columns)
        return Predictions(self.protocol, ratio, half, plain_ms, plain_error, unseen.astype(np.bool_))

    def predict_point(self, point: DesignPoint) -> dict[str, float | None]:
        """The predicted figures of one point, None where nothing can be said.

        Raises `InputError` as `check` does, and `IllegalPointError`.
        """
        plain = point.baseline()
        self.check([plain])
        known = self.fits[plain]
        stages = _stages(point) or (plain_features(1),)
        terms = [known.term(design.stage, [design]) for design in stages]
        ratio, deviation, unseen = known.ratios(terms, per_stage=False)
        latency = self.plain_latency(plain)
        one = Predictions(
            self.protocol,
            ratio,
            known.half_width(ratio, deviation),
            np.array([latency.ms]),
            np.array([latency.relative_error]),
            unseen,
        )
        return one.row(0)

    @cached_property
    def _newest(self) -> list[Record]:
        """The newest latency of each point, of networks from files those of the file as it is."""
        found: dict[DesignPoint, Record] = {}
        sources: dict[str, str | None] = {}
        for record in self.records:
            backbone = record.point.backbone
            if backbone not in sources:
                sources[backbone] = source_hash(backbone) if is_external(backbone) else None
            if record.protocol.get("source") == sources[backbone]:
                found.pop(record.point, None)
                found[record.point] = record
        return list(found.values())

    def _in_cell(self, space: Space, number: int) -> tuple[NDArray[Any], ...]:
        cell = space.cells[number]
        if cell.baseline not in self.fits:
            nothing = np.full(space.size_of(number), np.nan)
            return nothing, nothing, nothing, nothing, np.zeros(len(nothing))
        known, latency = self.fits[cell.baseline], self.plain_latency(cell.baseline)
        skeleton = skeleton_of(cell.baseline)
        terms = []
        for stage, designs in space.designs(number).items():
            features = [
                plain_features(stage) if design is None else stage_features(skeleton, stage, design)
                for design in designs
            ]
            terms.append(known.term(stage, features))
        if not terms:
            terms = [known.term(1, [plain_features(1)] * (1 if cell.per_stage else cell.choices))]
        ratio, deviation, unseen = known.ratios(terms, cell.per_stage)
        shape = ratio.shape
        return (
            ratio,
            known.half_width(ratio, deviation),
            np.broadcast_to(latency.ms, shape),
            np.broadcast_to(latency.relative_error, shape),
            unseen,
        )


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predicted latencies of the points of a space, in order; undefined for illegal ones."""

    protocol: Mapping[str, Any]
    ratio: Floats
    """NaN where nothing can be said: of a method, or of larger designs, than were timed."""
    half: Floats
    """Half the width of the ratio's 95 % interval, which covers what would be measured of the network."""
    plain_ms: Floats
    plain_error: Floats
    """Half the width of the interval of `plain_ms` over it."""
    unseen: NDArray[np.bool_]
    """Whether a stage has a design that no timed network has: the interval is then the wider."""

    @property
    def constants(self) -> dict[str, Any]:
        """The columns that all rows share: the protocol, and that their latencies are predicted."""
        return {**self.protocol, LATENCY_IS: "predicted"}

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where there is a prediction."""
        return ~np.isnan(self.ratio)

    def column(self, name: str, at: slice | NDArray[np.intp] = slice(None)) -> Floats:
        """The column `name`, one of `PREDICTED` or a bound of one, of all points or some."""
        ratio, half = self.ratio[at], self.half[at]
        if name.startswith("latency_ms"):
            # Independent errors: the network's over plain's, and plain's milliseconds.
            relative = np.hypot(half / ratio, self.plain_error[at])
            ratio = ratio * self.plain_ms[at]
            half = relative * ratio
        if name.endswith("_low"):
            return np.maximum(ratio - half, 0.0)
        return ratio + half if name.endswith("_high") else ratio

    def row(self, index: int) -> dict[str, float | None]:
        """The predicted figures of one point with their bounds."""
        at = np.array([index])
        values = {name: float(self.column(name, at)[0]) for name in LATENCY_COLUMNS}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


LATENCY_COLUMNS = tuple(f"{name}{end}" for name in PREDICTED for end in ("", "_low", "_high"))
"""All columns with predicted figures."""

LATENCY_IS = "latency_is"
"""The column that says whether a latency is measured or predicted."""


def calibrations(records: Iterable[Record], run: str) -> list[Calibration]:
    """The latencies among `records` by protocol, in order of appearance; with their samples if possible."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.figure == "latency" and record.status == "ok" and record.value.get("latency_ratio"):
            protocol = tuple(record.protocol.get(name, COLUMNS[name].usual) for name in LATENCY_PROTOCOL)
            found.setdefault(protocol, []).append(record)
    return [
        Calibration(dict(zip(LATENCY_PROTOCOL, protocol, strict=True)), tuple(of_protocol), run)
        for protocol, of_protocol in found.items()
    ]


def calibration(records: Iterable[Record], run: str, wanted: Condition | None = None) -> Calibration:
    """The latencies among `records` under the one protocol that `wanted` leaves.

    Raises `InputError` if there is none or more than one.
    """
    found = calibrations(records, run)
    if not found:
        raise InputError(f"{run} has no latencies to predict from: wnexplore calibrate measures them")
    left = found
    if wanted is not None:
        fails = filters.truth(_protocol_rows(found), wanted).fails
        left = [one for one, fail in zip(found, fails, strict=True) if not fail]
    if len(left) == 1:
        return left[0]
    several = _protocol_rows(left or found)
    said = "; ".join(
        f"{name} is {' or '.join(dict.fromkeys(str(one.protocol[name]) for one in left or found))}"
        for name in (varying(several, LATENCY_PROTOCOL) or ("batch_size",))
    )
    if not left:
        raise InputError(f"{run} has no latencies under the protocol in --where: there, {said}")
    name = varying(several, LATENCY_PROTOCOL)[0]
    value = left[0].protocol[name]
    example = f"{name} == {value if COLUMNS[name].numeric else repr(value)}"
    raise InputError(
        f'{run} has latencies under {len(left)} protocols ({said}): choose one by --where "{example}"'
    )


def _protocol_rows(found: Sequence[Calibration]) -> Any:
    """A table of the protocols, one row each, all else empty."""
    rows = frame(
        Record("latency", DesignPoint.of("shufflenet_v2_x0_5"), one.protocol, value={"rounds": 1})
        for one in found
    )
    for name in rows.columns:
        if name not in LATENCY_PROTOCOL:
            rows[name] = None
    return rows


def _stages(point: DesignPoint) -> tuple[StageFeatures, ...]:
    """The stages of a point that differ from plain ones; () if none does or it isn't legal now."""
    skeleton = skeleton_of(point)
    try:
        found = [stage_features(skeleton, stage, stage_design(point, stage)) for stage in skeleton.stages]
    except IllegalPointError:
        return ()
    return tuple(design for design in found if design.method != "plain")


def _error(record: Record) -> float:
    """The standard error of a measured ratio."""
    low, high = (record.value.get(f"latency_ratio_{end}") for end in ("low", "high"))
    ratio = float(record.value["latency_ratio"])
    return _UNKNOWN * ratio if low is None or high is None else float(high - low) / (2 * _NORMAL)


def _group(record: Record) -> tuple[float, ...] | None:
    """When the first rounds were over, which tells them from others.

    In records without that, networks timed together share the first times of the plain network.
    """
    samples = record.samples
    return tuple(samples.get("round_s", ())[:3]) or tuple(samples.get("baseline_ms", ())[:3]) or None


_PARTS = 4
_PART = 25
"""Fewest times of the plain network in a part of the rounds."""
_NORMAL = 1.96
"""Standard deviations in half a 95 % interval."""
_UNKNOWN = 0.02
"""Relative error of a ratio without an interval."""
