"""One design point's profile in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from wnexplore.design.axes import TIMING_AXES
from wnexplore.results.columns import COLUMNS, decimals, point_title, prefixed, with_interval
from wnexplore.results.escape import visible
from wnexplore.results.network_profile import Complexity, LayerProfile, LayerTable, Profile
from wnexplore.results.record import Record


def render(profile: Profile) -> Iterator[Table | Text]:
    """The parts of a profile, to be printed one by one."""
    yield Text(visible(point_title(profile.point.to_dict())), style="bold")
    yield _counts(profile.complexity)
    if profile.latencies:
        yield from _latencies(profile.latencies)
    if profile.post_processing is not None:
        median, low, high = profile.post_processing
        said = with_interval(median, low, high, COLUMNS["latency_ms"])
        yield Text(f"post-processing, not in the latency: {said} ms at most, where all scores are random")
    if profile.table is not None:
        yield _layers(profile.table.layers)
        yield _peaks(profile.table)


def _counts(counts: Complexity) -> Table:
    table = _table("", "")
    table.add_row("params", f"{prefixed(counts.params)} ({counts.params:,})")
    table.add_row("FLOPs", f"{prefixed(counts.flops)} ({counts.flops:,} multiply-adds per image)")
    for name, part in counts.parts.items():
        params, flops = part["params"], part["flops"]
        shares = f"{params / counts.params:.0%} of the params, {flops / counts.flops:.0%} of the FLOPs"
        table.add_row(name, f"{prefixed(params)} params, {prefixed(flops)} FLOPs: {shares}")
    if counts.fvcore_flops is None:
        table.add_row("fvcore", "fails on this network")
    else:
        operators = sorted(counts.operators.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {prefixed(count)}" for name, count in operators)
        table.add_row("fvcore", f"{prefixed(counts.fvcore_flops)}: {shares}")
    products = counts.uncounted_products
    if products:
        table.add_row("not in FLOPs", f"{_calls(products)} (calls of operators that may multiply matrices)")
    others = {name: calls for name, calls in counts.uncounted.items() if name not in products}
    if others:
        table.add_row("uncounted", f"{_calls(others)} (calls of operators that are in neither figure)")
    return table


def _calls(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({calls})" for name, calls in operators.items())


def _latencies(records: Sequence[Record]) -> Iterator[Table | Text]:
    # The axes that vary, and those with unusual values.
    axes = [name for name in _USUAL if {record.protocol[name] for record in records} - {_USUAL[name]}]
    figures = [name for name in _OPTIONAL if any(r.value.get(name) is not None for r in records)]
    headings = [COLUMNS[name].heading for name in ("dtype", "batch_size", *axes)]
    units = [f"{COLUMNS[name].heading} {COLUMNS[name].unit}" for name in figures]
    table = _table("device", *headings, "latency ms", "×plain", *units)
    for record in records:
        protocol = record.protocol
        device = f"{protocol['device_name']}"
        if protocol["threads"]:
            device += f", {protocol['threads']} threads"
        cells = [record.error, *[""] * (1 + len(figures))]
        if record.error is None:
            cells = [
                *(_with_interval(record, name) for name in ("latency_ms", "latency_ratio")),
                *(COLUMNS[name].format(record.value[name]) for name in figures),
            ]
        settings = (protocol[name] for name in axes)
        table.add_row(device, protocol["dtype"], str(protocol["batch_size"]), *settings, *cells)
    yield table
    for number, record in enumerate(records, start=1):
        row = f"row {number}: " if len(records) > 1 else ""
        for warning in record.value.get("warnings", ()):
            yield Text(visible(f"⚠ {row}{warning['text']}"))


_USUAL = {
    name: axis.default
    for name, axis in TIMING_AXES.items()
    if axis.part == "timing" and axis.default is not None and not axis.always
}
_OPTIONAL = ("peak_memory_mb", "compile_s", "energy_j")


def _with_interval(record: Record, name: str) -> str:
    found, low, high = (record.value[f"{name}{end}"] for end in ("", "_low", "_high"))
    return with_interval(found, low, high, COLUMNS[name])


def _layers(layers: Sequence[LayerProfile]) -> Table:
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
        counts = (layer.params, layer.flops, layer.bytes)
        table.add_row(
            layer.name,
            layer.kind,
            layer.formulation or "",
            *(prefixed(count) if count else "" for count in counts),
            f"{layer.intensity:.{decimals(layer.intensity)}f}" if layer.flops else "",
            f"{layer.time_ms:.3f}",
            f"{layer.time_share:.1%}",
            f"{layer.roofline_share:.1%}" if layer.bytes else "",
        )
    rest = 1 - sum(layer.time_share for layer in layers)
    totals = (sum(getattr(layer, name) for layer in layers) for name in ("params", "flops", "bytes"))
    table.add_section()
    table.add_row("outside layers", *[""] * 7, f"{rest:.1%}", "", style="dim")
    table.add_row("sum", "", "", *map(prefixed, totals), *[""] * 4, style="bold")
    return table


def _peaks(table: LayerTable) -> Text:
    protocol, peaks = table.protocol, table.peaks
    settings = [
        COLUMNS[name].say(protocol[name])
        for name in ("dtype", "batch_size", "memory_format", "threads")
        if protocol[name] is not None
    ]
    rates = f"{prefixed(peaks.bytes_per_s)}B/s, {prefixed(peaks.multiply_adds_per_s)} multiply-adds/s"
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
