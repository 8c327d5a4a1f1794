"""The one table of columns: names, labels, units, formats and directions, for tables, filters and plots."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wnexplore.design.axes import DESIGN_AXES, POINT_AXES, TIMING_AXES, TIMING_ORDER, Axis
from wnexplore.design.where import PREFIXES as PREFIXES
from wnexplore.design.where import Kind as Kind
from wnexplore.errors import InputError, unknown

Direction = Literal["smaller", "larger"]

Interval = tuple[float, float]
"""The bounds of a 95 % interval, the lower one first."""

WORTHLESS = 0.3
"""Relative half-width of a latency's 95 % interval from which on its median says nothing of a network."""

LATENCY_PROTOCOL = tuple(name for name in TIMING_ORDER if TIMING_AXES[name].heading)
"""The columns in which two rows must agree for comparable latencies, memories or energies."""

TRAINING_PROTOCOL = ("dataset", "epochs")
"""The columns in which two rows must agree for comparable accuracies; epochs are those trained, not
planned."""


@dataclass(frozen=True)
class Column:
    """One column of a frame; `heading` heads it in a table, `label` names it on an axis."""

    name: str
    kind: Kind
    heading: str
    axis: str = ""
    unit: str = ""
    decimals: int | None = None
    """Decimals in tables; None for three significant digits."""
    better: Direction | None = None
    """The better direction; None if there is none."""
    within: tuple[str, ...] = ()
    """The columns that must be equal for comparable values."""
    phrase: str = "{}"
    """Format of a value common to all rows in captions."""
    bounds: Interval = (-math.inf, math.inf)
    """The smallest and the largest value that there can be, where intervals of means end."""
    usual: Any = None
    """The usual value, which captions omit, and which records from before the column had."""

    @property
    def label(self) -> str:
        """The axis label with its unit."""
        name = self.axis or self.heading
        return f"{name} ({self.unit})" if self.unit else name

    @property
    def numeric(self) -> bool:
        """Whether its values can be ordered and plotted."""
        return self.kind != "text"

    @property
    def interval(self) -> tuple[str, str] | None:
        """The names of the columns that hold its 95 % interval, if it has one."""
        low, high = f"{self.name}_low", f"{self.name}_high"
        return (low, high) if low in COLUMNS else None

    @property
    def difference(self) -> str | None:
        """The name of the column of its difference to the plain network's, if it has one."""
        name = f"{self.name}_diff"
        return name if name in COLUMNS else None

    @property
    def unsure(self) -> bool:
        """Whether values with overlapping intervals are indistinguishable, as for latencies.

        Figures of trainings are compared by their means: over a few seeds their intervals would contain all
        others.
        """
        return self.interval is not None and self.within == LATENCY_PROTOCOL

    def format(self, value: Any) -> str:
        """`value` for display, without its unit; "" if missing."""
        if value is None:
            return ""
        if self.kind == "count":
            return prefixed(value)
        if self.kind == "number":
            return f"{value:.{decimals(value) if self.decimals is None else self.decimals}f}"
        return str(value)

    def say(self, value: Any) -> str:
        """`value` for a caption: "batch 16"."""
        said = self.phrase.format(self.format(value))
        return said.removesuffix("s") if value == 1 and self.kind == "whole" else said


_LATENCY: dict[str, Any] = {"kind": "number", "unit": "ms", "within": LATENCY_PROTOCOL}
_RATIO: dict[str, Any] = {"kind": "number", "decimals": 2, "within": LATENCY_PROTOCOL}
_TIMED: dict[str, Any] = {"kind": "number", "better": "smaller", "within": LATENCY_PROTOCOL}


def _learned(
    name: str,
    heading: str,
    axis: str,
    *,
    better: Direction,
    units: tuple[str, str],
    decimals: int,
    bounds: Interval,
) -> tuple[Column, ...]:
    """A figure of trained networks, its interval, and its difference to plain with an interval.

    `units` are those of the figure and of the difference. The difference has no better direction: within one
    protocol it orders networks like the figure, and a ratio of two differences is meaningless.
    """
    common: dict[str, Any] = {"kind": "number", "decimals": decimals, "within": TRAINING_PROTOCOL}
    short = heading[0].upper() + heading[1:]
    value = common | {"unit": units[0], "bounds": bounds}
    diff, over = common | {"unit": units[1]}, f"{short} over plain's"
    return (
        Column(name, heading=heading, axis=axis, better=better, **value),
        Column(f"{name}_low", heading="low", axis=f"{short}, lower bound", **value),
        Column(f"{name}_high", heading="high", axis=f"{short}, upper bound", **value),
        Column(f"{name}_diff", heading=f"Δ {heading}", axis=over, **diff),
        Column(f"{name}_diff_low", heading="low", axis=f"{over}, lower bound", **diff),
        Column(f"{name}_diff_high", heading="high", axis=f"{over}, upper bound", **diff),
    )


