"""A network taken apart: parameters, FLOPs and share of the time of each layer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wnexplore.measure.complexity import layer_flops
from wnexplore.measure.latency import DTYPES, WARM_UP_PASSES, threads_set
from wnexplore.nn import Context, GeneratedConv2d, SqueezeExcite

Part = Literal["layer", "generator", "convolution"]

MIN_PASSES = 5
MAX_PASSES = 100


@dataclass(frozen=True)
class Layer:
    """One row of the layer table."""

    name: str
    kind: str
    """Class of the module."""
    part: Part
    """A layer with generated kernels has two rows: what makes its kernels and what applies them."""
    params: int
    flops: int
    """Multiply-adds for one image."""
    time_ms: float
    """Median over the passes."""
    time_share: float
    """`time_ms` over that of a whole pass; the rest of the pass is in no layer (shuffles, additions)."""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can hold it."""
        return asdict(self)


def measure_layers(
    model: nn.Module,
    *,
    resolution: int,
    batch_size: int,
    dtype: str,
    device: str,
    threads: int | None = None,
    seconds: float = 2.0,
) -> list[Layer]:
    """Each layer of `model`, in the order of its modules, for images of `resolution` pixels.

    Timed pass by pass in inference mode for about `seconds` seconds by clocks around each layer; on a
    GPU by CUDA events. The clocks themselves cost a few microseconds a layer, so that the shares, not
    the times, are what to compare. The module is moved to the device and dtype, and left there.
    """
    flops = layer_flops(model, resolution)
    units = dict(_units(model))
    convolution_flops = _convolution_flops(model, units, resolution)
    times = _times(model, units, resolution, batch_size, dtype, device, threads, seconds)
    whole = times[""]
    rows = []
    for name, unit in units.items():
        params = sum(p.numel() for p in unit.parameters())
        if not isinstance(unit, GeneratedConv2d):
            rows.append((name, unit, "layer", params, flops.get(name, 0), times[name]))
            continue
        applied = convolution_flops[name]
        made = times[f"{name}.kernels"]
        rows.append((name, unit, "generator", params, flops[name] - applied, made))
        rows.append((name, unit, "convolution", 0, applied, times[name] - made))
    return [
        Layer(name, type(unit).__name__, part, params, count, taken, taken / whole)  # type: ignore[arg-type]
        for name, unit, part, params, count, taken in rows
    ]


def _units(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that count as one layer: those of `wnexplore.nn`, else those without children."""
    if isinstance(module, (GeneratedConv2d, SqueezeExcite, Context)) or not list(module.children()):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _units(child, f"{name}.{child_name}" if name else child_name)


def _convolution_flops(model: nn.Module, units: dict[str, nn.Module], resolution: int) -> dict[str, int]:
    """Multiply-adds of applying each generated kernel to one image: C_out·F·H_out·W_out."""
    found: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, unit in units.items():
            if isinstance(unit, GeneratedConv2d):

                def note(
                    module: nn.Module, _: Any, output: Tensor, name: str = name, fan_in: int = unit.fan_in
                ) -> None:
                    found[name] = output[0].numel() * fan_in

                handle = unit.register_forward_hook(note)
                hooks.callback(handle.remove)
        weight = next(model.parameters())
        with torch.inference_mode():
            model.eval()(weight.new_zeros(1, 3, resolution, resolution))
    return found


def _times(
    model: nn.Module,
    units: dict[str, nn.Module],
    resolution: int,
    batch_size: int,
    dtype: str,
    device: str,
    threads: int | None,
    seconds: float,
) -> dict[str, float]:
    """Median milliseconds of each unit; of its kernels under "name.kernels", of a pass under ""."""
    model.eval().to(device=device, dtype=DTYPES[dtype])
    images = torch.randn(batch_size, 3, resolution, resolution, device=device, dtype=DTYPES[dtype])
    samples: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode(), threads_set(threads):
        for _ in range(WARM_UP_PASSES):
            model(images)
        clock = _CudaClock() if device == "cuda" else _CpuClock()
        with _clocked(model, units, clock):
            end = time.perf_counter() + seconds
            passes = 0
            while passes < MIN_PASSES or (time.perf_counter() < end and passes < MAX_PASSES):
                model(images)
                for name, taken in clock.read().items():
                    samples[name].append(taken)
                passes += 1
    return {name: median(taken) for name, taken in samples.items()}


class _CpuClock:
    """Marks of a monotonic clock around named pieces of one pass."""

    def __init__(self) -> None:
        self._marks: dict[str, list[Any]] = defaultdict(list)

    def mark(self, name: str) -> None:
        self._marks[name].append(time.perf_counter_ns())

    def read(self) -> dict[str, float]:
        """Milliseconds of each piece since the last reading; a module may run more than once a pass."""
        marks, self._marks = self._marks, defaultdict(list)
        return {
            name: sum(self._between(start, end) for start, end in zip(own[::2], own[1::2], strict=True))
            for name, own in marks.items()
        }

    def _between(self, start: Any, end: Any) -> float:
        return float(end - start) / 1e6


class _CudaClock(_CpuClock):
    """The same with CUDA events, read when the device has come to the end of the pass."""

    def mark(self, name: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks[name].append(event)

    def read(self) -> dict[str, float]:
        torch.cuda.synchronize()
        return super().read()

    def _between(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end))


@contextmanager
def _clocked(model: nn.Module, units: dict[str, nn.Module], clock: _CpuClock) -> Iterator[None]:
    """Put the clock around the model, each unit, and the making of each unit's kernels."""
    with ExitStack() as undo:
        for name, module in {"": model, **units}.items():
            before = module.register_forward_pre_hook(lambda *_, name=name: clock.mark(name))
            after = module.register_forward_hook(lambda *_, name=name: clock.mark(name))
            undo.callback(before.remove)
            undo.callback(after.remove)
            if isinstance(module, GeneratedConv2d):
                # An attribute of the instance hides the method until it is taken away again.
                module.kernels = _marking(module.kernels, f"{name}.kernels", clock)  # type: ignore[method-assign]
                undo.callback(delattr, module, "kernels")
        yield


def _marking(function: Callable[..., Tensor], name: str, clock: _CpuClock) -> Callable[..., Tensor]:
    def marked(*args: Any) -> Tensor:
        clock.mark(name)
        result = function(*args)
        clock.mark(name)
        return result

    return marked
