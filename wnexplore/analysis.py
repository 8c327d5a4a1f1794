"""The kernels that a trained network generates, looked at with the test images of a data set."""

from __future__ import annotations

from wnexplore.checkpoint import Trained
from wnexplore.design.layer_kernels import KernelAnalysis, KernelMap
from wnexplore.errors import InputError
from wnexplore.measure.data import Data
from wnexplore.measure.kernels import activation_vectors, kernel_map, layer_gram, measure_kernels
from wnexplore.nn.generated import generated_layers


def analyze(
    trained: Trained, data: Data, *, samples: int, layer: str | None, seed: int, device: str
) -> KernelAnalysis:
    """What `wnexplore analyze` shows of a network and up to `samples` test images at equal distances.

    `layer` is the dotted name of the one that is mapped by t-SNE, which `seed` starts; the last one to run if
    left out. Raises `InputError` if the network has no such layer or none that generates kernels.
    """
    network, point = trained.network.to(device), trained.origin.point
    try:
        layers = generated_layers(network, layer)
    except InputError as error:
        raise InputError(f"method '{point.method}': {error}") from None
    # Images in folders come class by class: the first ones would be of few classes.
    step = max(1, len(data.test) // samples)
    batches = data.test.batches(_BATCH * step, device, world=step)
    seen = activation_vectors(network, batches, samples)
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
    )


_BATCH = 64