_PRECISIONS = (
    ("ap", "AP", "Average precision"),
    ("ap50", "AP50", "AP at an IoU of 0.5"),
    ("ap75", "AP75", "AP at an IoU of 0.75"),
    ("ap_small", "APs", "AP of small objects"),
    ("ap_medium", "APm", "AP of medium objects"),
    ("ap_large", "APl", "AP of large objects"),
    ("ar", "AR", "Average recall"),
)
"""Of detectors: name, heading and axis."""


def _of_axis(axis: Axis) -> Column:
    return Column(
        axis.name,
        axis.kind,
        axis.heading,
        axis=axis.title,
        unit=axis.unit,
        phrase=axis.phrase,
        usual=axis.usual,
    )


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        *(_of_axis(DESIGN_AXES[name]) for name in POINT_AXES),
        Column("params", "count", "params", axis="Parameters", better="smaller"),
        Column("flops", "count", "FLOPs", axis="FLOPs", unit="multiply-adds", better="smaller"),
        Column(
            "fvcore_flops", "count", "fvcore", axis="FLOPs by fvcore", unit="multiply-adds", better="smaller"
        ),
        *(_of_axis(TIMING_AXES[name]) for name in LATENCY_PROTOCOL),
        Column("latency_ms", heading="latency", axis="Latency", better="smaller", **_LATENCY),
        Column("latency_ms_low", heading="low", axis="Latency, lower bound", **_LATENCY),
        Column("latency_ms_high", heading="high", axis="Latency, upper bound", **_LATENCY),
        Column("latency_ratio", heading="×plain", axis="Latency / plain latency", better="smaller", **_RATIO),
        Column("latency_ratio_low", heading="low", axis="Latency ratio, lower bound", **_RATIO),
        Column("latency_ratio_high", heading="high", axis="Latency ratio, upper bound", **_RATIO),
        Column("latency_is", "text", "latency is", axis="Measured or predicted latency"),
        Column("peak_memory_mb", heading="memory", axis="Peak memory", unit="MB", **_TIMED),
        Column("energy_j", heading="energy", axis="Energy per image", unit="J", **_TIMED),
        Column("compile_s", heading="compile", axis="Compile time", unit="s", **_TIMED),
        Column("rounds", "whole", "rounds", axis="Rounds", within=LATENCY_PROTOCOL, phrase="{} rounds"),
        Column("stopped_by", "text", "stopped by", axis="Stopped by"),
        Column("warnings", "text", "warnings", axis="Warnings"),
        Column("dataset", "text", "dataset", axis="Dataset"),
        Column("epochs", "whole", "epochs", axis="Epochs", phrase="{} epochs"),
        Column("dropped_at", "whole", "dropped at", axis="Dropped after", unit="epochs"),
        *_learned(
            *("top1", "top-1", "Top-1 accuracy"),
            better="larger",
            units=("%", "points"),
            decimals=1,
            bounds=(0.0, 100.0),
        ),
        *(
            column
            for names in _PRECISIONS
            for column in _learned(
                *names, better="larger", units=("%", "points"), decimals=1, bounds=(0.0, 100.0)
            )
        ),
        *_learned(
            *("test_loss", "test loss", "Test loss"),
            better="smaller",
            units=("nats", "nats"),
            decimals=3,
            bounds=(0.0, math.inf),
        ),
        Column("seeds", "whole", "seeds", axis="Seeds", phrase="{} seeds"),
        Column("status", "text", "status", axis="Status"),
        Column("error", "text", "error", axis="Error"),
    )
}
"""Name -> column, in the order of every export."""

