"""How well latencies are predicted: python -m tests.benchmarks.prediction OUT [--limit MINUTES] ..

A cell is a backbone at a batch size, M and G chosen in each stage by itself. For each cell, in the folder
OUT/BACKBONE-bN: calibrates (as `wnexplore calibrate`), then times random networks that were held out in the
same way, and predicts them twice: by the fit, with its intervals, and by a table of single layers, each timed
alone and summed up, over the plain network's sum (as nn-Meter, Zhang et al., MobiSys 2021, and ProxylessNAS,
Cai et al., ICLR 2019, do).

Prints for both the median error of the ratio to plain and Kendall's tau-b with the measured order, among
pairs of networks whose measured intervals part; and for the fit how many of the networks lie within their
interval, and how wide that is. "Both weighted" tells what a fit that knew the layers' sums could gain,
"together" what the networks of the test share, as all of a run do.

Writes OUT/prediction.csv, a row for each network that was held out, and OUT/prediction.png. Everything
measured is kept: the same command resumes, after --limit minutes too. --print prints what OUT has.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wnexplore.design.point import DesignPoint
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.measure.environment import device_name
from wnexplore.models import build
from wnexplore.models.deploy import fold_batch_norms
from wnexplore.nn import ActivationVectors, Context, GeneratedConv2d
from wnexplore.report.figure_files import save
from wnexplore.report.panels import (
    GREY,
    FigureInfo,
    LegendEntry,
    Panel,
    PlotAxis,
    dress,
    limits,
    render,
    ticks,
)
from wnexplore.results.record import Record
from wnexplore.results.store import Store, read_records
from wnexplore.space.expansion import space_of
from wnexplore.space.prediction import Calibration, calibration
from wnexplore.space.selection import open_points
from wnexplore.study.calibrate import GROUP, calibration_plan
from wnexplore.study.sweep import SweepStep, plan, remaining, run

FIELDS = (
    *("device_name", "torch", "threads", "backbone", "batch_size", "resolution", "M", "G"),
    *("measured", "measured_low", "measured_high", "predicted", "predicted_low", "predicted_high", "layers"),
)


class TimeUpError(Exception):
    """The minutes of --limit are over."""


def main() -> None:
    """Measure the cells asked for, one after the other; print, write and draw all that is known so far."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("out", type=Path, metavar="OUT", help="folder for records, CSV and figure")
    options.add_argument(
        "--backbones", nargs="+", default=["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "resnet18"]
    )
    options.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 16])
    options.add_argument("--M", nargs="+", default=["1/2", "1", "2", "4", "8"])
    options.add_argument("--G", nargs="+", default=["1/2", "1", "2"])
    options.add_argument("--stem", default="imagenet")
    options.add_argument("--resolution", type=int)
    options.add_argument("--networks", type=int, default=60, help="to calibrate with")
    options.add_argument("--held-out", type=int, default=40)
    options.add_argument("--seconds", type=float, default=5.0, help="for each network")
    options.add_argument("--layer-seconds", type=float, default=0.15, help="for each layer alone")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--limit", type=float, help="minutes after which this ends; the same command resumes"
    )
    options.add_argument("--print", action="store_true", help="print what is known; nothing is measured")
    requested = options.parse_args()
    if requested.print:
        known = itertools.groupby(
            _read(requested.out / "prediction.csv"), lambda row: (row["backbone"], row["batch_size"])
        )
        for (backbone, batch), found in known:
            print("\n".join(report(f"{backbone}, batch {batch}", list(found))))
        return
    requested.out.mkdir(parents=True, exist_ok=True)
    end = None if requested.limit is None else time.monotonic() + 60 * requested.limit
    table = requested.out / "prediction.csv"
    try:
        for backbone, batch in itertools.product(requested.backbones, requested.batch_sizes):
            rows = measure(Cell(backbone, batch, requested), end)
            _replace(table, rows)
            print("\n".join(report(f"{backbone}, batch {batch}", rows)), flush=True)
    except TimeUpError:
        print("time is up: the same command resumes", file=sys.stderr)
    if table.exists():
        save(render(figure(_read(table))), table.with_suffix(".png"))


