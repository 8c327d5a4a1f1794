"""Benchmarks every formulation of one layer in rounds with a plain convolution of the same shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.measure.distinct_layers import DistinctLayer
from wnexplore.measure.failure import ContextLostError, Failure, release_memory
from wnexplore.measure.rounds import Sampler, Timing, time_in_rounds, warm_up
from wnexplore.measure.statistics import bootstrap_interval, ratios
from wnexplore.measure.stopwatch import before_sample, sampler
from wnexplore.measure.torch_settings import DTYPES, MEMORY_FORMATS, precision_set, threads_set
from wnexplore.nn.formulations import LayerShape, apply_generated, choose_formulation, legal_formulations
from wnexplore.results.formulation_timings import FailedFormulation, LayerBenchmark, TimedFormulation
from wnexplore.results.intervals import MedianInterval

TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}
"""The `difference` attributed to rounding in each dtype."""


def benchmark_layer(layer: DistinctLayer, protocol: LatencyProtocol) -> LayerBenchmark:
    """Time each legal formulation of `layer` in rounds under `protocol`, in eager mode with warm caches.

    The baseline is a plain convolution, one kernel for all images. Inference is the forward pass, training
    forward and backward, with gradients of images, activation vectors and weights. The fused formulation
    takes part only on a GPU. One that runs out of memory or fails is a `FailedFormulation`; if the plain
    convolution fails, so do all. Raises `ContextLostError` for one that loses the GPU's context.
    """
    names = [name for name in legal_formulations(layer.shape) if name != "fused" or protocol.device == "cuda"]
    with threads_set(protocol.threads), precision_set(protocol.dtype):
        try:
            return _benchmark(layer, protocol, names)
        except ContextLostError as error:
            raise ContextLostError(f"{error.culprit} of {layer.name}", error.failure, resumes=False) from None
        except Exception as error:
            failure = Failure.of(error)
        finally:
            release_memory(protocol.device)
        if failure.context_lost:
            raise ContextLostError(f"the plain convolution of {layer.name}", failure, resumes=False)
        failed = dict.fromkeys(names, _failed(failure))
        return LayerBenchmark(protocol.batch_size, None, failed, None, None, None)


def difference(y: Tensor, expected: Tensor) -> float:
    """The largest distance of `y` from `expected` (float64), relative to the latter's largest value.

    NaN where `y` holds NaN; infinite where the shapes differ.
    """
    if y.shape != expected.shape:
        return math.inf
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((y.to(expected.dtype) - expected).abs().max() / largest)


_PLAIN = "plain"


def _benchmark(layer: DistinctLayer, protocol: LatencyProtocol, names: list[str]) -> LayerBenchmark:
    training = protocol.mode == "train"
    shape, place = layer.shape, {"device": protocol.device, "dtype": DTYPES[protocol.dtype]}
    layout = MEMORY_FORMATS[protocol.memory_format]
    batch = protocol.batch_size
    x = torch.randn(batch, shape.in_channels, layer.height, layer.width, **place)  # type: ignore[call-overload]
    x = x.contiguous(memory_format=layout).requires_grad_(training)
    # In the range of a sigmoid.
    alpha = torch.rand(batch, shape.generator_groups * shape.inputs_per_group, **place)  # type: ignore[call-overload]
    weight = layer.weight.to(**place).requires_grad_(training)  # type: ignore[call-overload]
    inputs = (x, alpha.requires_grad_(training), weight)

    kernel = torch.randn(shape.kernel_shape, **place).contiguous(memory_format=layout)  # type: ignore[call-overload]
    options = (None, shape.stride, shape.padding, shape.dilation, shape.groups)
    plain = _step(partial(functional.conv2d, x, kernel.requires_grad_(training), *options), (x, kernel))
    samplers = {_PLAIN: _warm(plain, protocol)}
    expected = _expected(*inputs, shape)

    found: dict[str, TimedFormulation | FailedFormulation] = {}
    differences: dict[str, float] = {}
    for name in names:
        try:
            step = _step(partial(apply_generated, *inputs, shape, name), inputs)
            differences[name] = difference(step(), expected)
            samplers[name] = _warm(step, protocol)
        except Exception as error:
            failure = Failure.of(error)
            found[name] = _failed(failure)
            if failure.context_lost:
                raise ContextLostError(name, failure) from None
    del expected

    timings: dict[str, Timing] = {}
    wanted = tuple(name for name in samplers if name != _PLAIN)
    seconds = protocol.seconds * len(wanted)
    for name, timing in time_in_rounds(samplers, _PLAIN, wanted, target=protocol.target, seconds=seconds):
        if isinstance(timing, Failure):
            found[name] = _failed(timing)
        else:
            timings[name] = timing
            found[name] = _timed(timing, differences[name], TOLERANCES[protocol.dtype])
    picked = choose_formulation(x, weight, shape)
    fastest = _fastest(found)
    return LayerBenchmark(
        batch,
        _plain_ms(timings.values()),
        {name: found[name] for name in names},
        picked,
        fastest,
        _regret(timings.get(picked), timings.get(fastest or "")),
    )


def _step(forward: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """One pass, which returns the output: `forward`, and backward to the `leaves` that require gradients."""
    if not leaves[0].requires_grad:
        return torch.inference_mode()(forward)
    with torch.no_grad():
        gradient = torch.randn_like(forward())

    def step() -> Tensor:
        y = forward()
        torch.autograd.grad(y, leaves, gradient)
        return y.detach()

    return step


def _warm(step: Callable[[], Tensor], protocol: LatencyProtocol) -> Sampler:
    sample = sampler(step, protocol.device, before_sample(step, protocol.device, "warm"))
    warm_up(sample, protocol.seconds / 4)
    return sample


@torch.no_grad()
def _expected(x: Tensor, alpha: Tensor, weight: Tensor, shape: LayerShape) -> Tensor:
    """What the layer computes, by the published formulation in float64."""
    double = weight.double()
    # One image at a time: the kernels of a batch may not fit in memory.
    images = zip(x.split(1), alpha.split(1), strict=True)
    return torch.cat([apply_generated(i.double(), a.double(), double, shape, "published") for i, a in images])


def _failed(failure: Failure) -> FailedFormulation:
    return FailedFormulation(failure.status, failure.error)


def _timed(timing: Timing, difference: float, tolerance: float) -> TimedFormulation:
    return TimedFormulation(
        bootstrap_interval(timing.samples_ms),
        bootstrap_interval(timing.deciding),
        len(timing.samples_ms),
        timing.stopped_by,
        difference,
        difference <= tolerance,
    )


def _plain_ms(timings: Collection[Timing]) -> MedianInterval | None:
    # The formulation timed longest has all the rounds.
    longest = max((timing.baseline_ms or [] for timing in timings), key=len, default=[])
    return bootstrap_interval(longest) if longest else None


def _fastest(found: Mapping[str, TimedFormulation | FailedFormulation]) -> str | None:
    right = {
        name: outcome.ratio.median
        for name, outcome in found.items()
        if isinstance(outcome, TimedFormulation) and outcome.agrees
    }
    return min(right, key=lambda name: right[name], default=None)


def _regret(picked: Timing | None, fastest: Timing | None) -> MedianInterval | None:
    if picked is None or fastest is None:
        return None
    # All start in the first round and leave once they are known well enough.
    rounds = min(len(picked.samples_ms), len(fastest.samples_ms))
    return bootstrap_interval(ratios(picked.samples_ms[:rounds], fastest.samples_ms[:rounds]))
