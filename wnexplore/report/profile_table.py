"""One design point's profile in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from wnexplore.results.columns import COLUMNS, decimals, point_title, prefixed, with_interval
from wnexplore.results.escape import visible


def render(profile: Mapping[str, Any]) -> Iterator[Table | Text]:
    """The parts of a profile (as `wnexplore profile --json` has it), to be printed one by one."""
    yield Text(visible(point_title(profile)), style="bold")
    yield _counts(profile)
    if profile["latency"]:
        yield from _latencies(profile["latency"])
    if "layers" in profile:
        yield _layers(profile["layers"])
        yield _peaks(profile["layers_protocol"])


def _counts(profile: Mapping[str, Any]) -> Table:
    table = _table("", "")
    table.add_row("params", f"{prefixed(profile['params'])} ({profile['params']:,})")
    table.add_row("FLOPs", f"{prefixed(profile['flops'])} ({profile['flops']:,} multiply-adds an image)")
    if profile["fvcore_flops"] is None:
        table.add_row("fvcore", "fails on this network")
    else:
        operators = sorted(profile["operators"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {prefixed(count)}" for name, count in operators)
        table.add_row("fvcore", f"{prefixed(profile['fvcore_flops'])}: {shares}")
    products = profile.get("uncounted_products", {})
    if products:
        table.add_row("not in FLOPs", f"{_calls(products)} (calls of operators that may multiply matrices)")
    others = {name: calls for name, calls in profile["uncounted"].items() if name not in products}
    if others:
        table.add_row("uncounted", f"{_calls(others)} (calls of operators that are in neither figure)")
    return table


def _calls(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({calls})" for name, calls in operators.items())


def _latencies(entries: list[Mapping[str, Any]]) -> Iterator[Table | Text]:
    # The axes that vary, and those that aren't as usual.
    axes = [name for name in _USUAL if {entry[name] for entry in entries} - {_USUAL[name]}]
    figures = [name for name in _OPTIONAL if any(entry.get(name) is not None for entry in entries)]
    headings = [COLUMNS[name].heading for name in ("dtype", "batch_size", *axes)]
    units = [f"{COLUMNS[name].heading} {COLUMNS[name].unit}" for name in figures]
    table = _table("device", *headings, "latency ms", "×plain", *units)
    for entry in entries:
        device = f"{entry['device_name']}"
        if entry["threads"]:
            device += f", {entry['threads']} threads"
        cells = [entry["error"], *[""] * (1 + len(figures))]
        if entry["error"] is None:
            cells = [
                *(_with_interval(entry, name) for name in ("latency_ms", "latency_ratio")),
                *(COLUMNS[name].format(entry[name]) for name in figures),
            ]
        table.add_row(
            device, entry["dtype"], str(entry["batch_size"]), *(entry[name] for name in axes), *cells
        )
    yield table
    for number, entry in enumerate(entries, start=1):
        row = f"row {number}: " if len(entries) > 1 else ""
        for warning in entry.get("warnings", ()):
            yield Text(visible(f"⚠ {row}{warning['text']}"))


_USUAL = {"runtime": "eager", "memory_format": "contiguous", "cache": "warm", "mode": "inference"}
_OPTIONAL = ("peak_memory_mb", "compile_s", "energy_j")


def _with_interval(entry: Mapping[str, Any], name: str) -> str:
    return with_interval(entry[name], entry[f"{name}_low"], entry[f"{name}_high"], COLUMNS[name])


def _layers(layers: list[Mapping[str, Any]]) -> Table:
    table = _table(
        *(
            "layer",
            "kind",
            "formulation",
            "params",
            "FLOPs",
            "bytes",
            "FLOPs/byte",
            "time ms",
            "share",
            "roofline",
        )
    )
    for layer in layers:
        counts = (prefixed(layer[name]) if layer[name] else "" for name in ("params", "flops", "bytes"))
        intensity = layer["intensity"]
        table.add_row(
            layer["name"],
            layer["kind"],
            layer["formulation"] or "",
            *counts,
            f"{intensity:.{decimals(intensity)}f}" if layer["flops"] else "",
            f"{layer['time_ms']:.3f}",
            f"{layer['time_share']:.1%}",
            f"{layer['roofline_share']:.1%}" if layer["bytes"] else "",
        )
    rest = 1 - sum(layer["time_share"] for layer in layers)
    totals = (prefixed(sum(layer[name] for layer in layers)) for name in ("params", "flops", "bytes"))
    table.add_section()
    table.add_row("outside layers", *[""] * 7, f"{rest:.1%}", "", style="dim")
    table.add_row("sum", "", "", *totals, *[""] * 4, style="bold")
    return table


def _peaks(protocol: Mapping[str, Any]) -> Text:
    settings = [
        COLUMNS[name].say(protocol[name])
        for name in ("dtype", "batch_size", "memory_format", "threads")
        if protocol[name] is not None
    ]
    rates = (
        f"{prefixed(protocol['bytes_per_s'])}B/s, {prefixed(protocol['multiply_adds_per_s'])} multiply-adds/s"
    )
    return Text(
        f"layers: eager · {' · '.join(settings)}; roofline: {rates}, measured once and kept", style="dim"
    )


def _table(*headings: str) -> Table:
    table = Table(
        box=None, show_header=any(headings), header_style="bold", pad_edge=False, padding=(0, 2, 0, 0)
    )
    for heading in headings:
        numeric = heading in _NUMERIC or heading.partition(" ")[0] in _NUMERIC
        table.add_column(
            heading, justify="right" if numeric else "left", no_wrap=numeric or heading == "layer"
        )
    return table


_NUMERIC = {
    *("batch", "latency", "×plain", "memory", "compile", "energy"),
    *("params", "FLOPs", "bytes", "FLOPs/byte", "time", "share", "roofline"),
}