@dataclass(frozen=True)
class Cell:
    """A backbone at a batch size."""

    backbone: str
    batch_size: int
    requested: argparse.Namespace

    @property
    def folder(self) -> Path:
        """Where its measurements are kept."""
        folder: Path = self.requested.out / f"{self.backbone}-b{self.batch_size}"
        return folder

    @property
    def spec(self) -> SweepSpec:
        """Its space."""
        wanted = self.requested
        axes = {"backbones": [self.backbone], "stem": [wanted.stem], "M": wanted.M, "G": wanted.G}
        if wanted.resolution is not None:
            axes["resolution"] = [wanted.resolution]
        latency = {"batch_sizes": [self.batch_size], "seconds": wanted.seconds, "device": "cpu"}
        return SweepSpec.model_validate(
            {**axes, "methods": ["weightnet"], "per_stage": True, "latency": latency}
        )


def measure(cell: Cell, end: float | None) -> list[dict[str, Any]]:
    """A row for each network that was held out. Raises `TimeUpError` at `end`."""
    wanted = cell.requested
    chosen = calibration_plan(cell.spec, wanted.networks, wanted.seed)
    (timed,) = chosen.networks.values()
    begun = time.monotonic()
    known = calibration(_timed(chosen.spec, cell.folder / "calibration", end), "the calibration")
    spent = time.monotonic() - begun
    if spent > 1:
        print(f"{cell.backbone}, batch {cell.batch_size}: calibrated in {spent / 60:.1f} minutes", flush=True)
    others = held_out(cell.spec, timed, wanted.held_out, wanted.seed)
    plain = others[0].baseline()
    points = tuple(PointSpec.model_validate(point.to_dict()) for point in (plain, *others))
    spec = SweepSpec(points=points, latency=chosen.spec.latency, train=None)
    records = {record.point: record for record in _timed(spec, cell.folder / "held_out", end)}
    layers = LayerTable(cell.folder / "layers.json", cell.batch_size, wanted.layer_seconds, end)
    whole = layers.sum(plain)
    return [_row(known, records[point], layers.sum(point) / whole) for point in others if point in records]


def held_out(spec: SweepSpec, timed: Iterable[DesignPoint], count: int, seed: int) -> list[DesignPoint]:
    """Random legal networks of a space that are not in `timed`."""
    space, known = space_of(spec), set(timed)
    order = np.random.default_rng(seed + 1).permutation(open_points(space, None)).tolist()
    others = (point for index in order if (point := space.point(index)) not in known)
    return list(itertools.islice(others, count))


def _timed(spec: SweepSpec, directory: Path, end: float | None) -> list[Record]:
    """The latencies of a sweep, without counting its networks; those that are missing are measured."""

    def on_step(step: SweepStep) -> None:
        if end is not None and time.monotonic() > end:
            raise TimeUpError

    planned = plan(spec)
    with Store.create(directory) as store:
        todo = [m for m in remaining(planned, store.keys()) if m.figure == "latency"]
        run(spec, todo, store, on_step, planned=planned, together=GROUP)
    return read_records(directory)


def _row(known: Calibration, record: Record, layers: float) -> dict[str, Any]:
    predicted, value, point = known.predict_point(record.point), record.value, record.point.to_dict()
    ends = ("", "_low", "_high")
    return {
        "device_name": device_name("cpu"),
        "torch": torch.__version__,
        "threads": record.protocol["threads"],
        "batch_size": record.protocol["batch_size"],
        **{name: point[name] for name in ("backbone", "resolution", "M", "G")},
        **{f"measured{end}": value[f"latency_ratio{end}"] for end in ends},
        **{f"predicted{end}": predicted[f"latency_ratio{end}"] for end in ends},
        "layers": layers,
    }


