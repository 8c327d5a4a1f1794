"""Analyses the kernels that a trained network generates for a data set's test images."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import pairwise

import torch

from wnexplore.data import Batch, Data
from wnexplore.errors import InputError, shown
from wnexplore.measure.torch_settings import PRECISION
from wnexplore.nn.generated import generated_layers
from wnexplore.results.layer_kernels import KernelAnalysis, KernelMap
from wnexplore.training.checkpoint import Trained
from wnexplore.training.kernel_statistics import activation_vectors, kernel_map, layer_gram, measure_kernels


def analyze(
    trained: Trained, data: Data, *, samples: int, layer: str | None, seed: int, device: str
) -> KernelAnalysis:
    """The analysis of a network on up to `samples` test images of all classes.

    `layer` is the dotted name of the layer mapped by t-SNE, seeded by `seed`; by default the last one to run.
    `data` has the network's classes, as returned by `evaluate.test_data`. Raises `InputError` if the network
    has no such layer or none that generates kernels, or another number of classes, and for a detector.
    """
    network, point = trained.network.to(device), trained.metadata.point
    if point.task != "classification":
        raise InputError(
            f"the kernels of {point} belong to images of several classes each: expected a checkpoint of a"
            " network that classifies"
        )
    if data.num_classes != point.num_classes:
        raise InputError(
            f"data set '{data.name}' has {data.num_classes} classes, and this network {point.num_classes}:"
            f" expected a data set such as '{shown(trained.metadata.data)}'"
        )
    try:
        layers = generated_layers(network, layer)
    except InputError as error:
        raise InputError(f"method '{point.method}': {error}") from None
    seen = activation_vectors(network, _spread(data, samples, device), samples)
    mapped = layer or list(seen.alphas)[-1]
    if mapped not in seen.alphas:
        raise InputError(f"layer '{mapped}' doesn't run when the network does")
    points = kernel_map(layer_gram(layers[mapped], seen.alphas[mapped]), seed)
    return KernelAnalysis(
        network=str(point),
        data=data.name,
        classes=data.classes,
        layers=tuple(
            measure_kernels(name, layers[name], alpha, seen.labels) for name, alpha in seen.alphas.items()
        ),
        map=None if points is None else KernelMap(mapped, points, seen.labels.numpy()),
        device=device,
        precision=PRECISION,
    )


def _spread(data: Data, samples: int, device: str) -> Iterator[Batch]:
    """At most `samples` test images spread over the split, the same ones every time.

    Image files are sorted by class and synthetic images cycle through the classes, so equally spaced images
    could miss classes: one image is drawn from each of `samples` intervals. For a much larger split, only
    images at a stride coprime to the number of classes are read.
    """
    step = max(1, len(data.test) // samples)
    step = next(distance for distance in range(step, 0, -1) if math.gcd(distance, data.num_classes) == 1)
    count = -(-len(data.test) // step)
    ends = (
        [number * count // samples for number in range(samples + 1)] if samples < count else range(count + 1)
    )
    draw = random.Random(0)
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[[draw.randrange(start, end) for start, end in pairwise(ends)]] = True
    position = 0
    for images, labels in data.test.batches(_BATCH * step, device, world=step):
        inside = chosen[position : position + len(labels)].to(device)
        position += len(labels)
        if inside.any():
            yield images[inside], labels[inside]


_BATCH = 64