LEARNED = tuple(column for column in COLUMNS.values() if column.difference)
"""The figures of a trained network, with an interval and a difference to the plain network's each."""


def column(name: str) -> Column:
    """The column called `name`; `InputError` with the nearest name if there is none."""
    try:
        return COLUMNS[name]
    except KeyError:
        raise unknown("column", name, COLUMNS) from None


def numeric_column(name: str) -> Column:
    """The column called `name`; `InputError` if it is unknown or holds text."""
    found = column(name)
    if not found.numeric:
        names = ", ".join(name for name, column in COLUMNS.items() if column.numeric)
        raise InputError(f"column '{name}' holds text, not numbers: choose from {names}")
    return found


def direction(name: str) -> Direction:
    """The better direction of the column called `name`; `InputError` if it is unknown or has none."""
    better = numeric_column(name).better
    if better is None:
        names = ", ".join(name for name, column in COLUMNS.items() if column.better)
        raise InputError(f"column '{name}' has no better direction: choose from {names}")
    return better


def point_title(axes: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """A design point in one line, its axes in the form of `DesignPoint.to_dict`.

    The methods' axes are included if not at their defaults, the task if it isn't the usual one; M, G, stages
    and experts always.
    """
    said = []
    for name, axis in DESIGN_AXES.items():
        value = axes.get(name) if axis.of_point and name not in without else None
        if value is None or (axis.part == "network" and value == axis.usual):
            continue
        if axis.part != "layer" or axis.always or value != axis.default:
            said.append(COLUMNS[name].say(value))
    return " · ".join(said)


def comparable_within(names: Iterable[str]) -> tuple[str, ...]:
    """The columns in which rows must agree for comparable values in all of `names`."""
    return tuple(dict.fromkeys(key for name in names for key in COLUMNS[name].within))


def decimals(value: float, significant: int = 3) -> int:
    """Decimals that show `value` with `significant` significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    # Rounding first: 9.996 shows as 10.0, not as 10.00.
    exponent = int(f"{abs(value):.{significant - 1}e}".partition("e")[2])
    return max(0, significant - 1 - exponent)


def prefixed(value: float) -> str:
    """A count with a prefix and two decimals: "1.46 M"; unchanged below 1000."""
    for prefix, scale in PREFIXES:
        # Compared after rounding, so that 999 999 is 1.00 M and not 1000.00 k.
        if round(abs(value) / scale, 5 if prefix == "k" else 2) >= 1:
            return f"{value / scale:.2f} {prefix}"
    return f"{value:g}"


def compact(value: float) -> str:
    """A count in short form, for ticks and cells: "40M", "1.46M"."""
    rounded = float(f"{value:.3g}")
    for prefix, scale in PREFIXES:
        if abs(rounded) >= scale:
            return f"{_plain(rounded / scale)}{prefix}"
    return _plain(rounded)


def with_interval(value: float, low: float | None, high: float | None, column: Column) -> str:
    """`value ± the larger distance to its bounds`, with digits according to the interval.

    A latency whose interval is so wide that it says nothing is marked as worthless.
    """
    text = column.format(value)
    if low is None or high is None:
        return text
    # The larger side, so that ± never overstates the precision.
    half = max(high - value, value - low, 0.0)
    digits = len(text.partition(".")[2])
    digits = max(digits, min(decimals(half, 1), digits + 2))
    mark = " (worthless)" if column.unsure and half > WORTHLESS * value else ""
    return f"{value:.{digits}f} ± {half:.{digits}f}{mark}"


def ratio_text(value: float, low: float | None, high: float | None, column: Column) -> str:
    """A ratio beside its latency, which has the interval; with its own where it is worthless."""
    text = with_interval(value, low, high, column)
    return text if text.endswith(")") else column.format(value)


def difference(value: float, low: float | None, high: float | None, column: Column) -> str:
    """`value [low, high]` with its sign, and digits that distinguish a bound from 0: "+1.2 [0.4, 1.9]"."""
    bounds = () if low is None or high is None else (low, high)
    least = decimals(min((abs(bound) for bound in bounds if bound), default=0.0), 1)
    usual = column.decimals or 0
    digits = max(usual, min(least, usual + 2))
    # A real minus sign, as wide as the plus.
    text = f"{value:+.{digits}f}"
    if bounds:
        text += f" [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
    return text.replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".")
