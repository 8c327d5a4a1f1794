"""Tests the accuracy of a network on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from wnexplore.data import EpochPass, Split
from wnexplore.design.protocol import Recipe
from wnexplore.errors import RunError
from wnexplore.measure.failure import network_step
from wnexplore.measure.thread_waiting import yield_to_others
from wnexplore.measure.torch_settings import PRECISION, precision_set
from wnexplore.models.detector_parts import has_parts
from wnexplore.training.determinism import generator_states, set_generator_states
from wnexplore.training.network_state import Snapshot
from wnexplore.training.plain_values import overlaps
from wnexplore.training.weight_average import Average


@dataclass(frozen=True)
class Evaluation:
    """The result of a network on a split."""

    top1: float
    """Top-1 accuracy in percent."""
    top5: float
    """Top-5 accuracy in percent; of all classes if there are fewer than five."""
    loss: float
    """Mean cross-entropy, in nats, without label smoothing; not finite if an output of the network is not."""
    images: int
    """Number of images, without damaged ones."""

    @property
    def score(self) -> float:
        """The figure by which networks are ranked."""
        return self.top1

    @property
    def figures(self) -> dict[str, float | None]:
        """By column, but for the loss."""
        return {"top1": self.top1}

    @property
    def logged(self) -> dict[str, float | None]:
        """The figures of a log's row, but for the loss."""
        return {"top1": self.top1, "top5": self.top5}


class StoppedError(Exception):
    """A test was stopped before its end."""


def _never() -> bool:
    return False


def evaluate(
    model: nn.Module,
    split: Split,
    batch_size: int,
    device: str,
    *,
    rank: int = 0,
    world: int = 1,
    stop: Callable[[], bool] = _never,
) -> Evaluation:
    """Test `model`, put in evaluation mode, on every image of `split` once.

    All products are float32, on a GPU too; losses are computed from them and summed in float64, so that their
    mean depends on the batch size only as far as the network's outputs do. Each of `world` processes tests
    its part, `batch_size` images at a time, and all get the same result. Raises `RunError` if no image can be
    read, `StoppedError` in all processes once `stop` returns true in one.
    """
    model.eval()
    # Correct top-1, correct top-5, sum of losses, images, stopped processes.
    sums = torch.zeros(5, dtype=torch.float64, device=device)
    yield_to_others(at_once=True)
    with torch.inference_mode(), precision_set(PRECISION):
        for images, labels in split.batches(batch_size, device, rank=rank, world=world):
            if stop():
                break
            yield_to_others()
            with network_step("in the test"):
                logits = model(images).float()
                hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
                loss = functional.cross_entropy(logits.double(), labels, reduction="sum")
            sums[0] += hits[:, 0].sum()
            sums[1] += hits.sum()
            sums[2] += loss
            sums[3] += len(labels)
    sums[4] = stop()
    if world > 1:
        distributed.all_reduce(sums)
    first, five, loss, count, stopped = sums.tolist()
    if stopped:
        raise StoppedError
    if not count:
        raise RunError("no test image could be read")
    return Evaluation(100 * first / count, 100 * five / count, loss / count, round(count))


@contextmanager
def ready_for_test(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    world: int = 1,
    average: Average | None = None,
    stop: Callable[[], bool] = _never,
) -> Iterator[bool]:
    """Inside, `network` in the state that is tested and saved; restored bit by bit afterwards.

    Inside it has the weights of `average`, if there is one, and the statistics of batch normalisation by
    `refresh_batch_norm` from the training images of `split`, if the recipe says so; equal in all `world`
    processes. Yields False if `stop` ended this early: then it must not be tested or saved.
    """
    before = Snapshot(network, parameters=average is not None)
    generators = generator_states(device)
    complete = True
    try:
        if average is not None:
            average.put_in()
        if world > 1:
            _agree(network)
        if recipe.batch_norm == "refreshed":
            complete = refresh_batch_norm(network, split, recipe.batch_size, device, EpochPass(seed, 0), stop)
        yield complete
    finally:
        before.put_back()
        set_generator_states(generators)


def refresh_batch_norm(
    model: nn.Module,
    split: Split,
    batch_size: int,
    device: str,
    images_from: EpochPass,
    stop: Callable[[], bool] = _never,
) -> bool:
    """Set the running statistics of batch normalisation to their mean over augmented training batches.

    The batches hold at least 512 images or all of `split`. Nothing else in `model` changes, and frozen layers
    keep their statistics: those in evaluation mode or with momentum 0. Returns False, without any change, if
    `stop` returns true before the end. "Precise BN" of Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021,
    section 3.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and _follows(m)]
    if not norms:
        return True
    # Some networks write their weights in a training forward pass: a teacher's, normalised filters.
    before = Snapshot(model, parameters=True)
    for norm in norms:
        _begin_anew(norm)
    model.train()
    batches = split.batches(batch_size, device, images_from)
    stopped = False
    with torch.no_grad():
        for images, targets in islice(batches, math.ceil(_REFRESH_IMAGES / batch_size)):
            stopped = stop()
            if stopped:
                break
            _forward(model, images, targets)
    # Only those that counted batches: a layer may be frozen only during a forward pass.
    found = [(norm, _statistics(norm)) for norm in norms if norm.num_batches_tracked]
    before.put_back()
    if stopped:
        return False
    with torch.no_grad():
        for norm, values in found:
            for tensor, value in zip(_statistics(norm, copies=False), values, strict=True):
                tensor.copy_(value)
    return True


def _agree(network: nn.Module) -> None:
    """Broadcast rank 0's buffers: the processes' buffers have diverged since the last step began."""
    with torch.no_grad():
        for buffer in network.buffers():
            if overlaps(buffer):
                continue
            value = buffer.contiguous()
            distributed.broadcast(value, 0)
            if value is not buffer:
                buffer.copy_(value)


def run_in_training(network: nn.Module, images: Any, targets: Any) -> Any:
    """What `network`, in training mode, gives for a batch: logits, or a detector's losses."""
    return network(images, targets) if has_parts(network) else network(images)


def is_too_few(error: Exception) -> bool:
    """Whether `error` is batch normalisation's error for one value per channel."""
    return isinstance(error, ValueError) and "more than 1 value per channel when training" in str(error)


def _follows(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether `norm` has running statistics that training updates."""
    tensors = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return norm.momentum != 0 and all(isinstance(tensor, Tensor) for tensor in tensors)


def _begin_anew(norm: nn.modules.batchnorm._BatchNorm) -> None:
    """Make the next batch replace the statistics of `norm`, and average later batches."""
    mean, variance, count = _statistics(norm, copies=False)
    count.zero_()
    norm.momentum = None
    if not (mean.isfinite().all() and variance.isfinite().all()):
        # With a factor of zero the old values would otherwise remain.
        mean.zero_()
        variance.fill_(1)


def _statistics(norm: nn.modules.batchnorm._BatchNorm, *, copies: bool = True) -> tuple[Tensor, ...]:
    found = norm.running_mean, norm.running_var, norm.num_batches_tracked
    tensors = [tensor for tensor in found if tensor is not None]
    return tuple(tensor.clone() if copies else tensor for tensor in tensors)


def _forward(model: nn.Module, images: Any, targets: Any) -> None:
    """Run `model` on `images`; ignoring batches that damaged images left too small."""
    with network_step("while batch-norm statistics were recomputed"):
        try:
            run_in_training(model, images, targets)
        except ValueError as error:
            if not is_too_few(error):
                raise


_REFRESH_IMAGES = 512
