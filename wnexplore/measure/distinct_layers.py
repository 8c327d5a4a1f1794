"""The distinct layers with generated kernels of a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.nn.formulations import LayerShape
from wnexplore.nn.generated import generated_layers
from wnexplore.results.formulation_timings import BenchmarkedLayer, ConvNumbers, LayerBenchmark


@dataclass(frozen=True)
class DistinctLayer:
    """A call of a layer with generated kernels, standing for all of the same shape and input size."""

    name: str
    """Of the first such layer."""
    count: int
    """How many such calls a pass of the network has: one a layer, but for those of a detector's head."""
    shape: LayerShape
    height: int
    width: int
    """Of the layer's input."""
    weight: Tensor
    """Of the first such layer, (C_out·F, lambda), in its memory layout."""

    def with_benchmarks(self, benchmarks: Iterable[LayerBenchmark]) -> BenchmarkedLayer:
        """The layer's results at each batch size, without the weight."""
        shape = ConvNumbers(**_numbers(self.shape))
        return BenchmarkedLayer(self.name, self.count, self.height, self.width, shape, tuple(benchmarks))


def distinct_layers(network: nn.Module, resolution: int, layer: str | None = None) -> list[DistinctLayer]:
    """The distinct layers with generated kernels of `network` for images of `resolution` pixels.

    Layers are alike if all numbers of their shapes and the sizes of their inputs are equal. `layer` is the
    dotted name of a single layer to take. The network is left in evaluation mode. Raises `InputError` if it
    has no such layer.
    """
    layers = generated_layers(network, layer)
    sizes = _input_sizes(network, layers, resolution)
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, module in layers.items():
        for size in sizes[name]:
            alike[(size, *_numbers(module.shape).values())].append(name)
    found = []
    for ((height, width), *_), names in alike.items():
        if layer is None or layer in names:
            name = layer or names[0]
            weight = layers[name].generator_weight.detach()
            found.append(DistinctLayer(name, len(names), layers[name].shape, height, width, weight))
    return found


def _input_sizes(
    network: nn.Module, layers: Mapping[str, nn.Module], resolution: int
) -> dict[str, list[tuple[int, int]]]:
    """(H, W) of the input of each call of a layer for images of `resolution` pixels."""
    sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in layers}
    with ExitStack() as undo, torch.no_grad():
        for name, layer in layers.items():

            def note(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                sizes[name].append((inputs[0].shape[2], inputs[0].shape[3]))

            undo.callback(layer.register_forward_pre_hook(note).remove)
        device = next(network.parameters()).device
        network.eval()(torch.zeros(1, 3, resolution, resolution, device=device))
    return sizes


def _numbers(shape: LayerShape) -> dict[str, Any]:
    return {field.name: getattr(shape, field.name) for field in fields(shape) if field.init}
