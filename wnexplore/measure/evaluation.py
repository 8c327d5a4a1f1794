"""How good a network is on the images of a split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import distributed, nn
from torch.nn import functional

from wnexplore.design.protocol import Recipe
from wnexplore.errors import RunError
from wnexplore.measure.data import Pass, Split
from wnexplore.measure.determinism import generator_states, set_generator_states
from wnexplore.measure.waiting import yield_to_others


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split."""

    top1: float
    """Share of the images whose class came first, in percent."""
    top5: float
    """Share of the images whose class was among the first five, or among all if there are fewer."""
    loss: float
    """Mean cross-entropy, in nats, without label smoothing."""
    images: int
    """How many there were; damaged ones don't count."""


def evaluate(
    model: nn.Module, split: Split, batch_size: int, device: str, *, rank: int = 0, world: int = 1
) -> Evaluation:
    """Test `model`, put in evaluation mode, on every image of `split` once.

    Of `world` processes each tests its part, `batch_size` images at a time, and all get the same result.
    Raises `RunError` if not one image can be read.
    """
    model.eval()
    # Correct first, correct among five, sum of the losses, images.
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    yield_to_others(at_once=True)
    with torch.inference_mode():
        for images, labels in split.batches(batch_size, device, rank=rank, world=world):
            yield_to_others()
            logits = model(images).float()
            hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            sums[0] += hits[:, 0].sum()
            sums[1] += hits.sum()
            sums[2] += functional.cross_entropy(logits, labels, reduction="sum")
            sums[3] += len(labels)
    if world > 1:
        distributed.all_reduce(sums)
    first, five, loss, count = sums.tolist()
    if not count:
        raise RunError("not one image of the test could be read")
    return Evaluation(100 * first / count, 100 * five / count, loss / count, round(count))


@contextmanager
def ready_for_test(
    network: nn.Module, split: Split, recipe: Recipe, *, seed: int, device: str, world: int = 1
) -> Iterator[None]:
    """`network` inside as it is tested and kept, and outside as its training left it.

    Inside the statistics of batch normalisation are `refresh_batch_norm`'s from the training images of
    `split`, if the recipe says so, and the same in all `world` processes.
    """
    before = {name: value.clone() for name, value in network.named_buffers()}
    training, generators = network.training, generator_states(device)
    if recipe.batch_norm == "refreshed":
        refresh_batch_norm(network, split, recipe.batch_size, device, Pass(seed, 0))
    elif world > 1:
        for value in network.buffers():
            distributed.broadcast(value, 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in network.named_buffers():
                value.copy_(before[name])
        network.train(training)
        set_generator_states(generators)


def refresh_batch_norm(
    model: nn.Module, split: Split, batch_size: int, device: str, images_from: Pass
) -> None:
    """Set the running statistics of batch normalisation to their mean over augmented training batches.

    The batches hold at least 512 images or all of `split`; the weights stay as they are. "Precise
    BN" of Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of all batches
    model.train()
    batches = split.batches(batch_size, device, images_from)
    with torch.no_grad():
        for images, _ in islice(batches, math.ceil(_REFRESH_IMAGES / batch_size)):
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


_REFRESH_IMAGES = 512