class LayerTable:
    """Milliseconds of single layers, each timed alone on inputs of its size; kept in a file."""

    def __init__(self, path: Path, batch_size: int, seconds: float, end: float | None) -> None:
        self._path, self._batch_size, self._seconds, self._end = path, batch_size, seconds, end
        self._known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def sum(self, point: DesignPoint) -> float:
        """The sum of the layers of a network; what no module does (additions, shuffles) is in no table."""
        if self._end is not None and time.monotonic() > self._end:
            raise TimeUpError
        network = build(point).eval()
        images = torch.randn(self._batch_size, 3, point.resolution, point.resolution)
        fold_batch_norms(network, images[:1])
        before = len(self._known)
        with torch.inference_mode():
            total = sum(self._alone(key, call) for key, call in _calls(network, images))
        if len(self._known) > before:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._known))
        return total

    def _alone(self, key: str, call: Callable[[], object]) -> float:
        if key not in self._known:
            for _ in range(3):
                call()
            taken: list[float] = []
            end = time.perf_counter() + self._seconds
            while len(taken) < 5 or time.perf_counter() < end:
                begun = time.perf_counter()
                call()
                taken.append(1e3 * (time.perf_counter() - begun))
            self._known[key] = median(taken)
        return self._known[key]


def _calls(network: nn.Module, images: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each layer that runs, by what decides its time, and a call of it on inputs as in the network."""
    found: list[tuple[nn.Module, Any, Any]] = []
    inside: set[nn.Module] = set()
    with ExitStack() as undo:
        for module in network.modules():
            whole = isinstance(module, (GeneratedConv2d, ActivationVectors, Context))
            if module not in inside and (whole or not list(module.children())):
                inside.update(module.modules())

                def note(module: nn.Module, args: Any, named: Any) -> None:
                    found.append((module, args, named))

                undo.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        network(images)
    for module, args, named in found:
        sizes = [tuple(leaf.shape) for leaf in tree_leaves((args, named)) if isinstance(leaf, Tensor)]
        held = [tuple(tensor.shape) for tensor in (*module.parameters(), *module.buffers())]
        yield f"{module!r} {sizes} {held}", lambda m=module, a=args, k=named: m(*a, **k)  # type: ignore[misc]


def report(title: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the rows of a cell say."""
    if not rows:
        return [f"{title}: nothing was measured"]
    measured, low, high = (_column(rows, f"measured{end}") for end in ("", "_low", "_high"))
    fitted, fit_low, fit_high = (_column(rows, f"predicted{end}") for end in ("", "_low", "_high"))
    layers = _column(rows, "layers")
    parts = np.where(low[None, :] > high[:, None], 1, 0) - np.where(high[None, :] < low[:, None], 1, 0)
    pairs = int((parts != 0).sum()) // 2
    within = (fit_low <= measured) & (measured <= fit_high)
    half = (fit_high - fit_low) / 2 / fitted
    lines = [f"{title}: {len(rows)} networks, {pairs} pairs of which part"]
    lines.append(
        f"  {int(within.sum())} within their intervals, of ±{100 * np.median(half):.1f} % in the median and"
        f" ±{100 * half.max():.1f} % at most"
    )
    both = _by_the_others(np.column_stack([np.ones(len(rows)), fitted, layers]), measured)
    for name, values in (("the fit", fitted), ("layers summed up", layers), ("both weighted", both)):
        off = np.abs(values / measured - 1)
        tau = _tau_b(parts, values) if pairs else float("nan")
        lines.append(
            f"  {name}: error {100 * np.median(off):.1f} % in the median, {100 * off.max():.1f} % at most;"
            f" tau-b {tau:.3f}"
        )
    common = np.median(measured / fitted)
    rest = np.median(np.abs(common * fitted / measured - 1))
    lines.append(
        f"  together {100 * (common - 1):+.1f} % over what the fit predicts; without that its error is"
        f" {100 * rest:.1f} %"
    )
    return lines


def _by_the_others(known: Any, measured: Any) -> Any:
    """Each network's ratio by the linear function of what is `known` that fits those of all others best."""
    others = [np.arange(len(measured)) != at for at in range(len(measured))]
    weights = [np.linalg.lstsq(known[kept], measured[kept], rcond=None)[0] for kept in others]
    return (known * np.array(weights)).sum(1)


def _tau_b(parts: Any, values: Any) -> float:
    """Kendall's tau-b of `values` with the order of those pairs that part: 1 or -1 in `parts`, else 0."""
    ours = np.sign(values[None, :] - values[:, None]) * np.abs(parts)
    return float((ours * parts).sum() / np.sqrt((ours**2).sum() * (parts**2).sum()))


def _column(rows: Sequence[dict[str, Any]], name: str) -> Any:
    return np.array([float(row[name]) for row in rows])


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _replace(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a cell's rows in place of its earlier ones."""
    same = ("backbone", "batch_size", "resolution")
    cells = {tuple(str(row[name]) for name in same) for row in rows}
    kept = _read(path) if path.exists() else []
    kept = [row for row in kept if tuple(row[name] for name in same) not in cells]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


@dataclass(frozen=True)
class AgreementPanel(Panel):
    """Predicted over measured ratios, with the intervals of both."""

    title: str
    rows: tuple[dict[str, Any], ...]

    def draw(self, ax: Axes) -> None:
        measured, fitted = (_column(self.rows, name) for name in ("measured", "predicted"))
        spread = [
            np.abs([_column(self.rows, f"{name}{end}") - values for end in ("_low", "_high")])
            for name, values in (("measured", measured), ("predicted", fitted))
        ]
        ax.axline((1, 1), slope=1, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        bars: dict[str, Any] = {"xerr": spread[0], "yerr": spread[1], "ecolor": GREY, "elinewidth": 0.6}
        ax.errorbar(measured, fitted, linestyle="none", zorder=2, **bars)
        ax.plot(measured, fitted, linestyle="none", zorder=3, **_FITTED)
        ax.plot(measured, _column(self.rows, "layers"), linestyle="none", zorder=3, **_LAYERS)
        ends = [name for name in FIELDS if name.startswith(("measured", "predicted"))]
        reach = [float(row[name]) for row in self.rows for name in ends]
        ax.set(xlim=limits(reach, log=False), ylim=limits(reach + self._layers(), log=False))
        ax.set(xlabel="measured ×plain", ylabel="predicted ×plain", title=self.title)
        for name in ("x", "y"):
            ticks(ax, PlotAxis(""), name)
        dress(ax)

    def legend(self) -> list[LegendEntry]:
        return [
            LegendEntry(Line2D([], [], linestyle="none", label="the fit, 95 % intervals", **_FITTED)),
            LegendEntry(Line2D([], [], linestyle="none", label="layers summed up", **_LAYERS), 1),
        ]

    def _layers(self) -> list[float]:
        values: list[float] = _column(self.rows, "layers").tolist()
        return values


_FITTED: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "none", "color": "#0060A8"}
_LAYERS: dict[str, Any] = {"marker": "x", "markersize": 3.5, "color": "#E8862E"}


def figure(rows: Sequence[dict[str, Any]]) -> FigureInfo:
    """A panel for each cell."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault(f"{row['backbone']}, batch {row['batch_size']}", []).append(row)
    panels = tuple(AgreementPanel(title, tuple(found)) for title, found in cells.items())
    first = rows[0]
    note = f"{first['device_name']} · {first['threads']} threads · torch {first['torch']} · networks held out"
    return FigureInfo(panels, columns=min(2, len(panels)), note=note)


if __name__ == "__main__":
    main()
