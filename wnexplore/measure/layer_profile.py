"""A network's profile by layer: parameters, FLOPs, bytes, time and share of the roofline."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.measure.complexity import count_products
from wnexplore.measure.memory import dense_parts
from wnexplore.measure.thread_waiting import yield_to_others
from wnexplore.measure.torch_settings import DTYPES, MEMORY_FORMATS, place, precision_set, threads_set
from wnexplore.models.method_layers import layer_spec
from wnexplore.models.multiply_adds import Place
from wnexplore.nn import ActivationVectors, Context, GeneratedConv2d, MethodConv2d
from wnexplore.results.network_profile import OWN_WORK, LayerProfile, Peaks

WARM_UP_PASSES = 3
MIN_PASSES = 5
MAX_PASSES = 100


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
) -> list[LayerProfile]:
    """Each layer of `model`, in the order of its modules, for images of `resolution` pixels.

    A composite module that multiplies matrices or has parameters outside of its layers has a row for them, so
    that the rows add up to the network; the measured figures of a layer that never runs are 0.

    Passes in eager and inference mode are timed for about `seconds` seconds by clocks around each layer; on a
    GPU by CUDA events. The clocks cost a few microseconds per layer, so compare the shares, not the times;
    and a convolution runs separately from the normalisation that can otherwise be folded into it
    (`wnexplore.nn.normalised`). What runs inside a script (torch.jit) can't be seen by layer: it belongs to
    the module around it. The module is moved to the device and dtype, and left there. `peaks` are those of
    the device for the dtype, see `wnexplore.measure.roofline`.
    """
    units = _units(model)
    owners = _owners(model, units)
    flops = _by_row(count_products(model, resolution).flops, units)
    # Not by `get_submodule`, which scripts don't have.
    modules = dict(model.named_modules())
    owners |= {name: modules[name] for name in flops if name not in units}
    images = torch.randn(batch_size, 3, resolution, resolution, device=device, dtype=DTYPES[dtype])
    images = images.contiguous(memory_format=MEMORY_FORMATS[memory_format])
    place(model.eval(), device, DTYPES[dtype], MEMORY_FORMATS[memory_format])
    moved_by_owners = (
        _by_row(count_products(model, resolution, batch_size).bytes, units) if owners else Counter()
    )
    with torch.inference_mode(), threads_set(threads), precision_set(dtype):
        yield_to_others(at_once=True)
        moved = _seen(model, units, images)
        times = _times(model, units | owners, images, seconds)
    own_times = _self_times(times, units, owners)
    layers = []
    counted: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        if name not in units and name not in owners:
            continue
        is_unit = name in units
        seen = moved[name] if is_unit else _Seen(moved_by_owners[name])
        taken = times.get(name, 0.0) if is_unit else own_times[name]
        # A shared weight counts once.
        parameters = set(module.parameters(recurse=is_unit)) - counted
        counted |= parameters
        work = batch_size * flops[name]
        layers.append(
            LayerProfile(
                name=name,
                kind=type(module).__name__ + ("" if is_unit else OWN_WORK),
                formulation=seen.formulation,
                depthwise=_is_depthwise(module),
                params=sum(p.numel() for p in parameters),
                flops=flops[name],
                time_ms=taken,
                time_share=taken / times[""],
                bytes=seen.bytes,
                intensity=work / seen.bytes if seen.bytes else 0.0,
                roofline_share=peaks.least_ms(work, seen.bytes) / taken if taken > 0 else 0.0,
            )
        )
    return layers


def _units(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that count as one layer: those of methods, and otherwise those without children."""
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside:
            continue
        spec = layer_spec(module)
        is_unit = spec is not None and spec.layer_kind is not None
        if is_unit or isinstance(module, (Context, ActivationVectors)) or not list(module.children()):
            found[name] = module
            inside.update(module.modules())
    return found


