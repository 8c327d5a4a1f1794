"""What generated kernels cost: python -m tests.benchmarks.speed [--device cpu] [--backbones ..] ...

In rounds beside the plain network of the same widths (`measure_latencies`): WeightNet in the formulation
that "auto" picks and in the published one, and timm's CondConv2d with 4 experts in the same blocks (if
timm is installed), in inference, as deployed or as trained (--baseline), and in whole training steps. Prints
latency ratios, and writes every figure to a CSV file; at the end, the largest ratio of each group in that
file (see speed_table).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.speed_table import read, summary
from wnexplore.design.axes import STEMS, TIMING_AXES
from wnexplore.design.backbones import backbone_spec
from wnexplore.design.latency_protocol import DEFAULT_TARGETS, LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.measure.environment import device_name, resolve_device
from wnexplore.measure.failure import Failure
from wnexplore.measure.latency import measure_latencies
from wnexplore.models import build
from wnexplore.models.method_layers import ConvSizes, Method
from wnexplore.models.resnet import ResNet
from wnexplore.models.shufflenet_v2 import ShuffleNetV2
from wnexplore.nn import GeneratedConv2d

PAIRS = ((1, 1), (2, 2), (4, 1), (8, 2))
PLAIN = "plain"


@dataclass(frozen=True)
class Variant:
    """One network of the table."""

    formulation: str
    """One of "auto", "published", "timm" (its CondConv2d) and "plain"."""
    M: int | None = None
    G: int | None = None

    def __str__(self) -> str:
        return self.formulation if self.M is None else f"({self.M},{self.G}) {self.formulation}"


class TimmCondConv(nn.Module):
    """timm's CondConv2d with the routing that its own blocks give it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from timm.layers.cond_conv2d import CondConv2d

        super().__init__()
        self.conv = CondConv2d(*args, **kwargs)
        self.routing = nn.Linear(self.conv.in_channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x, self.routing(x.mean((2, 3))).sigmoid())
        return y


class TimmMethod(Method):
    """Every convolution of a block a CondConv2d of timm's with 4 experts."""

    def make(self, sizes: ConvSizes, context_features: int | None) -> nn.Module:
        return TimmCondConv(
            sizes.in_channels,
            sizes.out_channels,
            sizes.kernel_size,
            sizes.stride,
            groups=sizes.groups,
            num_experts=4,
            bias=False,
        )


def network(backbone: str, variant: Variant, stem: str) -> nn.Module:
    """The network of a variant."""
    if variant.formulation == "timm":
        spec = backbone_spec(backbone)
        kind: Callable[..., nn.Module] = ShuffleNetV2 if backbone.startswith("shufflenet") else ResNet
        return kind(spec, TimmMethod(), stem=stem)
    if variant.M is None:
        return build(backbone, stem=stem)
    made = build(DesignPoint.of(backbone, "weightnet", variant.M, variant.G, stem=stem))
    for module in made.modules():
        if isinstance(module, GeneratedConv2d):
            module.formulation = variant.formulation
    return made


