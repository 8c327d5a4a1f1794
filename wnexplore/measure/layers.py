"""A network taken apart: parameters, FLOPs, bytes, time and share of the roofline of each layer."""

from __future__ import annotations

import math
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
from wnexplore.measure.roofline import Peaks
from wnexplore.measure.switches import DTYPES, MEMORY_FORMATS, precision_set, threads_set
from wnexplore.nn import Context, GeneratedConv2d, SqueezeExcite

Part = Literal["layer", "generator", "convolution"]

WARM_UP_PASSES = 3
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
    depthwise: bool
    """Whether it is a convolution of each channel by itself."""
    params: int
    flops: int
    """Multiply-adds for one image."""
    time_ms: float
    """Median over the passes."""
    time_share: float
    """`time_ms` over that of a whole pass; the rest of the pass is in no layer (shuffles, additions)."""
    bytes: int
    """The least that one pass of the batch moves: inputs, weights and kernels read once, outputs and
    kernels written once, each in the dtype that it has; 0 where the input is only handed on."""
    intensity: float
    """Multiply-adds a byte: half of what it is in papers that count a multiply-add as two operations."""
    roofline_share: float
    """The time that the roofline leaves for the layer over `time_ms`: 1 is the limit. Never cut off:
    above 1 its data was still in a cache, or the device was slower when its peaks were measured. Far
    below 1 in a layer of microseconds on a GPU, launching its kernels took longer than running them."""

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
    peaks: Peaks,
    memory_format: str = "contiguous",
    threads: int | None = None,
    seconds: float = 2.0,
) -> list[Layer]:
    """Each layer of `model`, in the order of its modules, for images of `resolution` pixels.

    Timed pass by pass in eager and inference mode for about `seconds` seconds by clocks around each
    layer; on a GPU by CUDA events. The clocks themselves cost a few microseconds a layer, so that the
    shares, not the times, are what to compare. The module is moved to the device and dtype, and left
    there. `peaks` are those of the device for the dtype, see `wnexplore.measure.roofline`.
    """
    flops = layer_flops(model, resolution)
    units = dict(_units(model))
    images = torch.randn(batch_size, 3, resolution, resolution, device=device, dtype=DTYPES[dtype])
    images = images.contiguous(memory_format=MEMORY_FORMATS[memory_format])
    place = {"dtype": DTYPES[dtype], "memory_format": MEMORY_FORMATS[memory_format]}
    model.eval().to(device=device, **place)  # type: ignore[call-overload]
    with torch.inference_mode(), threads_set(threads), precision_set(dtype):
        moved = _traffic(model, units, images)
        times = _times(model, units, images, seconds)
    pieces = []
    for name, unit in units.items():
        params = sum(p.numel() for p in unit.parameters())
        if not isinstance(unit, GeneratedConv2d):
            pieces.append((name, "layer", params, flops.get(name, 0), times[name]))
            continue
        # Applying each kernel to one image: C_out·F·H_out·W_out.
        applied = moved[_convolution(name)].outputs // batch_size * unit.fan_in
        made = times[_kernels(name)]
        pieces.append((_kernels(name), "generator", params, flops[name] - applied, made))
        pieces.append((_convolution(name), "convolution", 0, applied, times[name] - made))
    layers = []
    for piece, part, params, count, taken in pieces:
        name = piece if part == "layer" else piece.rpartition(":")[0]
        work, size = batch_size * count, moved[piece].bytes
        layers.append(
            Layer(
                name=name,
                kind=type(units[name]).__name__,
                part=part,  # type: ignore[arg-type]
                depthwise=_is_depthwise(units[name]),
                params=params,
                flops=count,
                time_ms=taken,
                time_share=taken / times[""],
                bytes=size,
                intensity=work / size if size else 0.0,
                roofline_share=peaks.least_ms(work, size) / taken if taken > 0 else 0.0,
            )
        )
    return layers


def _units(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that count as one layer: those of `wnexplore.nn`, else those without children."""
    if isinstance(module, (GeneratedConv2d, SqueezeExcite, Context)) or not list(module.children()):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _units(child, f"{name}.{child_name}" if name else child_name)


_VIEWS = (nn.Identity, nn.Flatten)
"""What hands its input on as it is: no byte moves."""


def _is_depthwise(unit: nn.Module) -> bool:
    return isinstance(unit, (nn.Conv2d, GeneratedConv2d)) and unit.groups == unit.in_channels > 1


def _kernels(name: str) -> str:
    return f"{name}:kernels"


def _convolution(name: str) -> str:
    return f"{name}:convolution"


@dataclass(frozen=True)
class _Traffic:
    """What one pass of a piece moves at least."""

    bytes: int
    outputs: int
    """Numbers in its output."""


def _traffic(model: nn.Module, units: dict[str, nn.Module], images: Tensor) -> dict[str, _Traffic]:
    """The traffic of each unit for `images`; of a generated layer that of either part."""
    found: dict[str, _Traffic] = {}
    with ExitStack() as undo:
        for name, unit in units.items():

            def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                # Batch normalisation's count of the batches is read in training alone.
                statistics = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
                weights = _bytes(*module.parameters(), *statistics)
                if not isinstance(module, GeneratedConv2d):
                    # A module may run more than once a pass.
                    before = found.get(name, _Traffic(0, 0))
                    own = 0 if isinstance(module, _VIEWS) else _bytes(*inputs, output) + weights
                    found[name] = _Traffic(before.bytes + own, before.outputs + output.numel())
                    return
                x, context = inputs[0], inputs[1] if len(inputs) > 1 else None
                kernels = x.shape[0] * math.prod(module.kernel_shape) * x.element_size()
                # A layer that makes its own context pools its input for it.
                read = _bytes(x if context is None else context) + weights
                found[_kernels(name)] = _Traffic(read + kernels, kernels // x.element_size())
                found[_convolution(name)] = _Traffic(_bytes(x, output) + kernels, output.numel())

            undo.callback(unit.register_forward_hook(note).remove)
        model(images)
    return found


def _bytes(*values: Any) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def _times(model: nn.Module, units: dict[str, nn.Module], images: Tensor, seconds: float) -> dict[str, float]:
    """Median milliseconds of each unit; of its kernels under "name:kernels", of a pass under ""."""
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(WARM_UP_PASSES):
        model(images)
    clock = _CudaClock() if images.is_cuda else _CpuClock()
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
                module.kernels = _marking(module.kernels, _kernels(name), clock)  # type: ignore[method-assign]
                undo.callback(delattr, module, "kernels")
        yield


def _marking(function: Callable[..., Tensor], name: str, clock: _CpuClock) -> Callable[..., Tensor]:
    def marked(*args: Any) -> Tensor:
        clock.mark(name)
        result = function(*args)
        clock.mark(name)
        return result

    return marked
