"""Statistics of how much generated kernels depend on the image.

The kernels are never materialised: with B_p the weights (L, lambda) of group p of the generator, those of
two images have the inner product <W_n, W_m> = sum_p alpha_{n,p}^T (B_p^T B_p) alpha_{m,p}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wnexplore.errors import InputError, RunError
from wnexplore.measure.torch_settings import PRECISION, precision_set
from wnexplore.nn import GeneratedConv2d
from wnexplore.nn.generated import generated_layers
from wnexplore.results.layer_kernels import Floats, LayerKernels

SAMPLES = 512
"""Default number of images whose activation vectors are analysed."""

PAIRED = 256
"""Most images of which all pairs are compared; of more, this many equally spaced ones."""

DEAD = 1e-3
"""An entry is dead if its standard deviation over the images is at most this share of its range."""

SATURATED = 0.01
"""An entry is saturated if its mean is within this share of its range from one of the ends."""

PERPLEXITY = 30.0
"""Perplexity of the t-SNE with enough images."""

MIN_MAPPED = 5
"""Fewest images for a t-SNE."""


@dataclass(frozen=True)
class Seen:
    """The activation vectors of each layer for the same images, on the CPU."""

    alphas: dict[str, Tensor]
    """Layer, in the order of the first runs -> (N, P·lambda)."""
    labels: Tensor
    """(N,), the images' classes."""


def activation_vectors(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], samples: int = SAMPLES
) -> Seen:
    """The activation vectors of the layers of `network` for the first `samples` images of `batches`.

    Images (n, 3, H, W) are on the device of `network`, which is put in evaluation mode. A layer that is
    called more than once per pass is recorded at its first call; one that is never called is omitted. Raises
    `InputError` if no layer has generated kernels or there are fewer than 2 images, `RunError` if a vector is
    not finite.
    """
    layers = generated_layers(network)
    network.eval()
    found: dict[str, list[Tensor]] = {}
    labels: list[Tensor] = []
    missing = samples
    with ExitStack() as undo, torch.inference_mode(), precision_set(PRECISION):
        run: dict[str, Tensor] = {}
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(partial(_note, name, run), with_kwargs=True)
            undo.callback(hook.remove)
        for images, classes in batches:
            run.clear()
            network(images[:missing])
            for name, alpha in run.items():
                found.setdefault(name, []).append(alpha.float().cpu())
            labels.append(classes[:missing].cpu())
            missing -= len(labels[-1])
            if missing <= 0:
                break
    if samples - missing < 2:
        raise InputError(f"kernels of {samples - missing} images can't be compared: expected at least 2")
    if not found:
        raise InputError("the network runs no layer with generated kernels")
    seen = Seen({name: torch.cat(parts) for name, parts in found.items()}, torch.cat(labels))
    for name, alpha in seen.alphas.items():
        if not alpha.isfinite().all():
            raise RunError(f"layer {name}: its activation vectors are not finite: did the training diverge?")
    return seen


def measure_kernels(name: str, layer: GeneratedConv2d, alpha: Tensor, labels: Tensor) -> LayerKernels:
    """The similarity of the kernels of `layer` for images with activation vectors `alpha` (N, P·lambda).

    `labels` (N,) are their classes. Standard deviations are over the N images, without Bessel's correction.
    """
    chosen = torch.arange(min(len(alpha), PAIRED)) * len(alpha) // min(len(alpha), PAIRED)
    cosines, same_class = _pairs(layer_gram(layer, alpha[chosen]), labels[chosen])
    alpha = alpha.double()
    means, stds = alpha.mean(0), alpha.std(0, correction=0)
    low, high = layer.activation_range or (float(alpha.min()), float(alpha.max()))
    span = (high - low) or 1.0
    saturated = ((means - low).minimum(high - means) <= SATURATED * span).double().mean()
    return LayerKernels(
        name=name,
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        groups=layer.groups,
        inputs=alpha.shape[1],
        inputs_per_group=layer.shape.inputs_per_group,
        samples=len(alpha),
        cosines=cosines.numpy(),
        same_class=same_class.numpy(),
        alpha_mean=float(means.mean()),
        alpha_stds=stds.numpy(),
        alpha_dead=float((stds <= DEAD * span).double().mean()),
        alpha_saturated=None if layer.activation_range is None else float(saturated),
    )


def layer_gram(layer: GeneratedConv2d, alpha: Tensor) -> Tensor:
    """(N, N), float64: the inner products of the kernels of `layer` for `alpha` (N, P·lambda)."""
    weight = layer.generator_weight.detach().cpu()
    return gram(alpha, weight, layer.shape.generator_groups)


def gram(alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(N, N), float64: the inner products of the kernels of `alpha` (N, P·lambda), without materialising
    them.

    `weight` (C_out·F, lambda) and `groups` P are as in `wnexplore.nn.formulations.generate_kernels`.
    """
    terms = weight.shape[1]
    by_group = weight.reshape(groups, -1, terms)  # (P, L, lambda)
    squares = torch.zeros(groups, terms, terms, dtype=torch.float64)
    for part in by_group.split(max(1, _AT_ONCE // (groups * terms)), 1):
        part = part.double()
        squares += part.transpose(1, 2) @ part
    vectors = alpha.double().view(-1, groups, terms).transpose(0, 1)  # (P, N, lambda)
    through = (vectors @ squares).transpose(0, 1).flatten(1)
    return through @ alpha.double().t()


def kernel_map(products: Tensor, seed: int) -> Floats | None:
    """A two-dimensional t-SNE map (N, 2) of kernels from their inner products (N, N).

    Source: van der Maaten and Hinton, JMLR 9, 2008; distances are Euclidean, the perplexity 30, or a third of
    the other images if that is less. None for fewer than `MIN_MAPPED` images, and if all kernels are
    equal.
    """
    if len(products) < MIN_MAPPED:
        return None
    # Points with exactly these distances: the principal components of the kernels (Torgerson, 1952).
    centred = products - products.mean(0)
    centred = centred - centred.mean(1, keepdim=True)
    spread = float(centred.trace())
    if spread <= _ROUNDING * float(products.trace()):
        return None
    values, vectors = torch.linalg.eigh(centred / spread)
    points = (vectors * values.clamp_min(0).sqrt()).flip(1).numpy() * np.sqrt(len(products))
    return _embedded(points, seed)


def _embedded(points: Floats, seed: int) -> Floats:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    made = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(points)
    return np.asarray(made, dtype=np.float64)


_AT_ONCE = 2**22
"""Elements converted to float64 at a time: 32 MiB."""

_ROUNDING = 1e-12
"""Share of the kernels' squared norms below which differences are rounding."""


def _note(name: str, run: dict[str, Tensor], layer: nn.Module, args: Any, kwargs: Any) -> None:
    assert isinstance(layer, GeneratedConv2d)
    if name not in run:
        run[name] = _alpha(layer.activations)(*args, **kwargs)


def _alpha(activations: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[..., Tensor]:
    """A function from the arguments of a layer's `forward` to its activation vectors."""

    def found(
        x: Tensor, context: Tensor | None = None, alpha: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        return activations(x, context) if alpha is None else alpha

    return found


def _pairs(products: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of each pair of kernels, and whether the images have one class; without pairs with a zero
    kernel.
    """
    lengths = products.diagonal().clamp_min(0).sqrt()
    first, second = torch.triu_indices(len(products), len(products), 1)
    nonzero = (lengths[first] > 0) & (lengths[second] > 0)
    first, second = first[nonzero], second[nonzero]
    cosines = products[first, second] / (lengths[first] * lengths[second])
    return cosines.clamp(-1, 1), labels[first] == labels[second]