def measure(backbone: str, batch: int, mode: str, requested: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each variant of a cell, as it is known."""
    device = resolve_device(requested.device)
    variants = [Variant(name, M, G) for M, G in requested.pairs for name in requested.formulations]
    if requested.timm:
        variants.append(Variant("timm"))
    plain = Variant(PLAIN)
    protocol = LatencyProtocol(
        device=device,
        device_name=device_name(device),
        dtype=requested.dtype,
        batch_size=batch,
        runtime=requested.runtime,
        memory_format=requested.memory_format,
        mode=mode,
        baseline=requested.baseline if mode == "inference" else "trained",
        allocator=requested.allocator if device == "cpu" else None,
        target=requested.target or DEFAULT_TARGETS[device],
        seconds=requested.seconds,
    )
    found = measure_latencies(
        {variant: partial(network, backbone, variant, requested.stem) for variant in (plain, *variants)},
        plain,
        partial(network, backbone, plain, requested.stem),
        protocol,
        requested.resolution,
    )
    for variant, latency in found:
        row: dict[str, Any] = {
            "device": device_name(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads() if device == "cpu" else "",
            "dtype": requested.dtype,
            "memory_format": requested.memory_format,
            "runtime": requested.runtime,
            "baseline": protocol.baseline,
            "backbone": backbone,
            "stem": requested.stem,
            "resolution": requested.resolution,
            "mode": mode,
            "batch_size": batch,
            "M": variant.M,
            "G": variant.G,
            "formulation": variant.formulation,
        }
        if isinstance(latency, Failure):
            yield row | {"error": latency.error}
            continue
        figures = latency.to_dict()
        names = ("latency_ms", "latency_ms_low", "latency_ms_high", "peak_memory_mb", "rounds", "stopped_by")
        ratio = {f"latency_ratio{end}": figures[f"latency_ratio{end}"] for end in ("", "_low", "_high")}
        yield row | {name: figures[name] for name in names} | ratio


def main() -> None:
    """Measure every cell asked for, print its ratios, and write the CSV after each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="auto")
    options.add_argument(
        "--backbones", nargs="+", default=["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "resnet18", "resnet50"]
    )
    options.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 16, 64])
    options.add_argument("--modes", nargs="+", default=["inference", "train"])
    options.add_argument("--pairs", nargs="+", type=_pair, default=PAIRS, metavar="M,G")
    options.add_argument("--formulations", nargs="+", default=["auto", "published"])
    options.add_argument("--no-timm", dest="timm", action="store_false")
    options.add_argument("--stem", choices=STEMS, default="imagenet")
    options.add_argument("--resolution", type=int, help="in pixels; by default what the stem is made for")
    for name in ("baseline", "allocator"):
        options.add_argument(f"--{name}", choices=TIMING_AXES[name].names, default=TIMING_AXES[name].default)
    options.add_argument("--dtype", default="float32")
    options.add_argument("--runtime", default="eager")
    options.add_argument("--memory-format", default="contiguous")
    options.add_argument("--seconds", type=float, default=10.0, help="for each network of a cell")
    options.add_argument("--target", type=float)
    options.add_argument("--out", type=Path, required=True, help="CSV file; rows are added to it")
    requested = options.parse_args()
    requested.resolution = requested.resolution or STEMS[requested.stem]
    for mode in requested.modes:
        for backbone in requested.backbones:
            for batch in requested.batch_sizes:
                cell = list(measure(backbone, batch, mode, requested))
                _append(requested.out, cell)
                _report(f"{backbone}, {mode}, batch {batch}", cell)
    print("\n".join(summary(read(requested.out))))


def _pair(text: str) -> tuple[int, int]:
    M, G = map(int, text.split(","))
    return M, G


_COLUMNS = (
    *("device", "torch", "threads", "dtype", "memory_format", "runtime", "baseline", "backbone", "stem"),
    *("resolution", "mode", "batch_size"),
    *("M", "G", "formulation", "latency_ms", "latency_ms_low", "latency_ms_high"),
    *("latency_ratio", "latency_ratio_low", "latency_ratio_high"),
    *("peak_memory_mb", "rounds", "stopped_by", "error"),
)


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _report(title: str, rows: list[dict[str, Any]]) -> None:
    print(title)
    for row in rows:
        label = row["formulation"] if row["M"] is None else f"({row['M']},{row['G']}) {row['formulation']}"
        if "error" in row:
            print(f"  {label:18} {row['error']}")
            continue
        memory = "" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:9.1f} MB"
        print(
            f"  {label:18} {row['latency_ms']:10.2f} ms  x{row['latency_ratio']:.3f}"
            f" [{row['latency_ratio_low']:.3f}, {row['latency_ratio_high']:.3f}] {memory}"
            f"  {row['rounds']} rounds"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