def _owners(model: nn.Module, units: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The composite modules that hold parameters directly."""
    inside = {part for unit in units.values() for part in unit.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if module not in inside and next(module.parameters(recurse=False), None) is not None
    }


def _by_row(amounts: Counter[Place], units: dict[str, nn.Module]) -> Counter[str]:
    """Amounts by layer, or by the innermost module for work outside of any layer.

    Work outside of all modules belongs to the network: a script's modules can't be observed.
    """
    found: Counter[str] = Counter()
    for within, amount in amounts.items():
        innermost = within[-1] if within else ""
        found[next((name for name in within if name in units), innermost)] += amount
    return found


def _self_times(
    times: dict[str, float], units: dict[str, nn.Module], owners: dict[str, nn.Module]
) -> dict[str, float]:
    """The self time of each owner in milliseconds: without that of the layers and owners inside it."""
    self_times: dict[str, float] = {}
    # Innermost first: they have the longest names.
    for name in sorted(owners, key=len, reverse=True):
        start = f"{name}." if name else ""
        inside = (times.get(unit, 0.0) for unit in units if unit.startswith(start))
        others = (taken for other, taken in self_times.items() if other.startswith(start))
        self_times[name] = max(0.0, times.get(name, 0.0) - sum(inside) - sum(others))
    return self_times


_VIEWS = (nn.Identity, nn.Flatten)
"""Modules that return their input unchanged: no byte moves."""


def _is_depthwise(unit: nn.Module) -> bool:
    return isinstance(unit, (nn.Conv2d, MethodConv2d)) and unit.groups == unit.in_channels > 1


@dataclass
class _Seen:
    """The observations of a unit in one pass."""

    bytes: int = 0
    formulation: str | None = None
    largest: int = 0
    """The numbers of the largest input, whose `formulation` it is."""


def _seen(model: nn.Module, units: dict[str, nn.Module], images: Tensor) -> dict[str, _Seen]:
    """The traffic of each unit for `images`, and the formulation that ran."""
    found = {name: _Seen() for name in units}
    with ExitStack() as undo:
        for name, unit in _hookable(units):

            def note(
                module: nn.Module, inputs: Any, named: dict[str, Any], output: Any, name: str = name
            ) -> None:
                if isinstance(module, _VIEWS):
                    return
                # A module may run more than once per pass.
                outputs = output.values() if isinstance(output, dict) else [output]
                found[name].bytes += _bytes(
                    *inputs, *named.values(), *outputs, *_read(module, "alpha" in named)
                )
                if isinstance(module, GeneratedConv2d) and inputs[0].numel() > found[name].largest:
                    found[name].largest = inputs[0].numel()
                    found[name].formulation = module.formulation_of(inputs[0])

            undo.callback(unit.register_forward_hook(note, with_kwargs=True).remove)
        model(images)
    return found


def _hookable(units: dict[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Those that tell when they run: scripts take no hooks."""
    return ((name, unit) for name, unit in units.items() if not isinstance(unit, torch.jit.ScriptModule))


def _read(module: nn.Module, with_alpha: bool) -> Iterable[Tensor]:
    """The parameters and buffers that one pass of `module` reads."""
    if isinstance(module, ActivationVectors):
        return module.parameters_read()
    if isinstance(module, GeneratedConv2d) and with_alpha:
        return [module.generator_weight]
    # Batch normalisation's count of batches is read only in training.
    statistics = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    return [*module.parameters(), *statistics]


def _bytes(*values: Any) -> int:
    tensors = (part for value in values if isinstance(value, Tensor) for part in dense_parts(value))
    return sum(part.numel() * part.element_size() for part in tensors)


def _times(model: nn.Module, units: dict[str, nn.Module], images: Tensor, seconds: float) -> dict[str, float]:
    """Median milliseconds of each unit, and of a pass under ""."""
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(WARM_UP_PASSES):
        model(images)
    clock = _CudaClock() if images.is_cuda else _CpuClock()
    with _clocked({name: unit for name, unit in units.items() if name}, clock):
        end = time.perf_counter() + seconds
        passes = 0
        while passes < MIN_PASSES or (time.perf_counter() < end and passes < MAX_PASSES):
            clock.mark("")
            model(images)
            clock.mark("")
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
        """Milliseconds of each piece since the last reading; a module may run more than once per pass."""
        marks, self._marks = self._marks, defaultdict(list)
        return {
            name: sum(self._between(start, end) for start, end in zip(mark[::2], mark[1::2], strict=True))
            for name, mark in marks.items()
        }

    def _between(self, start: Any, end: Any) -> float:
        return float(end - start) / 1e6


class _CudaClock(_CpuClock):
    """As `_CpuClock` with CUDA events, read when the device has finished the pass."""

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
def _clocked(units: dict[str, nn.Module], clock: _CpuClock) -> Iterator[None]:
    """Put the clock around each unit."""
    with ExitStack() as undo:
        for name, module in _hookable(units):
            before = module.register_forward_pre_hook(lambda *_, name=name: clock.mark(name))
            after = module.register_forward_hook(lambda *_, name=name: clock.mark(name))
            undo.callback(before.remove)
            undo.callback(after.remove)
        yield
