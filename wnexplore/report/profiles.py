"""One design point's profile in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from wnexplore.report.columns import COLUMNS, prefixed, with_interval


def render(profile: Mapping[str, Any]) -> Iterator[Table | Text]:
    """The parts of a profile (as `wnexplore profile --json` has it), to be printed one by one."""
    yield Text(_title(profile), style="bold")
    yield _counts(profile)
    if profile["latency"]:
        yield _latencies(profile["latency"])
    if "layers" in profile:
        yield _layers(profile["layers"])


def _title(profile: Mapping[str, Any]) -> str:
    names = ("backbone", "method", "M", "G", "experts", "stem", "resolution", "num_classes")
    return " · ".join(COLUMNS[name].say(profile[name]) for name in names if profile[name] is not None)


def _counts(profile: Mapping[str, Any]) -> Table:
    table = _table("", "")
    table.add_row("params", f"{prefixed(profile['params'])} ({profile['params']:,})")
    table.add_row("FLOPs", f"{prefixed(profile['flops'])} ({profile['flops']:,} multiply-adds an image)")
    operators = sorted(profile["operators"].items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {prefixed(count)}" for name, count in operators)
    table.add_row("fvcore", f"{prefixed(profile['fvcore_flops'])}: {shares}")
    if profile["uncounted"]:
        calls = ", ".join(f"{name} ({calls})" for name, calls in profile["uncounted"].items())
        table.add_row(
            "uncounted", f"{calls} (calls of operators that fvcore has no rule for: not in the figures above)"
        )
    return table


def _latencies(entries: list[Mapping[str, Any]]) -> Table:
    table = _table("device", "dtype", "batch", "latency ms", "×plain", "memory MB")
    for entry in entries:
        device = f"{entry['device_name']}"
        if entry["threads"]:
            device += f", {entry['threads']} threads"
        figures = [entry["error"], "", ""]
        if entry["error"] is None:
            memory = entry["peak_memory_mb"]
            figures = [
                *(_with_interval(entry, name) for name in ("latency_ms", "latency_ratio")),
                "" if memory is None else f"{memory:.0f}",
            ]
        table.add_row(device, entry["dtype"], str(entry["batch_size"]), *figures)
    return table


def _with_interval(entry: Mapping[str, Any], name: str) -> str:
    return with_interval(entry[name], entry[f"{name}_low"], entry[f"{name}_high"], COLUMNS[name])


def _layers(layers: list[Mapping[str, Any]]) -> Table:
    table = _table("layer", "kind", "part", "params", "FLOPs", "time ms", "share")
    for layer in layers:
        part = "" if layer["part"] == "layer" else layer["part"]
        counts = (prefixed(layer[name]) if layer[name] else "" for name in ("params", "flops"))
        share = f"{layer['time_share']:.1%}"
        table.add_row(layer["name"], layer["kind"], part, *counts, f"{layer['time_ms']:.3f}", share)
    rest = 1 - sum(layer["time_share"] for layer in layers)
    totals = (prefixed(sum(layer[name] for layer in layers)) for name in ("params", "flops"))
    table.add_section()
    table.add_row("outside layers", "", "", "", "", "", f"{rest:.1%}", style="dim")
    table.add_row("sum", "", "", *totals, "", "", style="bold")
    return table


def _table(*headings: str) -> Table:
    table = Table(
        box=None, show_header=any(headings), header_style="bold", pad_edge=False, padding=(0, 2, 0, 0)
    )
    for heading in headings:
        numeric = heading in {
            "batch",
            "latency ms",
            "×plain",
            "memory MB",
            "params",
            "FLOPs",
            "time ms",
            "share",
        }
        table.add_column(
            heading, justify="right" if numeric else "left", no_wrap=numeric or heading == "layer"
        )
    return table
